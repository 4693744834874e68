#include "cloud/service/cloud_server.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cloud/engine/model_executor.h"
#include "common/files/file_error.h"
#include "common/rpc/address.h"

namespace updraft {
namespace {

absl::StatusOr<std::unique_ptr<engine::Engine>> MakeEngine(const v1::CloudConfig& config, const Model& model) {
  KvPoolOptions pool_options{
      .n_blocks = (config.kv_tokens() + config.block_tokens() - 1) / config.block_tokens(),
      .block_tokens = config.block_tokens(),
  };
  kernels::ParseKvType(config.kv_type().c_str(), pool_options.type);  // the configuration allows no other names
  absl::StatusOr<std::unique_ptr<KvPool>> pool = KvPool::Create(model.ops(), model.config(), pool_options);
  if (!pool.ok()) {
    return absl::Status(pool.status().code(), absl::StrCat("kv_tokens: ", std::string(pool.status().message())));
  }
  const engine::EngineOptions options{
      .scheduler = {.max_running = config.max_running(), .max_step_tokens = config.max_step_tokens()},
      .max_queued = config.max_queued(),
  };
  return engine::Engine::Create(options, std::make_unique<engine::ModelExecutor>(&model), *std::move(pool));
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
  absl::StatusOr<std::unique_ptr<engine::Engine>> engine = MakeEngine(config, cloud->model_->model());
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
