// A gRPC server with what every daemon of ours offers: health (grpc.health.v1), reflection, bounded messages, a drain.
#pragma once

#include <grpcpp/impl/service_type.h>
#include <grpcpp/server.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace updraft {

struct ServerOptions {
  std::string listen;               // HOST:PORT; port 0 picks a free one
  std::string field = "listen";     // names the flag in errors
  int max_request_bytes = 4 << 20;  // larger requests are refused by gRPC with RESOURCE_EXHAUSTED
  // For gRPC's own: connections, calls, what they read. Near it gRPC reads less and closes connections.
  size_t max_grpc_bytes = 256 << 20;
  int max_calls_per_connection = 2048;  // what a client begins beside these waits on its side
};

class ServerHandle {
 public:
  // Binds and serves at once. The services must outlive the handle. InvalidArgument for a wrong address; AlreadyExists
  // when another process has the port; Unavailable when the host is none of this machine's.
  static absl::StatusOr<std::unique_ptr<ServerHandle>> Start(const ServerOptions& options,
                                                             const std::vector<grpc::Service*>& services);
  // Shuts down without grace if still serving.
  ~ServerHandle();
  ServerHandle(const ServerHandle&) = delete;
  ServerHandle& operator=(const ServerHandle&) = delete;

  int port() const { return port_; }
  const std::string& address() const { return address_; }  // HOST:PORT with the port in use

  // What health watchers are told (grpc.health.v1): SERVING from the start. Any thread; no effect after Shutdown.
  void SetServing(bool serving);

  // Tells health watchers NOT_SERVING, refuses new calls, lets calls in progress end for `grace`, then cancels them;
  // returns when every handler has ended. Callable again. Not from a handler.
  void Shutdown(absl::Duration grace);

 private:
  ServerHandle() = default;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  int port_ = 0;
  bool stopped_ = false;
};

// Writes `text` and a newline to `path` so that a reader sees all of it or nothing. Only a name that is free or a
// regular file is written; a link is followed. InvalidArgument for a device, a pipe, a folder, a link that leads
// nowhere.
absl::Status WritePortFile(const std::string& path, const std::string& text);

}  // namespace updraft
