// The one place where absl::Status and grpc::Status meet. The canonical codes are the same on both sides.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace updraft {

// Trailer that carries the retry delay of a RESOURCE_EXHAUSTED or UNAVAILABLE reply, in milliseconds.
inline constexpr char kRetryDelayTrailer[] = "updraft-retry-delay-ms";

grpc::Status ToGrpcStatus(const absl::Status& status);
// Also adds the retry delay of `status`, if any, to the call's trailers. Call before Finish.
grpc::Status ToGrpcStatus(const absl::Status& status, grpc::ServerContextBase& context);

absl::Status FromGrpcStatus(const grpc::Status& status);
// Also reads the retry delay from the trailers of a finished call.
absl::Status FromGrpcStatus(const grpc::Status& status, const grpc::ClientContext& context);

}  // namespace updraft
