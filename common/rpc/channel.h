// Channels to another tier.
#pragma once

#include <grpc/support/time.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/server_context.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/clock/steady.h"

namespace updraft {

struct ChannelOptions {
  absl::Duration keepalive_interval = absl::Seconds(20);  // a silent peer is pinged this often
  absl::Duration keepalive_timeout = absl::Seconds(5);    // and given up after this long without an answer
  absl::Duration max_reconnect_backoff = absl::Seconds(2);
  int max_message_bytes = 16 << 20;  // largest reply that is accepted
  // HOST:PORT of an HTTP proxy (CONNECT) that the connection goes through. Empty: none, whatever the environment says,
  // which gRPC by itself would follow even to loopback. kProxyOfEnvironment: the one of grpc_proxy, https_proxy or
  // http_proxy, the first that is set. no_grpc_proxy or no_proxy name hosts that are reached without one, in both
  // cases.
  std::string proxy = {};
};
inline constexpr char kProxyOfEnvironment[] = "environment";

// What ChannelOptions::proxy may be. InvalidArgument names `what`.
absl::Status CheckProxy(const std::string& proxy, const std::string& what);

// A channel that connects on first use. `address` is HOST:PORT, or a target that gRPC resolves: dns:///NAME:PORT,
// ipv4://, ipv6://, unix://, unix-abstract:// and xds://. `what` names the flag or field in errors; a proxy that cannot
// be is an error, too.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const std::string& address, const std::string& what,
                                                           const ChannelOptions& options = {});

// `timeout` from now in gRPC's monotonic clock, which a stepped wall clock does not move. InfiniteDuration: never.
gpr_timespec GrpcDeadlineAfter(absl::Duration timeout);

// Every call has a deadline: sets `timeout` from now.
void SetTimeout(grpc::ClientContext& context, absl::Duration timeout);

// A key that can be sent: printable ASCII characters without spaces. InvalidArgument names `field`.
absl::Status CheckKey(const std::string& key, const std::string& field);

// The caller's key, for a server that asks for one (authorization: Bearer KEY); empty: none. REQUIRES: CheckKey.
void SendKey(grpc::ClientContext& context, const std::string& key);

// The answer's deadline as the call's; none for InfiniteFuture. gRPC sends the time that is left.
void SetDeadline(grpc::ClientContext& context, SteadyTime deadline);

// The deadline that the caller of a served call set, from the time that was left when the call came; InfiniteFuture
// when it set none.
SteadyTime SteadyDeadlineOf(const grpc::CallbackServerContext& context);

}  // namespace updraft
