#include "cloud/service/cloud_server.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cloud/engine/model_executor.h"
#include "cloud/engine/paced_executor.h"
#include "common/files/file_error.h"
#include "common/rpc/address.h"
#include "common/telemetry/log.h"

namespace updraft {
namespace {

absl::StatusOr<std::unique_ptr<engine::Executor>> MakeExecutor(const v1::CloudConfig& config,
                                                               const engine::CoreOptions& blocks,
                                                               const ServedModel& served) {
  const Model& model = served.model();
  if (config.paced_us_per_step() > 0 || config.paced_us_per_row() > 0) {
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
  KvStoreOptions options{.n_blocks = blocks.n_blocks, .block_tokens = blocks.block_tokens};
  kernels::ParseKvType(config.kv_type().c_str(), options.type);  // the configuration allows no other names
  absl::StatusOr<std::unique_ptr<KvStore>> kv = KvStore::Create(model.ops(), model.config(), options);
  if (!kv.ok())
    return absl::Status(kv.status().code(), absl::StrCat("kv_tokens: ", std::string(kv.status().message())));
  return std::make_unique<engine::ModelExecutor>(&model, *std::move(kv));
}

absl::StatusOr<std::unique_ptr<engine::Engine>> MakeEngine(const v1::CloudConfig& config, const ServedModel& served) {
  const engine::EngineOptions options{
      .core = {.n_blocks = (config.kv_tokens() + config.block_tokens() - 1) / config.block_tokens(),
               .block_tokens = config.block_tokens(),
               .max_running = config.max_running(),
               .max_step_tokens = config.max_step_tokens()},
      .max_queued = config.max_queued(),
  };
  if (absl::Status status = options.Validate(); !status.ok()) return status;
  absl::StatusOr<std::unique_ptr<engine::Executor>> executor = MakeExecutor(config, options.core, served);
  if (!executor.ok()) return executor.status();
  return engine::Engine::Create(options, *std::move(executor));
}

}  // namespace

absl::StatusOr<std::unique_ptr<CloudServer>> CloudServer::Start(const v1::CloudConfig& config) {
  // Before the model is loaded, which may take long.
  const absl::StatusOr<HostPort> address = ParseHostPort(config.listen(), "listen", PortZero::kAllowed);
  if (!address.ok()) return address.status();
  std::unique_ptr<CloudServer> cloud(new CloudServer);
  absl::StatusOr<std::unique_ptr<ServedModel>> model = ServedModel::Load(
      config.model(),
      {.n_threads = config.threads(), .pin_threads = config.pin(), .packed_cache = config.packed_cache()});
  if (!model.ok()) return AsFileError(model.status());
  cloud->model_ = *std::move(model);
  absl::StatusOr<std::unique_ptr<engine::Engine>> engine = MakeEngine(config, *cloud->model_);
  if (!engine.ok()) return engine.status();
  cloud->engine_ = *std::move(engine);

  const ModelConfig& facts = cloud->model_->model().config();
  cloud->service_ = std::make_unique<InferenceService>(
      cloud->model_.get(), cloud->engine_.get(),
      InferenceServiceOptions{
          .limits = {.max_tokens_default = config.max_tokens_default(),
                     .max_sequence_tokens = std::min(facts.context_length, config.kv_tokens())},
          .reactor = {.tier = config.tier(),
                      .n_layer = facts.n_layer,
                      .max_buffered_tokens = config.max_buffered_tokens()},
          .version = UPDRAFT_VERSION,
      });
  cloud->service_->set_ready(absl::Now());
  absl::StatusOr<std::unique_ptr<ServerHandle>> server =
      ServerHandle::Start({.listen = config.listen()}, {cloud->service_.get()});
  if (!server.ok()) return server.status();
  cloud->server_ = *std::move(server);
  return cloud;
}

CloudServer::~CloudServer() {
  // Handlers need the engine to end them, so the server goes before it.
  Shutdown(absl::ZeroDuration());
}

void CloudServer::Shutdown(absl::Duration grace) {
  if (server_ != nullptr) server_->Shutdown(grace);
  if (engine_ != nullptr) engine_->Shutdown(absl::ZeroDuration());
}

}  // namespace updraft
