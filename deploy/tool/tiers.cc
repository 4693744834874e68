#include "deploy/tool/tiers.h"

#include <unistd.h>

#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <array>
#include <atomic>
#include <cstdio>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace updraft::tool {

namespace {

// A file that a daemon writes its ports to. Named by this process: another demo may use the same folder.
std::string PortFile(const TierFlags& flags, const char* name) {
  return std::filesystem::path(flags.out) / absl::StrCat(name, ".", getpid(), ".port");
}

// A served pair listens where the tools look by default; a demo takes free ports.
std::string ListenAt(const TierFlags& flags, const char* served) {
  return flags.where_tools_look ? served : "127.0.0.1:0";
}

void AddWhatStandsBeside(const std::string& adapter, const std::string& chat_template, std::vector<std::string>* args) {
  if (!adapter.empty()) args->insert(args->end(), {"--adapter", adapter});
  if (!chat_template.empty()) args->insert(args->end(), {"--chat-template", chat_template});
}

}  // namespace

void AddTierOptions(CLI::App* command, TierFlags* flags) {
  command->add_option("--out", flags->out, "Folder for what is written: logs of the daemons, reports");
  command->add_option("--edge-model", flags->edge_model, "GGUF file of the edge");
  command->add_option("--edge-adapter", flags->edge_adapter, "LoRA GGUF beside it");
  command->add_option("--cloud-model", flags->cloud_model, "GGUF file of the cloud");
  command->add_option("--cloud-adapter", flags->cloud_adapter, "LoRA GGUF beside it");
  command->add_option("--edge-chat-template", flags->edge_chat_template, "As the edge's --chat-template");
  command->add_option("--cloud-chat-template", flags->cloud_chat_template, "As the cloud's --chat-template");
}

std::filesystem::path ProgramFolder(const std::string& program) {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (error ? std::filesystem::path(program) : self).parent_path();
}

absl::StatusOr<Edge> StartEdge(const TierFlags& flags, const std::filesystem::path& bin, int upstream_port,
                               const char* name) {
  const std::string ports = PortFile(flags, name);
  const absl::Cleanup remove_ports = [&ports] {
    std::error_code error;
    std::filesystem::remove(ports, error);
  };
  std::vector<std::string> args = {bin / "updraft-edge",
                                   "--model",
                                   flags.edge_model,
                                   "--listen",
                                   ListenAt(flags, "127.0.0.1:7071"),
                                   "--http-listen",
                                   ListenAt(flags, "127.0.0.1:8080"),
                                   "--upstream",
                                   absl::StrCat("127.0.0.1:", upstream_port),
                                   "--port-file",
                                   ports};
  AddWhatStandsBeside(flags.edge_adapter, flags.edge_chat_template, &args);
  auto edge = Daemon::Start("updraft-edge", args, std::filesystem::path(flags.out) / absl::StrCat(name, ".log"));
  if (!edge.ok()) return edge.status();
  auto port = edge->AwaitPorts(ports, absl::Seconds(30));
  if (!port.ok()) return port.status();
  if (port->size() < 2) {
    return absl::InternalError(absl::StrCat("expected two ports in '", ports, "', found ", port->size()));
  }
  return Edge{*std::move(edge), (*port)[0], (*port)[1]};
}

absl::StatusOr<Tiers> StartTiers(const TierFlags& flags, const std::filesystem::path& bin) {
  for (const std::string& file : {flags.cloud_model, flags.edge_model, flags.cloud_adapter, flags.edge_adapter}) {
    if (!file.empty() && !std::filesystem::exists(file)) {
      return absl::NotFoundError(absl::StrCat("'", file,
                                              "' does not exist; run from the repository's root, or say where the "
                                              "files of both tiers are (--edge-model, --cloud-model)"));
    }
  }
  std::error_code error;
  std::filesystem::create_directories(flags.out, error);
  if (error) return absl::UnavailableError(absl::StrCat("cannot make folder '", flags.out, "': ", error.message()));
  const std::string ports = PortFile(flags, "cloud");
  const absl::Cleanup remove_ports = [&] { std::filesystem::remove(ports, error); };
  std::vector<std::string> args = {
      bin / "updraft-cloud", "--model", flags.cloud_model, "--listen", ListenAt(flags, "127.0.0.1:7070"),
      "--port-file",         ports};
  AddWhatStandsBeside(flags.cloud_adapter, flags.cloud_chat_template, &args);
  auto cloud = Daemon::Start("updraft-cloud", args, std::filesystem::path(flags.out) / "cloud.log");
  if (!cloud.ok()) return cloud.status();
  auto cloud_port = cloud->AwaitPorts(ports, absl::Seconds(30));
  if (!cloud_port.ok()) return cloud_port.status();
  auto edge = StartEdge(flags, bin, cloud_port->front(), "edge");
  if (!edge.ok()) return edge.status();
  return Tiers{*std::move(cloud), cloud_port->front(), *std::move(edge)};
}

sigset_t BlockSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  return set;
}

// The watcher only signals: the Daemon objects are this thread's.
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

}  // namespace updraft::tool
