// updraft-cloud: serves a model over gRPC. `updraft-cloud --help` lists the flags.
#include <cstdio>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cloud/service/cloud_server.h"
#include "common/rpc/config.h"
#include "common/rpc/process.h"
#include "common/rpc/server.h"
#include "common/serving/request_check.h"
#include "common/telemetry/log.h"
#include "updraft/v1/config.pb.h"

namespace updraft {
namespace {

constexpr char kProgram[] = "updraft-cloud";

// 2: values that cannot work; 1: everything else.
int Fail(const absl::Status& status) {
  std::fprintf(stderr, "%s: %s\n", kProgram, std::string(status.message()).c_str());
  return absl::IsInvalidArgument(status) ? 2 : 1;
}

int Main(int argc, const char* const* argv) {
  const auto config = LoadConfigOrExit<v1::CloudConfig>(argc, argv, kProgram, "serves a model to devices and edges");
  if (absl::Status status = CheckId("tier", config.tier()); !status.ok()) return Fail(status);
  if (absl::Status status = SetUpLogging(config.log_level(), config.tier()); !status.ok()) return Fail(status);
  ShutdownSignal shutdown;  // before any thread exists
  LogEvent(LogLevel::kInfo, "config", {{"values", ConfigToJson(config)}});
  absl::StatusOr<std::unique_ptr<CloudServer>> cloud = CloudServer::Start(config);
  if (!cloud.ok()) return Fail(cloud.status());
  if (!config.port_file().empty()) {
    if (absl::Status status = WritePortFile(config.port_file(), (*cloud)->ports()); !status.ok()) {
      return Fail(status);
    }
  }
  LogEvent(LogLevel::kInfo, "ready",
           {{"listen", (*cloud)->address()},
            {"http_port", (*cloud)->http_port()},
            {"model", (*cloud)->model_info().name()},
            {"parameters", (*cloud)->model_info().n_parameters()},
            {"resident_bytes", ResidentBytes()}});
  const int signal = shutdown.Wait();
  LogEvent(LogLevel::kInfo, "draining", {{"signal", signal}, {"drain_timeout_ms", config.drain_timeout_ms()}});
  (*cloud)->Shutdown(absl::Milliseconds(config.drain_timeout_ms()));
  const engine::Stats stats = (*cloud)->stats();
  LogEvent(LogLevel::kInfo, "stopped",
           {{"finished", stats.n_finished},
            {"failed", stats.n_failed},
            {"refused", stats.n_refused},
            {"steps", stats.n_steps}});
  return 0;
}

}  // namespace
}  // namespace updraft

int main(int argc, char** argv) { return updraft::Main(argc, argv); }
