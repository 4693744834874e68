// demo: starts both daemons on loopback, sends held-out queries through the edge and reports; --link does it again with
// a road between the two; --serve leaves them running.
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "deploy/demo/demo.h"
#include "deploy/relay/relay.h"
#include "deploy/relay/road.h"
#include "deploy/tool/commands.h"
#include "deploy/tool/daemon.h"

namespace updraft::tool {
namespace {

struct DemoFlags {
  std::string out = "build/demo", edge_model = "deploy/models/cockpit-edge.gguf",
              cloud_model = "deploy/models/cockpit-full.gguf", link;
  double link_start_s = 0.0, link_scale = 1.0;
  std::optional<double> link_delay_ms;
  int queries = 600, concurrency = 2;
  uint64_t seed = 1;
  bool serve = false;
};

struct Edge {
  Daemon daemon;
  int grpc_port = 0, http_port = 0;
};

struct Tiers {
  Daemon cloud;
  int cloud_port = 0;
  Edge edge;
};

std::filesystem::path ProgramFolder(const std::string& program) {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (error ? std::filesystem::path(program) : self).parent_path();
}

// A file that a daemon writes its ports to. Named by this process: another demo may use the same folder.
std::string PortFile(const DemoFlags& flags, const char* name) {
  return std::filesystem::path(flags.out) / absl::StrCat(name, ".", getpid(), ".port");
}

// A served pair listens where the tools look by default; a demo takes free ports.
std::string ListenAt(const DemoFlags& flags, const char* served) { return flags.serve ? served : "127.0.0.1:0"; }

absl::StatusOr<Edge> StartEdge(const DemoFlags& flags, const std::filesystem::path& bin, int upstream_port,
                               const char* name) {
  const std::string ports = PortFile(flags, name);
  const absl::Cleanup remove_ports = [&ports] {
    std::error_code error;
    std::filesystem::remove(ports, error);
  };
  auto edge = Daemon::Start("updraft-edge",
                            {bin / "updraft-edge", "--model", flags.edge_model, "--listen",
                             ListenAt(flags, "127.0.0.1:7071"), "--http-listen", ListenAt(flags, "127.0.0.1:8080"),
                             "--upstream", absl::StrCat("127.0.0.1:", upstream_port), "--port-file", ports},
                            std::filesystem::path(flags.out) / absl::StrCat(name, ".log"));
  if (!edge.ok()) return edge.status();
  auto port = edge->AwaitPorts(ports, absl::Seconds(30));
  if (!port.ok()) return port.status();
  if (port->size() < 2) {
    return absl::InternalError(absl::StrCat("demo: expected two ports in '", ports, "', found ", port->size()));
  }
  return Edge{*std::move(edge), (*port)[0], (*port)[1]};
}

absl::StatusOr<Tiers> StartTiers(const DemoFlags& flags, const std::filesystem::path& bin) {
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
  const std::string ports = PortFile(flags, "cloud");
  const absl::Cleanup remove_ports = [&] { std::filesystem::remove(ports, error); };
  auto cloud = Daemon::Start("updraft-cloud",
                             {bin / "updraft-cloud", "--model", flags.cloud_model, "--listen",
                              ListenAt(flags, "127.0.0.1:7070"), "--port-file", ports},
                             std::filesystem::path(flags.out) / "cloud.log");
  if (!cloud.ok()) return cloud.status();
  auto cloud_port = cloud->AwaitPorts(ports, absl::Seconds(30));
  if (!cloud_port.ok()) return cloud_port.status();
  auto edge = StartEdge(flags, bin, cloud_port->front(), "edge");
  if (!edge.ok()) return edge.status();
  return Tiers{*std::move(cloud), cloud_port->front(), *std::move(edge)};
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
  const std::string grpc = absl::StrCat("127.0.0.1:", tiers.edge.grpc_port);
  std::cout << "Both daemons are up. Talk to them:\n"
            << "  build/release/bin/updraft ask --edge " << grpc << " \"set the driver temperature to 22 degrees\"\n"
            << "  build/release/bin/updraft chat --edge " << grpc << "\n"
            << "  build/release/bin/updraft status --edge " << grpc << "\n"
            << "  curl -s http://127.0.0.1:" << tiers.edge.http_port
            << "/v1/chat/completions -H 'Content-Type: application/json' \\\n"
            << "    -d '{\"model\":\"updraft\",\"messages\":[{\"role\":\"user\",\"content\":\"I am freezing\"}]}'\n"
            << "Ctrl-C stops both.\n"
            << std::flush;
  const timespec tick{0, 500'000'000};
  while (sigtimedwait(&signals, nullptr, &tick) < 0) {
    if (!tiers.cloud.Running()) return absl::InternalError("updraft-cloud ended; see cloud.log in the output folder");
    if (!tiers.edge.daemon.Running())
      return absl::InternalError("updraft-edge ended; see edge.log in the output folder");
  }
  return absl::OkStatus();
}

DemoOptions OptionsOf(const DemoFlags& flags, const Edge& edge, std::stop_token stop) {
  DemoOptions options;
  options.edge_address = absl::StrCat("127.0.0.1:", edge.grpc_port);
  options.n_queries = flags.queries;
  options.seed = flags.seed;
  options.concurrency = flags.concurrency;
  options.stop = std::move(stop);
  return options;
}

// Measuring blocks in RPCs. A signal meanwhile ends the daemons, so that they fail; this thread then stops as it would
// after any error, and the process with it. The watcher only signals: the Daemon objects are this thread's.
absl::Status WhileWatched(Tiers& tiers, const sigset_t& signals,
                          const std::function<absl::Status(std::stop_token)>& measure) {
  std::atomic<int> interrupted = 0;
  std::stop_source measuring;
  absl::Status status;
  {
    const std::jthread watcher(
        [&interrupted, &measuring, signals,
         pids = std::array{tiers.edge.daemon.pid(), tiers.cloud.pid()}](const std::stop_token& stop) {
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
    status = measure(measuring.get_token());
  }
  if (interrupted != 0) {
    tiers.edge.daemon.Stop(absl::Seconds(2));
    tiers.cloud.Stop(absl::Seconds(2));
    _exit(128 + interrupted);
  }
  return status;
}

absl::StatusOr<relay::Road> LinkRoad(const DemoFlags& flags) {
  return relay::MakeRoad({.trace = flags.link,
                          .beyond = relay::StepCurve::Beyond::kRepeat,
                          .start_s = flags.link_start_s,
                          .scale = flags.link_scale,
                          .delay_ms = flags.link_delay_ms});
}

// The queries once more, with an edge of its own behind the road.
absl::Status MeasureOnRoad(const DemoFlags& flags, const std::filesystem::path& bin, const relay::Road& road,
                           const sigset_t& signals, Tiers* tiers, DemoReport* report) {
  tiers->edge.daemon.Stop(absl::Seconds(5));
  auto link = relay::Relay::Start({.to = absl::StrCat("127.0.0.1:", tiers->cloud_port), .road = road});
  if (!link.ok()) return link.status();
  auto edge = StartEdge(flags, bin, (*link)->port(), "edge-on-road");
  if (!edge.ok()) return edge.status();
  tiers->edge = *std::move(edge);
  return WhileWatched(*tiers, signals, [&](std::stop_token stop) {
    auto on_road = RunLinkPass(OptionsOf(flags, tiers->edge, std::move(stop)), *report);
    if (!on_road.ok()) return on_road.status();
    const relay::RelayCounters counters = (*link)->counters();  // ending it loses what is on the way
    on_road->road = road.name;
    on_road->like = relay::Describe(road, 0.0, counters.seconds);
    on_road->bytes_lost = counters.up.bytes_lost + counters.down.bytes_lost;
    report->link = *std::move(on_road);
    return absl::OkStatus();
  });
}

absl::Status Demo(const DemoFlags& flags, const std::string& program) {
  std::optional<relay::Road> road;
  if (!flags.link.empty()) {
    auto made = LinkRoad(flags);
    if (!made.ok()) return WithFlag("--link:", made.status());
    road = *std::move(made);
  }
  const sigset_t signals = BlockSignals();
  const std::filesystem::path bin = ProgramFolder(program);
  auto tiers = StartTiers(flags, bin);
  if (!tiers.ok()) return tiers.status();
  if (flags.serve) return Serve(*tiers, signals);
  DemoReport report;
  absl::Status status = WhileWatched(*tiers, signals, [&](std::stop_token stop) {
    auto measured = RunDemo(OptionsOf(flags, tiers->edge, std::move(stop)));
    if (measured.ok()) report = *std::move(measured);
    return measured.status();
  });
  if (status.ok() && road) status = MeasureOnRoad(flags, bin, *road, signals, &*tiers, &report);
  if (!status.ok()) return status;
  std::cout << ToText(report) << "\n";
  if (status = WriteReport(report, flags.out); !status.ok()) return status;
  std::cout << "The same with plots: " << flags.out << "/report.html, " << flags.out << "/report.json\n";
  return absl::OkStatus();
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
  CLI::Option* serve =
      command->add_flag("--serve", flags->serve, "Start both daemons, print how to talk to them, and wait for Ctrl-C");
  CLI::Option* link = command
                          ->add_option("--link", flags->link,
                                       "FILE or FILE#NAME of a road (see relay): the queries once more with it between "
                                       "edge and cloud")
                          ->excludes(serve);
  command->add_option("--link-start", flags->link_start_s, "Seconds into the road")->needs(link);
  command->add_option("--link-scale", flags->link_scale, "Of its rates")->needs(link);
  command->add_option("--link-delay-ms", flags->link_delay_ms, "One way, instead of the road's")->needs(link);
  command->callback([flags, exit_code, program] {
    if (absl::Status status = Demo(*flags, program); !status.ok()) *exit_code = Fail(status);
  });
}

}  // namespace updraft::tool
