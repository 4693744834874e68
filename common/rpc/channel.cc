#include "common/rpc/channel.h"

#include <grpc/support/time.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <iterator>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/rpc/address.h"

namespace updraft {
namespace {

// gRPC adds or takes up to a fifth: the first failure to connect is repeated within 200 ms.
constexpr int kFirstReconnect_ms = 160;
// What gRPC calls the least time between attempts is how long one of them may take: two round trips, of which a full
// mobile link has some of more than a second. One that fails at once is repeated by the back-off all the same.
constexpr int kConnect_ms = 5000;

constexpr std::string_view kSchemes[] = {"dns", "ipv4", "ipv6", "unix", "unix-abstract", "xds"};

// gRPC would tell of a bad target only by calls that never connect. One with a scheme is gRPC's to resolve, where it
// knows the scheme: of any other (http://...) it makes a name.
absl::Status CheckTarget(const std::string& address, const std::string& what) {
  const size_t mark = address.find("://");
  if (mark == std::string::npos) return ParseHostPort(address, what, PortZero::kRefused).status();
  const std::string scheme = address.substr(0, mark);
  if (std::find(std::begin(kSchemes), std::end(kSchemes), scheme) == std::end(kSchemes)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: expected HOST:PORT such as 127.0.0.1:7070, found '%s'; leave '%s://' and any path out",
                        what, address.substr(0, 200), scheme.substr(0, 40)));
  }
  // Without a port gRPC would take that of HTTPS.
  if (scheme != "dns") return absl::OkStatus();
  return ParseHostPort(address.substr(address.rfind('/') + 1), what, PortZero::kRefused).status();
}

}  // namespace

absl::Status CheckProxy(const std::string& proxy, const std::string& what) {
  if (proxy.empty() || proxy == kProxyOfEnvironment) return absl::OkStatus();
  if (ParseHostPort(proxy, what, PortZero::kRefused).ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: expected HOST:PORT of an HTTP proxy, without a scheme, or '%s' for the one that http_proxy "
                      "and its like name, or nothing for none; found '%s'",
                      what, kProxyOfEnvironment, proxy.substr(0, 200)));
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const std::string& address, const std::string& what,
                                                           const ChannelOptions& options) {
  if (absl::Status status = CheckTarget(address, what); !status.ok()) return status;
  if (absl::Status status = CheckProxy(options.proxy, "proxy"); !status.ok()) return status;
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, static_cast<int>(absl::ToInt64Milliseconds(options.keepalive_interval)));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                   static_cast<int>(absl::ToInt64Milliseconds(options.keepalive_timeout)));
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // 0: a slow answer may be pinged for as long as it takes
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kFirstReconnect_ms);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnect_ms);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS,
                   static_cast<int>(absl::ToInt64Milliseconds(options.max_reconnect_backoff)));
  arguments.SetMaxReceiveMessageSize(options.max_message_bytes);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, options.proxy.empty() ? 0 : 1);
  if (!options.proxy.empty() && options.proxy != kProxyOfEnvironment) {
    arguments.SetString(GRPC_ARG_HTTP_PROXY, "http://" + options.proxy);
  }
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

absl::Status CheckKey(const std::string& key, const std::string& field) {
  const auto is_graph = [](unsigned char c) { return absl::ascii_isgraph(c); };
  if (std::all_of(key.begin(), key.end(), is_graph)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": expected a key of printable ASCII characters without spaces, found others"));
}

void SendKey(grpc::ClientContext& context, const std::string& key) {
  if (!key.empty()) context.AddMetadata("authorization", "Bearer " + key);
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
