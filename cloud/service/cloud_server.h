// A whole cloud in one object: model, engine, service, server. main() and the tests start it from the same
// configuration.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cloud/engine/engine.h"
#include "cloud/service/inference_service.h"
#include "common/rpc/server.h"
#include "updraft/v1/config.pb.h"

namespace updraft {

class CloudServer {
 public:
  // Loads the model and serves. `config` has passed ValidateConfig. Errors name the field or the file and say what to
  // do.
  static absl::StatusOr<std::unique_ptr<CloudServer>> Start(const v1::CloudConfig& config);
  ~CloudServer();

  int port() const { return server_->port(); }
  const std::string& address() const { return server_->address(); }
  const v1::ModelInfo& model_info() const { return model_->info(); }
  engine::Stats stats() const { return engine_->stats(); }
  engine::LoadReport load() const { return engine_->load(); }

  // Health says NOT_SERVING, new calls are refused, answers in progress may take `grace` to finish, the rest are
  // cancelled.
  void Shutdown(absl::Duration grace);

 private:
  CloudServer() = default;
  // In this order: what is declared later uses what is declared before and goes first.
  std::unique_ptr<ServedModel> model_;
  std::unique_ptr<engine::Engine> engine_;
  std::unique_ptr<InferenceService> service_;
  std::unique_ptr<ServerHandle> server_;
};

}  // namespace updraft
