#include "common/http/server.h"

#include <time.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/steady_timer.hpp>
#include <thread>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/clock/steady.h"
#include "common/http/connection.h"

namespace updraft::http {

namespace asio = boost::asio;
using tcp = asio::ip::tcp;
using internal::Connection;
using internal::ServerState;

std::string_view Request::header(const std::string& name) const {
  auto it = headers.find(name);
  return it == headers.end() ? std::string_view() : std::string_view(it->second);
}

absl::Status ServerOptions::Validate() const {
  if (n_threads < 1 || n_threads > 64) {
    return absl::InvalidArgumentError(absl::StrFormat("http: n_threads: expected 1..64, found %d", n_threads));
  }
  if (max_connections < 1) {
    return absl::InvalidArgumentError(
        absl::StrFormat("http: max_connections: expected at least 1, found %d", max_connections));
  }
  if (max_header_bytes < 1024 || max_header_bytes > (1 << 20)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("http: max_header_bytes: expected 1024..1048576, found %d", max_header_bytes));
  }
  if (max_total_body_bytes < max_body_bytes) {
    return absl::InvalidArgumentError(
        absl::StrFormat("http: max_total_body_bytes: expected at least max_body_bytes, which is %d, found %d",
                        max_body_bytes, max_total_body_bytes));
  }
  for (absl::Duration timeout : {read_timeout, write_timeout, idle_timeout}) {
    if (timeout <= absl::ZeroDuration() || timeout > absl::Hours(24)) {
      return absl::InvalidArgumentError("http: time-outs: expected more than 0 and at most 24 h");
    }
  }
  if (silence < absl::ZeroDuration() || silence > absl::Hours(24)) {
    return absl::InvalidArgumentError("http: silence: expected 0 (any) to 24 h");
  }
  return absl::OkStatus();
}

// ---- Router -------------------------------------------------------------------------------------------------------

void Router::Handle(const std::string& method, const std::string& path, Handler handler, RunsOn runs_on) {
  routes_[path][method] = {std::move(handler), runs_on};
}

void Router::HandleBelow(const std::string& method, const std::string& path, Handler handler) {
  routes_[path + "/"][method] = {std::move(handler)};
}

Router::Routes::const_iterator Router::Find(const std::string& path) const {
  const bool slash = path.size() > 1 && path.back() == '/';
  const auto exact = routes_.find(slash ? path.substr(0, path.size() - 1) : path);
  if (exact != routes_.end() && exact->first.back() != '/') return exact;
  // The longest that it is below.
  for (size_t at = path.size(); (at = path.rfind('/', at - 1)) != std::string::npos && at > 0;) {
    const auto below = routes_.find(path.substr(0, at + 1));
    if (below != routes_.end() && path.size() > at + 1) return below;
  }
  return routes_.end();
}

Response Router::Error(int status, const std::string& message, const Request& request) const {
  if (error_body_) return error_body_(status, message, request);
  return Response{status, "text/plain", message + "\n", {}};
}

void Router::Dispatch(std::shared_ptr<Exchange> exchange,
                      const std::function<void(std::function<void()>)>& on_lane) const {
  const Request& request = exchange->request();
  const auto path = Find(request.path);
  if (path == routes_.end()) {
    std::vector<std::string> known;
    for (const auto& [name, methods] : routes_) known.push_back(name);
    return exchange->Respond(Error(404, "no such path; this server answers " + absl::StrJoin(known, ", "), request));
  }
  auto method = path->second.find(request.method);
  if (method == path->second.end() && request.method == "HEAD") method = path->second.find("GET");
  if (method == path->second.end()) {
    std::vector<std::string> allowed;
    for (const auto& [name, route] : path->second) allowed.push_back(name);
    Response response = Error(405, path->first + " expects " + absl::StrJoin(allowed, " or "), request);
    response.headers.emplace_back("Allow", absl::StrJoin(allowed, ", "));
    return exchange->Respond(std::move(response));
  }
  const Route& route = method->second;
  if (route.runs_on == RunsOn::kLoop) return route.handler(std::move(exchange));
  on_lane([&handler = route.handler, exchange = std::move(exchange)]() mutable { handler(std::move(exchange)); });
}

// ---- Server -------------------------------------------------------------------------------------------------------

namespace {

absl::StatusOr<tcp::endpoint> ResolveListen(asio::io_context& io, const std::string& listen) {
  const size_t colon = listen.rfind(':');
  int port = -1;
  if (colon == std::string::npos || colon == 0 || !absl::SimpleAtoi(listen.substr(colon + 1), &port) || port < 0 ||
      port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrFormat("http: listen address: expected HOST:PORT with a port of 0..65535, found '%s'", listen));
  }
  std::string host = listen.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  boost::system::error_code error;
  tcp::resolver resolver(io);
  auto results = resolver.resolve(host, std::to_string(port), tcp::resolver::passive, error);
  if (error || results.empty()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("http: listen address '%s': the host cannot be resolved: %s", listen, error.message()));
  }
  return results.begin()->endpoint();
}

// What the calling thread has computed so far.
absl::Duration ThreadCpuTime() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return absl::DurationFromTimespec(time);
}

}  // namespace

class Server::Impl {
 public:
  Impl(ServerOptions options, Router router)
      : state_(std::make_shared<ServerState>(std::move(options), std::move(router))),
        acceptor_(asio::make_strand(state_->io)),
        retry_(acceptor_.get_executor()) {}

  absl::Status Listen() {
    const std::string& listen = state_->options.listen;
    auto endpoint = ResolveListen(state_->io, listen);
    if (!endpoint.ok()) return endpoint.status();
    boost::system::error_code error;
    acceptor_.open(endpoint->protocol(), error);
    if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_.bind(*endpoint, error);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (error == asio::error::address_in_use) {
      return absl::AlreadyExistsError(
          absl::StrFormat("http: cannot listen on %s: the port is in use; stop what holds it, or choose another (port "
                          "0 picks a free one)",
                          listen));
    }
    if (error) {
      return absl::InvalidArgumentError(absl::StrFormat("http: cannot listen on %s: %s", listen, error.message()));
    }
    port_ = acceptor_.local_endpoint(error).port();
    return absl::OkStatus();
  }

  void Run() {
    asio::post(acceptor_.get_executor(), [this] { Accept(); });
    state_->lanes.Start();
    for (int i = 0; i < state_->options.n_threads; ++i) threads_.emplace_back([this] { Loop(); });
  }

  int port() const { return port_; }

  int n_connections() const {
    MutexLock lock(state_->mu);
    return static_cast<int>(state_->connections.size());
  }

  void Stop(absl::Duration grace) {
    if (threads_.empty()) return;
    state_->draining = true;
    asio::post(acceptor_.get_executor(), [this] {
      boost::system::error_code ignored;
      acceptor_.close(ignored);
      retry_.cancel();
    });
    for (const auto& connection : Connections()) connection->CloseIfIdle();
    const SteadyTime deadline = SteadyNow() + grace;
    while (n_connections() > 0 && SteadyNow() < deadline) absl::SleepFor(absl::Milliseconds(5));
    // With every socket closed no operation is left, and run() returns by itself. A connection accepted in the last
    // moment is closed by the next round.
    work_.reset();
    std::thread closer([this] {
      while (!state_->io.stopped()) {
        for (const auto& connection : Connections()) connection->Close();
        absl::SleepFor(absl::Milliseconds(5));
      }
    });
    for (std::thread& thread : threads_) thread.join();
    closer.join();
    threads_.clear();
    state_->lanes.Stop();
    // What was posted while the last thread returned holds connections, and through them the io_context that holds it.
    state_->io.restart();
    state_->io.poll();
  }

 private:
  void Loop() {
    if (!state_->options.on_turn) {
      state_->io.run();
      return;
    }
    absl::Duration before = ThreadCpuTime();
    while (state_->io.run_one() > 0) {
      const absl::Duration after = ThreadCpuTime();
      state_->options.on_turn(after - before);
      before = after;
    }
  }

  std::vector<std::shared_ptr<Connection>> Connections() const {
    std::vector<std::shared_ptr<Connection>> all;
    MutexLock lock(state_->mu);
    for (const auto& [pointer, weak] : state_->connections) {
      if (auto connection = weak.lock()) all.push_back(std::move(connection));
    }
    return all;
  }

  void Accept() {
    if (!acceptor_.is_open()) return;
    acceptor_.async_accept(asio::make_strand(state_->io), [this](boost::system::error_code error, tcp::socket socket) {
      if (!acceptor_.is_open()) return;
      if (error) {  // out of file descriptors, or the client gave up: accept again a little later
        retry_.expires_after(std::chrono::milliseconds(50));
        return retry_.async_wait([this](boost::system::error_code) { Accept(); });
      }
      Admit(std::move(socket));
      Accept();
    });
  }

  void Admit(tcp::socket socket) {
    boost::system::error_code ignored;
    socket.set_option(tcp::no_delay(true), ignored);  // tokens are small and must not wait for one another
    auto connection = std::make_shared<Connection>(std::move(socket), state_);
    int n_open;
    {
      MutexLock lock(state_->mu);
      state_->connections[connection.get()] = connection;
      n_open = static_cast<int>(state_->connections.size());
    }
    if (n_open <= state_->options.max_connections || MakeRoom(connection.get())) return connection->Start();
    // Refusing politely costs a descriptor for a moment; under a flood the socket is simply dropped.
    if (n_open <= 2 * state_->options.max_connections) connection->Refuse();
  }

  // Closes the connection that has been longest without a whole request, if any: clients that hold connections open and
  // say nothing must not keep others out. False when every connection is being answered.
  bool MakeRoom(const Connection* newcomer) {
    std::shared_ptr<Connection> longest;
    for (const auto& connection : Connections()) {
      const int64_t since = connection->waiting_since();
      if (connection.get() == newcomer || since == 0) continue;
      if (longest == nullptr || since < longest->waiting_since()) longest = connection;
    }
    if (longest == nullptr) return false;
    longest->CloseIfWaiting();
    return true;
  }

  std::shared_ptr<ServerState> state_;
  tcp::acceptor acceptor_;
  asio::steady_timer retry_;
  asio::executor_work_guard<asio::io_context::executor_type> work_{state_->io.get_executor()};
  std::vector<std::thread> threads_;
  int port_ = 0;
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() { Stop(absl::ZeroDuration()); }

absl::StatusOr<std::unique_ptr<Server>> Server::Start(ServerOptions options, Router router) {
  if (absl::Status status = options.Validate(); !status.ok()) return status;
  auto impl = std::make_unique<Impl>(std::move(options), std::move(router));
  if (absl::Status status = impl->Listen(); !status.ok()) return status;
  impl->Run();
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

int Server::port() const { return impl_->port(); }
int Server::n_connections() const { return impl_->n_connections(); }
void Server::Stop(absl::Duration grace) { impl_->Stop(grace); }

}  // namespace updraft::http
