#include "common/serving/fronts.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/rpc/address.h"
#include "common/serving/http_front.h"

namespace updraft {
namespace {

constexpr int kOtherCalls = 256;  // status, health, and refusals on their way

absl::StatusOr<HttpAccess> AccessOf(const FrontOptions& options) {
  HttpAccessOptions access = options.http_access;
  auto listen = ParseHostPort(options.http_listen, "http_listen", PortZero::kAllowed);
  if (!listen.ok()) return listen.status();
  if (listen->host.find(':') == std::string::npos) access.hosts.push_back(listen->host);
  return HttpAccess::Make(access);
}

absl::StatusOr<std::shared_ptr<const ApiKeys>> KeysOf(const FrontOptions& options) {
  if (options.api_keys.empty()) return std::shared_ptr<const ApiKeys>();
  return ApiKeys::Load(options.api_keys);
}

}  // namespace

absl::Status Fronts::Check(const FrontOptions& options) {
  if (auto grpc = ParseHostPort(options.listen, "listen", PortZero::kAllowed); !grpc.ok()) return grpc.status();
  if (auto keys = KeysOf(options); !keys.ok()) return keys.status();
  if (options.http_listen.empty()) return absl::OkStatus();
  return AccessOf(options).status();
}

absl::StatusOr<std::unique_ptr<Fronts>> Fronts::Start(Backend* backend, Metrics* metrics, FrontOptions options) {
  options.service.metrics = metrics;
  auto keys = KeysOf(options);
  if (!keys.ok()) return keys.status();
  options.service.keys = *keys;
  std::unique_ptr<Fronts> fronts(new Fronts(backend, options));
  const StreamLimits& streams = options.service.stream;
  auto grpc = ServerHandle::Start({.listen = options.listen,
                                   .max_grpc_bytes = options.max_grpc_bytes,
                                   // One client may have all answers, and ask for the status beside them.
                                   .max_calls_per_connection = streams.max_streams + kOtherCalls},
                                  {&fronts->service_});
  if (!grpc.ok()) return grpc.status();
  fronts->grpc_ = *std::move(grpc);
  fronts->health_ =
      std::make_unique<HealthWatch>(backend, [server = fronts->grpc_.get()] { server->SetServing(false); });
  if (options.http_listen.empty()) return fronts;
  http::ServerOptions http_options;
  http_options.listen = options.http_listen;
  http_options.max_body_bytes = options.max_http_body_bytes;
  http_options.silence = options.http_keep_alive;
  http_options.max_connections = options.max_http_connections;
  http_options.max_buffered_bytes = streams.max_buffered_bytes;
  http_options.write_timeout = streams.write_timeout;
  http_options.on_turn = [metrics](absl::Duration cpu_time) { metrics->OnHttpTurn(absl::ToDoubleSeconds(cpu_time)); };
  http_options.max_total_body_bytes = std::max(http_options.max_total_body_bytes, http_options.max_body_bytes);
  auto access = AccessOf(options);
  if (!access.ok()) return access.status();
  auto http = http::Server::Start(http_options, MakeHttpFront(&fronts->once_, metrics, *std::move(access), *keys));
  if (!http.ok()) return http.status();
  fronts->http_ = *std::move(http);
  return fronts;
}

Fronts::~Fronts() { Stop(absl::ZeroDuration()); }

std::string Fronts::ports() const {
  return http_ == nullptr ? absl::StrCat(grpc_port()) : absl::StrCat(grpc_port(), " ", http_port());
}

void Fronts::Stop(absl::Duration flush_time) {
  health_.reset();
  std::thread http_flush;
  if (http_ != nullptr) http_flush = std::thread([this, flush_time] { http_->Stop(flush_time); });
  if (grpc_ != nullptr) grpc_->Shutdown(flush_time);
  if (http_flush.joinable()) http_flush.join();
}

}  // namespace updraft
