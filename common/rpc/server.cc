#include "common/rpc/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <mutex>
#include <span>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/files/atomic_file.h"
#include "common/rpc/address.h"
#include "common/rpc/channel.h"

namespace updraft {
namespace {

// gRPC says only that binding failed, and logs a paragraph; asking the system first gives the reason in words.
absl::Status CheckCanListen(const HostPort& address, const std::string& field) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int rc = getaddrinfo(address.host.c_str(), absl::StrCat(address.port).c_str(), &hints, &found);
  if (rc != 0) {
    return absl::UnavailableError(
        absl::StrFormat("%s: cannot resolve host '%s' (%s); use an address of this machine, or 0.0.0.0", field,
                        address.host, gai_strerror(rc)));
  }
  int error = 0;
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int one = 1;
  if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (fd < 0 || bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, 1) != 0) error = errno;
  if (fd >= 0) close(fd);
  freeaddrinfo(found);
  if (error == 0) return absl::OkStatus();
  const std::string at = address.ToString();
  if (error == EADDRINUSE) {
    return absl::AlreadyExistsError(absl::StrFormat(
        "%s: %s is in use by another process; stop it, choose another port, or use port 0 for a free one", field, at));
  }
  if (error == EACCES) {
    return absl::PermissionDeniedError(absl::StrFormat(
        "%s: not allowed to listen on %s; ports below 1024 need privileges, choose a higher one", field, at));
  }
  return absl::UnavailableError(absl::StrFormat(
      "%s: cannot listen on %s (%s); use an address of this machine, or 0.0.0.0", field, at, std::strerror(error)));
}

void EnablePluginsOnce() {
  static std::once_flag once;
  std::call_once(once, [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<ServerHandle>> ServerHandle::Start(const ServerOptions& options,
                                                                  const std::vector<grpc::Service*>& services) {
  const absl::StatusOr<HostPort> address = ParseHostPort(options.listen, options.field, PortZero::kAllowed);
  if (!address.ok()) return address.status();
  if (absl::Status status = CheckCanListen(*address, options.field); !status.ok()) return status;
  EnablePluginsOnce();
  grpc::ServerBuilder builder;
  // With port sharing on, a second daemon would silently take half of the first one's calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_calls_per_connection);
  builder.SetMaxReceiveMessageSize(options.max_request_bytes);
  grpc::ResourceQuota quota(options.field);
  quota.Resize(options.max_grpc_bytes);
  builder.SetResourceQuota(quota);
  int port = 0;
  builder.AddListeningPort(address->ToString(), grpc::InsecureServerCredentials(), &port);
  for (grpc::Service* service : services) builder.RegisterService(service);
  std::unique_ptr<ServerHandle> handle(new ServerHandle);
  handle->server_ = builder.BuildAndStart();
  if (handle->server_ == nullptr || port == 0) {
    return absl::UnavailableError(
        absl::StrFormat("%s: gRPC cannot listen on %s; see the log", options.field, address->ToString()));
  }
  handle->port_ = port;
  handle->address_ = HostPort{address->host, port}.ToString();
  return handle;
}

ServerHandle::~ServerHandle() { Shutdown(absl::ZeroDuration()); }

void ServerHandle::SetServing(bool serving) {
  if (auto* health = server_->GetHealthCheckService(); health != nullptr) health->SetServingStatus(serving);
}

void ServerHandle::Shutdown(absl::Duration grace) {
  if (stopped_ || server_ == nullptr) return;
  stopped_ = true;
  SetServing(false);
  server_->Shutdown(GrpcDeadlineAfter(grace));
  server_->Wait();
}

absl::Status WritePortFile(const std::string& path, const std::string& text) {
  const absl::Status status = [&]() -> absl::Status {
    absl::StatusOr<AtomicFile> file = AtomicFile::Create(path);
    if (!file.ok()) return file.status();
    const std::string line = absl::StrCat(text, "\n");
    if (absl::Status appended = file->Append(std::as_bytes(std::span(line))); !appended.ok()) return appended;
    return file->Commit();
  }();
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrFormat("port_file: cannot write '%s' (%s); give a path in a writable folder", path,
                                      std::string(status.message())));
}

}  // namespace updraft
