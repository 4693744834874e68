#include "common/serving/inference_service.h"

#include "common/rpc/process.h"
#include "common/rpc/status.h"

namespace updraft {

grpc::ServerWriteReactor<grpc::ByteBuffer>* InferenceService::Generate(grpc::CallbackServerContext* context,
                                                                       const grpc::ByteBuffer* bytes) {
  return GenerateReactor::Start(&streams_, context, *bytes);
}

grpc::ServerUnaryReactor* InferenceService::GetStatus(grpc::CallbackServerContext* context, const v1::GetStatusRequest*,
                                                      v1::GetStatusResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  if (const auto tenant = TenantOfCall(options_.keys.get(), *context); !tenant.ok()) {
    reactor->Finish(ToGrpcStatus(tenant.status()));
    return reactor;
  }
  *response = backend_->Status();
  response->set_version(options_.version);
  response->set_uptime_s(absl::ToDoubleSeconds(SteadyNow() - options_.process_start));
  response->set_resident_bytes(ResidentBytes());
  response->set_ready_after_ms(absl::ToDoubleMilliseconds(ready_ - options_.process_start));
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace updraft
