// The agent's gRPC face: the same Inference service that it calls upstream, so that tiers chain.
#pragma once

#include "absl/time/time.h"
#include "edge/agent/agent.h"
#include "updraft/v1/inference.grpc.pb.h"

namespace updraft {

// Generate takes and gives bytes: gRPC itself would answer a message that cannot be parsed (text that is not UTF-8,
// say) with an INTERNAL error that names nothing.
class EdgeService final : public v1::Inference::WithRawCallbackMethod_Generate<
                              v1::Inference::WithCallbackMethod_GetStatus<v1::Inference::Service>> {
 public:
  // The agent must outlive the server that this is registered with. To be made once all is there to serve with: its own
  // making counts as the moment in which the daemon was ready.
  EdgeService(Agent* agent, absl::Time process_start, std::string version);

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Generate(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* bytes) override;
  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context, const v1::GetStatusRequest* request,
                                      v1::GetStatusResponse* response) override;

 private:
  Agent* const agent_;
  const absl::Time process_start_;
  const std::string version_;
  const absl::Time ready_ = absl::Now();
};

}  // namespace updraft
