// A whole cloud in one object: model, engine, what fronts see of them, fronts. main() and the tests start it from the
// same configuration.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cloud/engine/engine.h"
#include "cloud/service/cloud_backend.h"
#include "common/serving/fronts.h"
#include "common/serving/served_model.h"
#include "common/telemetry/metrics.h"
#include "updraft/v1/config.pb.h"

namespace updraft {

class CloudServer {
 public:
  // Loads the model and serves. `config` has passed ValidateConfig. Errors name the field or the file and say what to
  // do.
  static absl::StatusOr<std::unique_ptr<CloudServer>> Start(const v1::CloudConfig& config);
  ~CloudServer();

  int port() const { return fronts_->grpc_port(); }
  int http_port() const { return fronts_->http_port(); }  // 0: none
  const std::string& address() const { return fronts_->grpc_address(); }
  std::string ports() const { return fronts_->ports(); }  // for the port file
  const v1::ModelInfo& model_info() const { return model_->info(); }
  engine::Stats stats() const { return engine_->stats(); }
  engine::LoadReport load() const { return engine_->load(); }
  CloudBackend& backend() { return *backend_; }
  Metrics& metrics() { return *metrics_; }

  // Health says NOT_SERVING (503 over HTTP), new requests are refused, answers in progress may take `grace` to finish,
  // the rest are cancelled. Callable again.
  void Shutdown(absl::Duration grace);

 private:
  CloudServer() = default;
  // In this order: what is declared later uses what is declared before and goes first.
  std::unique_ptr<ServedModel> model_;
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<engine::Engine> engine_;
  std::unique_ptr<CloudBackend> backend_;
  std::unique_ptr<Fronts> fronts_;
};

}  // namespace updraft
