// The one place where absl::Status and grpc::Status meet. The canonical codes are the same on both sides.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace updraft {

// Trailer that carries the retry delay of a RESOURCE_EXHAUSTED or UNAVAILABLE reply, in milliseconds.
inline constexpr char kRetryDelayTrailer[] = "updraft-retry-delay-ms";
// Trailer of an error that says nothing of other requests (common/status/this_request.h).
inline constexpr char kThisRequestTrailer[] = "updraft-this-request-alone";

grpc::Status ToGrpcStatus(const absl::Status& status);
// Also adds what `status` carries beside its code, if anything, to the call's trailers. Call before Finish.
grpc::Status ToGrpcStatus(const absl::Status& status, grpc::ServerContextBase& context);

absl::Status FromGrpcStatus(const grpc::Status& status);
// Also reads from the trailers of a finished call what the status carried.
absl::Status FromGrpcStatus(const grpc::Status& status, const grpc::ClientContext& context);

}  // namespace updraft
