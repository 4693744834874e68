#include "cloud/service/cloud_server.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "cloud/engine/model_executor.h"
#include "cloud/engine/paced_executor.h"
#include "common/clock/steady.h"
#include "common/files/file_error.h"
#include "common/rpc/process.h"
#include "common/serving/admission.h"
#include "common/telemetry/log.h"

namespace updraft {
namespace {

bool IsPaced(const v1::CloudConfig& config) { return config.paced_us_per_step() > 0 || config.paced_us_per_row() > 0; }

// But for how many blocks.
KvStoreOptions KvOptionsOf(const v1::CloudConfig& config) {
  KvStoreOptions options{.block_tokens = config.block_tokens()};
  kernels::ParseKvType(config.kv_type().c_str(), options.type);  // the configuration allows no other names
  return options;
}

absl::StatusOr<std::unique_ptr<engine::Executor>> MakeExecutor(const v1::CloudConfig& config,
                                                               const engine::CoreOptions& blocks,
                                                               const ServedModel& served) {
  const Model& model = served.model();
  if (IsPaced(config)) {
    LogEvent(LogLevel::kWarn, "paced_executor",
             {{"note", "for tests of time: the tokens are not the model's"},
              {"us_per_step", config.paced_us_per_step()},
              {"us_per_row", config.paced_us_per_row()}});
    return std::make_unique<engine::PacedExecutor>(
        model.config().n_vocab, model.config().context_length,
        engine::Pace{.per_step = absl::Microseconds(config.paced_us_per_step()),
                     .per_row = absl::Microseconds(config.paced_us_per_row())},
        served.stop_tokens());
  }
  KvStoreOptions options = KvOptionsOf(config);
  options.n_blocks = blocks.n_blocks;
  absl::StatusOr<std::unique_ptr<KvStore>> kv = KvStore::Create(model.ops(), model.config(), options);
  if (!kv.ok())
    return absl::Status(kv.status().code(), absl::StrCat("kv_tokens: ", std::string(kv.status().message())));
  return std::make_unique<engine::ModelExecutor>(&model, *std::move(kv));
}

engine::CoreOptions CoreOptionsOf(const v1::CloudConfig& config) {
  return {.n_blocks = (config.kv_tokens() + config.block_tokens() - 1) / config.block_tokens(),
          .block_tokens = config.block_tokens(),
          .max_running = config.max_running(),
          .max_step_tokens = config.max_step_tokens(),
          .reuse_prefixes = config.prefix_cache() == "on",
          .itl_target = absl::Milliseconds(config.itl_target_ms())};
}

absl::StatusOr<std::unique_ptr<engine::Engine>> MakeEngine(const v1::CloudConfig& config, const ServedModel& served,
                                                           Metrics* metrics) {
  const engine::EngineOptions options{
      .core = CoreOptionsOf(config),
      .max_queued = config.max_queued(),
      .on_step =
          [metrics](const engine::StepMeasured& step) {
            metrics->OnEngineStep(step.n_rows, step.n_sequences, absl::ToDoubleSeconds(step.time));
          },
      .on_gap = [metrics](absl::Duration gap) { metrics->OnInterToken(absl::ToDoubleSeconds(gap)); },
  };
  if (absl::Status status = options.Validate(); !status.ok()) return status;
  absl::StatusOr<std::unique_ptr<engine::Executor>> executor = MakeExecutor(config, options.core, served);
  if (!executor.ok()) return executor.status();
  return engine::Engine::Create(options, *std::move(executor));
}

FrontOptions MakeFrontOptions(const v1::CloudConfig& config) {
  StreamLimits limits;
  limits.max_buffered_tokens = config.max_buffered_tokens();
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
          .service = {.version = UPDRAFT_VERSION, .process_start = ProcessStartTime(), .stream = limits}};
}

}  // namespace

absl::StatusOr<std::unique_ptr<CloudServer>> CloudServer::Start(const v1::CloudConfig& config) {
  const FrontOptions front_options = MakeFrontOptions(config);
  // Before the model is loaded, which may take long.
  if (absl::Status status = Fronts::Check(front_options); !status.ok()) return status;
  std::unique_ptr<CloudServer> cloud(new CloudServer);
  LoadOptions load{.n_threads = config.threads(),
                   .pin_threads = config.pin(),
                   .adapter = config.adapter(),
                   .packed_cache = config.packed_cache()};
  if (!IsPaced(config)) {
    load.admit = AdmitWithinMemory(
        {.kv_tokens = config.kv_tokens(), .kv = KvOptionsOf(config), .max_rows = config.max_step_tokens()});
  }
  absl::StatusOr<std::unique_ptr<ServedModel>> model =
      ServedModel::Load(config.model(), load, config.chat_template(), config.served_model_name());
  if (!model.ok()) return AsFileError(model.status());
  cloud->model_ = *std::move(model);
  cloud->metrics_ = std::make_unique<Metrics>(config.tier(), cloud->model_->name());
  absl::StatusOr<std::unique_ptr<engine::Engine>> engine = MakeEngine(config, *cloud->model_, cloud->metrics_.get());
  if (!engine.ok()) return engine.status();
  cloud->engine_ = *std::move(engine);

  const engine::CoreOptions pool = CoreOptionsOf(config);
  // The last token of a sequence is chosen and never run: it needs no room in the pool.
  const int64_t pool_tokens = int64_t{pool.n_blocks} * pool.block_tokens + 1;
  const int64_t context_length = cloud->model_->model().config().context_length;
  absl::StatusOr<DispositionRule> rule = DispositionRule::Of(cloud->model_->model());
  if (!rule.ok()) return rule.status();
  cloud->backend_ = std::make_unique<CloudBackend>(
      cloud->model_.get(), cloud->engine_.get(), cloud->metrics_.get(),
      CloudBackendOptions{.tier = config.tier(),
                          .limits = {.max_tokens_default = config.max_tokens_default(),
                                     .max_sequence_tokens = static_cast<int>(std::min(context_length, pool_tokens))},
                          .disposition_rule = *std::move(rule)});
  absl::StatusOr<std::unique_ptr<Fronts>> fronts =
      Fronts::Start(cloud->backend_.get(), cloud->metrics_.get(), front_options);
  if (!fronts.ok()) return fronts.status();
  cloud->fronts_ = *std::move(fronts);
  return cloud;
}

CloudServer::~CloudServer() {
  // Answers need the engine to end them, so the fronts go before it.
  Shutdown(absl::ZeroDuration());
}

void CloudServer::Shutdown(absl::Duration grace) {
  const SteadyTime end = SteadyNow() + grace;
  if (backend_ != nullptr) backend_->BeginDrain();
  if (fronts_ != nullptr) fronts_->DrainGrpc(grace);
  // What HTTP still waits for. Who comes meanwhile is told why it is refused.
  if (engine_ != nullptr) engine_->Shutdown(std::max(absl::ZeroDuration(), end - SteadyNow()));
  if (fronts_ != nullptr) fronts_->Stop(kFlushTime);
}

}  // namespace updraft
