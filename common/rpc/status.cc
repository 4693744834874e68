#include "common/rpc/status.h"

#include <cstdint>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/status/retry_delay.h"
#include "common/status/this_request.h"

namespace updraft {

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

grpc::Status ToGrpcStatus(const absl::Status& status, grpc::ServerContextBase& context) {
  if (const auto delay = RetryDelayOf(status); delay.has_value()) {
    context.AddTrailingMetadata(kRetryDelayTrailer, absl::StrCat(absl::ToInt64Milliseconds(*delay)));
  }
  if (IsOfThisRequestAlone(status)) context.AddTrailingMetadata(kThisRequestTrailer, "1");
  return ToGrpcStatus(status);
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  // A peer may send any integer; what is not a canonical code is reported as Unknown rather than trusted.
  int code = static_cast<int>(status.error_code());
  if (code < 1 || code > static_cast<int>(absl::StatusCode::kUnauthenticated)) {
    code = static_cast<int>(absl::StatusCode::kUnknown);
  }
  return absl::Status(static_cast<absl::StatusCode>(code), status.error_message());
}

absl::Status FromGrpcStatus(const grpc::Status& status, const grpc::ClientContext& context) {
  absl::Status converted = FromGrpcStatus(status);
  if (converted.ok()) return converted;
  const auto& trailers = context.GetServerTrailingMetadata();
  const auto it = trailers.find(kRetryDelayTrailer);
  int64_t ms = 0;
  if (it != trailers.end() && absl::SimpleAtoi(std::string(it->second.data(), it->second.size()), &ms) && ms > 0) {
    converted = WithRetryDelay(std::move(converted), absl::Milliseconds(ms));
  }
  if (trailers.find(kThisRequestTrailer) != trailers.end()) converted = OfThisRequestAlone(std::move(converted));
  return converted;
}

}  // namespace updraft
