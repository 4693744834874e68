// The Inference service over a backend: what every tier serves, and calls upstream, so that tiers chain.
#pragma once

#include <memory>
#include <string>

#include "common/clock/steady.h"
#include "common/serving/api_keys.h"
#include "common/serving/backend.h"
#include "common/serving/stream_reactor.h"
#include "updraft/v1/inference.grpc.pb.h"

namespace updraft {

struct InferenceServiceOptions {
  std::string version;
  SteadyTime process_start;
  StreamLimits stream = {};
  Metrics* metrics = nullptr;                     // counts what is refused before the backend sees it; null: nothing
  std::shared_ptr<const ApiKeys> keys = nullptr;  // of who may ask; null: anybody
};

// Generate takes and gives bytes: gRPC itself would answer a message that cannot be parsed (text that is not UTF-8,
// say) with an error that names nothing.
class InferenceService final : public v1::Inference::WithRawCallbackMethod_Generate<
                                   v1::Inference::WithCallbackMethod_GetStatus<v1::Inference::Service>> {
 public:
  // The backend (and the metrics) must outlive the server that this is registered with. To be made once all is there to
  // serve with: its own making counts as the moment in which the daemon was ready.
  InferenceService(Backend* backend, InferenceServiceOptions options)
      : backend_(backend),
        options_(std::move(options)),
        ready_(SteadyNow()),
        streams_(backend, options_.stream, options_.metrics, options_.keys) {}

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Generate(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* bytes) override;
  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context, const v1::GetStatusRequest* request,
                                      v1::GetStatusResponse* response) override;

 private:
  Backend* const backend_;
  const InferenceServiceOptions options_;
  const SteadyTime ready_;
  StreamHost streams_;
};

}  // namespace updraft
