// The agent's gRPC face: the same Inference service that it calls upstream, so that tiers chain.
#pragma once

#include "absl/time/time.h"
#include "edge/agent/agent.h"
#include "updraft/v1/inference.grpc.pb.h"

namespace updraft {

class EdgeService final : public v1::Inference::CallbackService {
 public:
  // The agent must outlive the server that this is registered with. ready: when the daemon began to serve.
  EdgeService(Agent* agent, absl::Time process_start, std::string version);

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext* context,
                                                           const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context, const v1::GetStatusRequest* request,
                                      v1::GetStatusResponse* response) override;

  void set_ready(absl::Time ready) { ready_ = ready; }  // before the first call

 private:
  Agent* const agent_;
  const absl::Time process_start_;
  const std::string version_;
  absl::Time ready_ = absl::Now();
};

}  // namespace updraft
