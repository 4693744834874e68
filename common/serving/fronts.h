// The faces of a daemon, from start to the last byte: gRPC, and OpenAI's HTTP where it is wanted.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/http/server.h"
#include "common/rpc/server.h"
#include "common/serving/backend.h"
#include "common/serving/health_watch.h"
#include "common/serving/http_access.h"
#include "common/serving/inference_service.h"
#include "common/serving/once_backend.h"
#include "common/telemetry/metrics.h"

namespace updraft {

struct FrontOptions {
  std::string listen;       // gRPC HOST:PORT; port 0 picks a free one
  std::string http_listen;  // the same for HTTP; empty: no HTTP
  size_t max_http_body_bytes = 1 << 20;
  size_t max_grpc_bytes = 256 << 20;  // ServerOptions::max_grpc_bytes
  int max_http_connections = 256;
  absl::Duration http_keep_alive = absl::Seconds(15);  // a silent stream of events gets a comment so often; zero: none
  HttpAccessOptions http_access = {};                  // beside the name in http_listen
  std::string api_keys = {};                           // ApiKeys::Load; empty: anybody may ask
  OnceOptions once = {};
  // With the bounds of streams; over HTTP, too, where they apply (bytes that wait, the time to take some).
  InferenceServiceOptions service;
};

class Fronts {
 public:
  // What is wrong with addresses, hosts, origins and keys as such, to be told before a model is loaded. InvalidArgument
  // names the field.
  static absl::Status Check(const FrontOptions& options);

  // Serves at once; health over gRPC and HTTP follows HealthOf(*backend). Backend and metrics must outlive the fronts.
  // Errors as of ServerHandle::Start and http::Server::Start.
  static absl::StatusOr<std::unique_ptr<Fronts>> Start(Backend* backend, Metrics* metrics, FrontOptions options);
  // Stops without waiting if still serving.
  ~Fronts();
  Fronts(const Fronts&) = delete;
  Fronts& operator=(const Fronts&) = delete;

  const std::string& grpc_address() const { return grpc_->address(); }
  int grpc_port() const { return grpc_->port(); }
  int http_port() const { return http_ == nullptr ? 0 : http_->port(); }  // 0: none
  // What the port file holds: "GRPC_PORT", or "GRPC_PORT HTTP_PORT".
  std::string ports() const;

  // ServerHandle::Shutdown: health says NOT_SERVING, new calls are refused, those in progress have `grace`.
  void DrainGrpc(absl::Duration grace) { grpc_->Shutdown(grace); }
  // Both at once, when every answer has ended: only the last bytes need time. gRPC would also wait for idle
  // connections to be closed by clients that may never look. Callable again.
  void Stop(absl::Duration flush_time);

 private:
  Fronts(Backend* backend, const FrontOptions& options)
      : once_(backend, options.service.metrics, options.once), service_(&once_, options.service) {}

  OnceBackend once_;
  InferenceService service_;
  std::unique_ptr<ServerHandle> grpc_;
  std::unique_ptr<http::Server> http_;
  std::unique_ptr<HealthWatch> health_;
};

// How long Stop may take for bytes that are on their way.
inline constexpr absl::Duration kFlushTime = absl::Milliseconds(500);

}  // namespace updraft
