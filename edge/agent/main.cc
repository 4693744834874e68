// updraft-edge: the agent on the device.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "common/clock/steady.h"
#include "common/routing/names.h"
#include "common/rpc/address.h"
#include "common/rpc/channel.h"
#include "common/rpc/config.h"
#include "common/rpc/process.h"
#include "common/rpc/server.h"
#include "common/serving/api_keys.h"
#include "common/serving/fronts.h"
#include "common/serving/request_check.h"
#include "common/telemetry/log.h"
#include "edge/agent/agent.h"
#include "edge/agent/grpc_upstream.h"
#include "updraft/v1/config.pb.h"

namespace updraft {
namespace {

constexpr double kDefaultThreshold = 0.5;  // for a file without calibration: its confidence is a plain probability

enum ExitCode { kFailed = 1, kBadUsage = 2 };

int Fail(const absl::Status& status, ExitCode code) {
  std::fprintf(stderr, "updraft-edge: %s\n", std::string(status.message()).c_str());
  return code;
}

// A value that cannot be is wrong usage; an address that is taken is bad luck.
int Fail(const absl::Status& status) { return Fail(status, absl::IsInvalidArgument(status) ? kBadUsage : kFailed); }

ExitMode ExitModeOf(const std::string& name) {
  if (name == "lossy") return ExitMode::kLossy;
  return name == "lossless" ? ExitMode::kLossless : ExitMode::kOff;
}

kernels::KvType KvTypeOf(const std::string& name) {
  kernels::KvType type = kernels::KvType::kF16;
  kernels::ParseKvType(name.c_str(), type);  // the configuration allows no other names
  return type;
}

LocalModelOptions MakeModelOptions(const v1::EdgeConfig& config) {
  return {.path = config.model(),
          .load = {.n_threads = config.threads(),
                   .pin_threads = config.pin(),
                   .adapter = config.adapter(),
                   .packed_cache = config.packed_cache()},
          .chat_template = config.chat_template(),
          .served_name = config.served_model_name(),
          .kv_tokens = config.kv_tokens(),
          .answers_at_once = config.answers_at_once(),
          .kv_type = KvTypeOf(config.kv_type()),
          .exit_mode = ExitModeOf(config.exit_mode()),
          .with_router = config.router_gain() > 0};
}

AgentOptions MakeAgentOptions(const v1::EdgeConfig& config, const ConfidenceModel& confidence) {
  AgentOptions options;
  options.tier = config.tier();
  options.max_queued = config.max_queued();
  options.answers_at_once = config.answers_at_once();
  options.max_handed_over = config.max_handed_over();
  options.max_tokens_default = config.max_tokens_default();
  options.audit_share = config.audit_share();
  options.audit_level = config.audit_level();
  options.policy.router_gain = config.router_gain();
  // The configuration allows no other names.
  options.policy.mode = FromName<PolicyMode>(config.policy()).value_or(PolicyMode::kAuto);
  options.policy.confidence_threshold = config.confidence_threshold();
  if (config.confidence_threshold() == 0.0) {
    options.policy.confidence_threshold = confidence.calibrated() ? confidence.threshold() : kDefaultThreshold;
  }
  return options;
}

FrontOptions MakeFrontOptions(const v1::EdgeConfig& config, SteadyTime process_start) {
  StreamLimits limits;
  limits.max_buffered_bytes = static_cast<size_t>(config.max_buffered_bytes());
  limits.write_timeout = absl::Milliseconds(config.write_timeout_ms());
  limits.max_streams = config.max_streams();
  return {.listen = config.listen(),
          .http_listen = config.http_listen(),
          .max_http_body_bytes = static_cast<size_t>(config.max_http_body_bytes()),
          .max_grpc_bytes = static_cast<size_t>(config.max_grpc_bytes()),
          .max_http_connections = config.max_http_connections(),
          .http_keep_alive = absl::Milliseconds(config.http_keep_alive_ms()),
          .http_access = {{config.allow_host().begin(), config.allow_host().end()},
                          {config.allow_origin().begin(), config.allow_origin().end()}},
          .api_keys = config.api_keys(),
          .once = {.grace = absl::Milliseconds(config.repeat_grace_ms()),
                   .max_bytes = static_cast<size_t>(config.repeat_max_bytes())},
          .service = {.version = UPDRAFT_VERSION, .process_start = process_start, .stream = limits}};
}

// What the ranges in config.proto cannot say.
absl::Status CheckConfig(const v1::EdgeConfig& config) {
  if (absl::Status status = CheckId("tier", config.tier()); !status.ok()) return status;
  if (absl::Status status = Fronts::Check(MakeFrontOptions(config, {})); !status.ok()) return status;
  if (absl::Status status = CheckProxy(config.upstream_proxy(), "upstream_proxy"); !status.ok()) return status;
  if (config.policy() == "upstream" && config.upstream().empty()) {
    return absl::InvalidArgumentError("policy: 'upstream' needs a tier above; name it with --upstream HOST:PORT");
  }
  if (config.audit_share() > 0 && (config.upstream().empty() || config.policy() != "auto")) {
    return absl::InvalidArgumentError(
        "audit_share: a tier above is asked about kept answers; it needs --upstream HOST:PORT and --policy auto, or "
        "leave it 0");
  }
  // An upstream that cannot be is told where it is used.
  const auto listen = ParseHostPort(config.listen(), "listen", PortZero::kAllowed);
  const auto upstream = ParseHostPort(config.upstream(), "upstream", PortZero::kRefused);
  if (listen.ok() && upstream.ok() && IsSameEndpoint(*listen, *upstream)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("upstream: expected the address of another tier, found '%s', where this one listens itself "
                        "(--listen %s); it would hand requests over to itself",
                        config.upstream(), config.listen()));
  }
  return absl::OkStatus();
}

std::shared_ptr<SharedSession> MakeSession(const v1::EdgeConfig& config) {
  SessionOptions options;
  options.n_upstreams = config.upstream().empty() ? 0 : 1;
  options.look_interval_s = config.link_probe_interval_ms() * 1e-3;
  return std::make_shared<SharedSession>(options);
}

absl::StatusOr<std::string> UpstreamKey(const v1::EdgeConfig& config) {
  if (config.upstream_key().empty()) return "";
  const auto text = ReadSecretFile(config.upstream_key());
  if (!text.ok())
    return absl::InvalidArgumentError(absl::StrCat("upstream_key: ", std::string(text.status().message())));
  std::string key = *text;
  absl::StripAsciiWhitespace(&key);
  const std::string field = absl::StrFormat("upstream_key: '%s'", config.upstream_key());
  if (key.empty()) return absl::InvalidArgumentError(absl::StrCat(field, ": expected a key, found nothing"));
  if (absl::Status status = CheckKey(key, field); !status.ok()) return status;
  return key;
}

absl::StatusOr<std::unique_ptr<Upstream>> MakeUpstream(const v1::EdgeConfig& config,
                                                       std::shared_ptr<SharedSession> session) {
  if (config.upstream().empty()) return std::unique_ptr<Upstream>();
  GrpcUpstreamOptions options;
  options.address = config.upstream();
  options.proxy = config.upstream_proxy();
  auto key = UpstreamKey(config);
  if (!key.ok()) return key.status();
  options.key = *std::move(key);
  options.stall_timeout = absl::Milliseconds(config.upstream_timeout_ms());
  // Whoever waits longer than that for a byte waits as long for a piece of the answer.
  options.progress_timeout = std::max(options.stall_timeout, absl::Milliseconds(config.upstream_progress_timeout_ms()));
  return GrpcUpstream::Create(options, std::move(session));
}

// From the first request to the last.
int Serve(const v1::EdgeConfig& config, Agent& agent, Fronts& fronts, ShutdownSignal& shutdown,
          SteadyTime process_start) {
  LogEvent(LogLevel::kInfo, "ready",
           {{"grpc", fronts.grpc_address()},
            {"http_port", fronts.http_port()},
            {"model", agent.served().name()},
            {"threshold", agent.options().policy.confidence_threshold},
            {"after_ms", absl::ToDoubleMilliseconds(SteadyNow() - process_start)},
            {"resident_mb", static_cast<double>(ResidentBytes()) / (1 << 20)}});
  if (!config.port_file().empty()) {
    if (absl::Status status = WritePortFile(config.port_file(), fronts.ports()); !status.ok()) return Fail(status);
  }

  const int signal = shutdown.Wait();
  LogEvent(LogLevel::kInfo, "draining", {{"signal", signal}});
  const absl::Duration grace = absl::Milliseconds(config.drain_timeout_ms());
  // The servers stay until the last answer has ended, so that who comes meanwhile is told why it is refused.
  agent.Stop(grace);
  fronts.Stop(kFlushTime);
  LogEvent(LogLevel::kInfo, "stopped");
  return 0;
}

int Run(const v1::EdgeConfig& config) {
  const SteadyTime process_start = ProcessStartTime();
  if (absl::Status status = CheckConfig(config); !status.ok()) return Fail(status, kBadUsage);
  if (absl::Status status = SetUpLogging(config.log_level(), config.tier()); !status.ok())
    return Fail(status, kBadUsage);
  ShutdownSignal shutdown;
  LogEvent(LogLevel::kInfo, "config", {{"resolved", ConfigToJson(config)}});

  // The first probe of upstream runs while the model loads.
  const auto session = MakeSession(config);
  auto upstream = MakeUpstream(config, session);
  if (!upstream.ok()) return Fail(upstream.status(), kBadUsage);
  auto model = LocalModel::Load(MakeModelOptions(config));
  if (!model.ok()) return Fail(model.status(), kFailed);
  if (!(*model)->confidence().calibrated() && *upstream != nullptr && config.policy() == "auto") {
    LogEvent(LogLevel::kWarn, "uncalibrated",
             {{"model", config.model()}, {"hint", "confidence is a plain token probability; run updraft calibrate"}});
  }
  if (config.router_gain() > 0 && (*model)->router() == nullptr) {
    return Fail(absl::InvalidArgumentError(absl::StrFormat(
                    "router_gain: model '%s' has no router to read a gain by; fit one (updraft train router --model), "
                    "or leave it 0",
                    config.model())),
                kBadUsage);
  }
  const AgentOptions options = MakeAgentOptions(config, (*model)->confidence());
  if (absl::Status status = options.policy.Validate(); !status.ok()) return Fail(status, kBadUsage);
  if (absl::Status status = CheckAudits(options); !status.ok()) return Fail(status, kBadUsage);
  Metrics metrics(config.tier(), (*model)->served().name());
  Agent agent(options, *std::move(model), session, *std::move(upstream), &metrics);

  auto fronts = Fronts::Start(&agent, &metrics, MakeFrontOptions(config, process_start));
  if (!fronts.ok()) return Fail(fronts.status());

  return Serve(config, agent, **fronts, shutdown, process_start);
}

}  // namespace
}  // namespace updraft

int main(int argc, char** argv) {
  const auto config = updraft::LoadConfigOrExit<updraft::v1::EdgeConfig>(
      argc, argv, "updraft-edge", "The agent on the device: answers locally, hands over what it is not sure of.");
  return updraft::Run(config);
}
