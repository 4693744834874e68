// The Inference service of a cloud: validates, converts, submits. Everything else is the engine's or the reactor's.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "cloud/engine/engine.h"
#include "cloud/service/engine_request.h"
#include "cloud/service/generate_reactor.h"
#include "updraft/v1/inference.grpc.pb.h"

namespace updraft {

struct InferenceServiceOptions {
  RequestLimits limits;
  GenerateReactorOptions reactor;
  std::string version;
};

// Generate is raw (bytes in, bytes out), so that a malformed request gets a status that says what is wrong with it.
class InferenceService final : public v1::Inference::WithRawCallbackMethod_Generate<
                                   v1::Inference::WithCallbackMethod_GetStatus<v1::Inference::Service>> {
 public:
  // Model and engine must outlive the service.
  InferenceService(const ServedModel* model, engine::Engine* engine, const InferenceServiceOptions& options);

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Generate(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context, const v1::GetStatusRequest* request,
                                      v1::GetStatusResponse* response) override;

  // Call once, when the server accepts calls.
  void set_ready(absl::Time ready) { ready_ = ready; }

 private:
  const ServedModel* const model_;
  engine::Engine* const engine_;
  const InferenceServiceOptions options_;
  const absl::Time process_start_;
  absl::Time ready_;
};

}  // namespace updraft
