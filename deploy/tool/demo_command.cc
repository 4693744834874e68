// demo: starts both daemons on loopback, sends held-out queries through the edge and reports; --serve leaves them
// running.
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "deploy/demo/demo.h"
#include "deploy/tool/commands.h"
#include "deploy/tool/daemon.h"

namespace updraft::tool {
namespace {

struct DemoFlags {
  std::string out = "build/demo", edge_model = "deploy/models/cockpit-edge.gguf",
              cloud_model = "deploy/models/cockpit-full.gguf";
  int queries = 600, concurrency = 2;
  uint64_t seed = 1;
  bool serve = false;
};

struct Tiers {
  Daemon cloud, edge;
  int grpc_port = 0, http_port = 0;
};

std::filesystem::path ProgramFolder(const std::string& program) {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (error ? std::filesystem::path(program) : self).parent_path();
}

absl::StatusOr<Tiers> StartTiers(const DemoFlags& flags, const std::string& program) {
  for (const std::string& model : {flags.cloud_model, flags.edge_model}) {
    if (!std::filesystem::exists(model)) {
      return absl::NotFoundError(absl::StrCat("demo: model '", model,
                                              "' does not exist; run from the repository's root, or give "
                                              "--edge-model and --cloud-model"));
    }
  }
  std::error_code error;
  std::filesystem::create_directories(flags.out, error);
  if (error)
    return absl::UnavailableError(absl::StrCat("demo: cannot make folder '", flags.out, "': ", error.message()));
  const std::filesystem::path bin = ProgramFolder(program), out = flags.out;
  // Named by this process: another demo may use the same folder.
  const std::string cloud_ports = out / absl::StrCat("cloud.", getpid(), ".port"),
                    edge_ports = out / absl::StrCat("edge.", getpid(), ".port");
  const absl::Cleanup remove_ports = [&] {
    std::filesystem::remove(cloud_ports, error);
    std::filesystem::remove(edge_ports, error);
  };

  // A served pair listens where the tools look by default; a demo takes free ports.
  const std::string any = "127.0.0.1:0";
  auto cloud = Daemon::Start("updraft-cloud",
                             {bin / "updraft-cloud", "--model", flags.cloud_model, "--listen",
                              flags.serve ? "127.0.0.1:7070" : any, "--port-file", cloud_ports},
                             out / "cloud.log");
  if (!cloud.ok()) return cloud.status();
  auto cloud_port = cloud->AwaitPorts(cloud_ports, absl::Seconds(30));
  if (!cloud_port.ok()) return cloud_port.status();
  auto edge =
      Daemon::Start("updraft-edge",
                    {bin / "updraft-edge", "--model", flags.edge_model, "--listen",
                     flags.serve ? "127.0.0.1:7071" : any, "--http-listen", flags.serve ? "127.0.0.1:8080" : any,
                     "--upstream", absl::StrCat("127.0.0.1:", cloud_port->front()), "--port-file", edge_ports},
                    out / "edge.log");
  if (!edge.ok()) return edge.status();
  auto edge_port = edge->AwaitPorts(edge_ports, absl::Seconds(30));
  if (!edge_port.ok()) return edge_port.status();
  if (edge_port->size() < 2) {
    return absl::InternalError(
        absl::StrCat("demo: expected two ports in '", edge_ports, "', found ", edge_port->size()));
  }
  return Tiers{*std::move(cloud), *std::move(edge), (*edge_port)[0], (*edge_port)[1]};
}

// Blocks SIGINT and SIGTERM for this and later threads, so that they arrive through sigwait: children are stopped in
// order.
sigset_t BlockSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  return set;
}

absl::Status Serve(Tiers& tiers, const sigset_t& signals) {
  const std::string grpc = absl::StrCat("127.0.0.1:", tiers.grpc_port);
  std::cout << "Both daemons are up. Talk to them:\n"
            << "  build/release/bin/updraft ask --edge " << grpc << " \"set the driver temperature to 22 degrees\"\n"
            << "  build/release/bin/updraft chat --edge " << grpc << "\n"
            << "  build/release/bin/updraft status --edge " << grpc << "\n"
            << "  curl -s http://127.0.0.1:" << tiers.http_port
            << "/v1/chat/completions -H 'Content-Type: application/json' \\\n"
            << "    -d '{\"model\":\"updraft\",\"messages\":[{\"role\":\"user\",\"content\":\"I am freezing\"}]}'\n"
            << "Ctrl-C stops both.\n"
            << std::flush;
  const timespec tick{0, 500'000'000};
  while (sigtimedwait(&signals, nullptr, &tick) < 0) {
    if (!tiers.cloud.Running()) return absl::InternalError("updraft-cloud ended; see cloud.log in the output folder");
    if (!tiers.edge.Running()) return absl::InternalError("updraft-edge ended; see edge.log in the output folder");
  }
  return absl::OkStatus();
}

absl::Status Measure(const DemoFlags& flags, const Tiers& tiers, std::stop_token stop) {
  DemoOptions options;
  options.edge_address = absl::StrCat("127.0.0.1:", tiers.grpc_port);
  options.n_queries = flags.queries;
  options.seed = flags.seed;
  options.concurrency = flags.concurrency;
  options.stop = std::move(stop);
  auto report = RunDemo(options);
  if (!report.ok()) return report.status();
  std::cout << ToText(*report) << "\n";
  if (absl::Status status = WriteReport(*report, flags.out); !status.ok()) return status;
  std::cout << "The same with plots: " << flags.out << "/report.html, " << flags.out << "/report.json\n";
  return absl::OkStatus();
}

absl::Status Demo(const DemoFlags& flags, const std::string& program) {
  const sigset_t signals = BlockSignals();
  auto tiers = StartTiers(flags, program);
  if (!tiers.ok()) return tiers.status();
  if (flags.serve) return Serve(*tiers, signals);
  // Measuring blocks in RPCs. A signal meanwhile ends the daemons, so that they fail; this thread then stops as it
  // would after any error. The watcher only signals: the Daemon objects are this thread's.
  std::atomic<int> interrupted = 0;
  std::stop_source measuring;
  absl::Status status;
  {
    const std::jthread watcher([&interrupted, &measuring, signals,
                                pids = std::array{tiers->edge.pid(), tiers->cloud.pid()}](const std::stop_token& stop) {
      const timespec tick{0, 100'000'000};
      while (!stop.stop_requested()) {
        const int signal = sigtimedwait(&signals, nullptr, &tick);
        if (signal <= 0) continue;
        interrupted = signal;
        measuring.request_stop();
        std::fprintf(stderr, "\nupdraft: interrupted, stopping both daemons\n");
        for (const pid_t pid : pids) kill(pid, SIGKILL);
        return;
      }
    });
    status = Measure(flags, *tiers, measuring.get_token());
  }
  if (interrupted != 0) {
    tiers->edge.Stop(absl::Seconds(2));
    tiers->cloud.Stop(absl::Seconds(2));
    _exit(128 + interrupted);
  }
  return status;
}

}  // namespace

void AddDemoCommand(CLI::App& app, int* exit_code, const std::string& program) {
  auto flags = std::make_shared<DemoFlags>();
  CLI::App* command =
      app.add_subcommand("demo", "Both daemons on loopback, held-out queries through the edge, a report");
  command->add_option("--queries", flags->queries, "Held-out queries")->check(CLI::Range(1, 1'000'000));
  command->add_option("--seed", flags->seed, "Of the queries");
  command->add_option("--concurrency", flags->concurrency, "Queries in flight")->check(CLI::Range(1, 1024));
  command->add_option("--out", flags->out, "Folder for report.html, report.json and the daemons' logs");
  command->add_option("--edge-model", flags->edge_model, "GGUF file of the edge");
  command->add_option("--cloud-model", flags->cloud_model, "GGUF file of the cloud");
  command->add_flag("--serve", flags->serve, "Start both daemons, print how to talk to them, and wait for Ctrl-C");
  command->callback([flags, exit_code, program] {
    if (absl::Status status = Demo(*flags, program); !status.ok()) *exit_code = Fail(status);
  });
}

}  // namespace updraft::tool
