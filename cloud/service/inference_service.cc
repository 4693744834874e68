#include "cloud/service/inference_service.h"

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/time/clock.h"
#include "common/rpc/channel.h"
#include "common/rpc/process.h"
#include "common/rpc/raw_message.h"
#include "common/serving/request_check.h"

namespace updraft {
InferenceService::InferenceService(const ServedModel* model, engine::Engine* engine,
                                   const InferenceServiceOptions& options)
    : model_(model), engine_(engine), options_(options), process_start_(ProcessStartTime()), ready_(absl::Now()) {}

grpc::ServerWriteReactor<grpc::ByteBuffer>* InferenceService::Generate(grpc::CallbackServerContext* context,
                                                                       const grpc::ByteBuffer* bytes) {
  v1::GenerateRequest request;
  const absl::Status parsed = ParseMessage(*bytes, &request);
  absl::StatusOr<engine::Request> built =
      parsed.ok() ? ToEngineRequest(*model_, request, options_.limits) : absl::StatusOr<engine::Request>(parsed);
  // An id that was refused is not repeated in the log.
  const bool has_id = built.ok() && !request.request_id().empty();
  const auto reactor =
      GenerateReactor::Create(context, engine_, has_id ? request.request_id() : NewRequestId(), options_.reactor);
  if (built.ok()) {
    built->deadline = SteadyDeadlineOf(*context);
    reactor->Submit(*std::move(built));
  } else {
    reactor->Refuse(built.status());
  }
  return reactor.get();  // it keeps itself alive until OnDone
}

grpc::ServerUnaryReactor* InferenceService::GetStatus(grpc::CallbackServerContext* context, const v1::GetStatusRequest*,
                                                      v1::GetStatusResponse* response) {
  response->set_tier(options_.reactor.tier);
  response->set_version(options_.version);
  *response->mutable_model() = model_->info();
  *response->mutable_load() = LoadToProto(engine_->load());
  response->set_uptime_s(absl::ToDoubleSeconds(absl::Now() - process_start_));
  response->set_resident_bytes(ResidentBytes());
  response->set_ready_after_ms(absl::ToDoubleMilliseconds(ready_ - process_start_));
  auto* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace updraft
