#include "common/rpc/channel.h"

#include <grpc/support/time.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include "common/rpc/address.h"

namespace updraft {

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const std::string& address, const std::string& what,
                                                           const ChannelOptions& options) {
  // A target with a scheme is gRPC's to resolve; a plain address is checked here, because gRPC reports a bad one only
  // as a call that never connects.
  if (address.find("://") == std::string::npos) {
    const absl::StatusOr<HostPort> parsed = ParseHostPort(address, what, PortZero::kRefused);
    if (!parsed.ok()) return parsed.status();
  }
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, static_cast<int>(absl::ToInt64Milliseconds(options.keepalive_interval)));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                   static_cast<int>(absl::ToInt64Milliseconds(options.keepalive_timeout)));
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // 0: a slow answer may be pinged for as long as it takes
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS,
                   static_cast<int>(absl::ToInt64Milliseconds(options.max_reconnect_backoff)));
  arguments.SetMaxReceiveMessageSize(options.max_message_bytes);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

gpr_timespec GrpcDeadlineAfter(absl::Duration timeout) {
  if (timeout == absl::InfiniteDuration()) return gpr_inf_future(GPR_CLOCK_MONOTONIC);
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                      gpr_time_from_nanos(absl::ToInt64Nanoseconds(timeout), GPR_TIMESPAN));
}

void SetTimeout(grpc::ClientContext& context, absl::Duration timeout) {
  context.set_deadline(GrpcDeadlineAfter(timeout));
}

void SetDeadline(grpc::ClientContext& context, SteadyTime deadline) {
  if (deadline != SteadyTime::InfiniteFuture()) SetTimeout(context, deadline - SteadyNow());
}

SteadyTime SteadyDeadlineOf(const grpc::CallbackServerContext& context) {
  const gpr_timespec deadline = context.raw_deadline();
  // gRPC says "no deadline" with an infinite or the largest time; a century ahead is the same thing for a call.
  const gpr_timespec left = gpr_time_sub(deadline, gpr_now(deadline.clock_type));
  constexpr int64_t kCentury_s = int64_t{100} * 365 * 24 * 3600;
  if (left.tv_sec > kCentury_s) return SteadyTime::InfiniteFuture();
  return SteadyNow() + absl::Seconds(left.tv_sec) + absl::Nanoseconds(left.tv_nsec);
}

}  // namespace updraft
