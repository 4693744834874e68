// An asynchronous HTTP/1.1 server: keep-alive, pipelining, bounded bodies, streamed (chunked) responses with
// back-pressure. It knows nothing of models or of OpenAI; see openai.h for that.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/clock/steady.h"

namespace updraft::http {

struct ServerOptions {
  std::string listen = "127.0.0.1:8080";  // HOST:PORT, IPv6 as [::1]:PORT; port 0 picks a free one
  int n_threads = 1;                      // of the loop: all socket work, and handlers that do little

  // What one client may take. Beyond it: 413, 431, or the connection is closed.
  size_t max_body_bytes = 1 << 20;
  // Bodies of all connections together, from when they arrive until the handler lets go of the exchange. What would
  // exceed it gets 503. The first 64 KiB of each do not count (max_connections bounds them), so that large bodies keep
  // no small request out. At least max_body_bytes.
  size_t max_total_body_bytes = 16 << 20;
  size_t max_header_bytes = 16 << 10;
  size_t max_buffered_bytes = 1 << 20;  // streamed bytes that wait for a slow reader before its request is ended
  // At the limit a newcomer takes the place of the connection that has been longest without a whole request; when all
  // are being answered it gets 503.
  int max_connections = 256;

  absl::Duration read_timeout = absl::Seconds(30);   // first byte of a request to its last
  absl::Duration write_timeout = absl::Seconds(30);  // without the client taking a byte
  absl::Duration idle_timeout = absl::Seconds(75);   // between requests of one connection

  // How long an answer may send nothing before what fills its silence is sent (Exchange::StartStream); zero: for ever.
  absl::Duration silence = absl::Seconds(15);

  // Told of each turn of the loop, what it took of its thread's CPU time; what others are answered waits that long.
  // Runs on that thread. Empty: nothing is measured.
  std::function<void(absl::Duration cpu_time)> on_turn = {};

  absl::Status Validate() const;
};

struct Request {
  std::string method;     // as sent, e.g. "POST"
  std::string path;       // of the target, without the query; not decoded
  std::string query;      // without '?'
  std::string authority;  // of a target that is a whole URL; empty: a path alone
  std::string body;
  std::map<std::string, std::string> headers;  // names in lower case; the last of equal names
  SteadyTime arrived;                          // when it was there whole; of a head: not told

  // Empty when the header is absent. name: lower case.
  std::string_view header(const std::string& name) const;
};

struct Response {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  // extra ones, of the server's own making
};

// What the head of a request decides, before anything of its body is read.
struct Verdict {
  std::optional<Response> answer = {};  // the request is answered with it, and no handler sees it
  std::vector<std::pair<std::string, std::string>> headers = {};  // of whatever else answers it, streams and errors too
};

// The answering half of one request. Any thread may call; nothing here blocks. One that is dropped without an answer
// gives the client a 500, or the end of the connection when a stream had begun.
class Exchange {
 public:
  virtual ~Exchange() = default;

  virtual const Request& request() const = 0;

  // Answers with a whole response. Use this or the stream, once.
  virtual void Respond(Response response) = 0;

  // Begins a streamed response; head.body is sent first if it is not empty. Then Write any number of times, then
  // Finish. filler: gives bytes that mean nothing between two Writes, such as a comment; the server sends them after
  // each ServerOptions::silence, so that nobody on the way takes the connection for dead, and when the client closes
  // its sending side, so that one who has gone altogether is told from one who still reads. Called by the server's
  // thread, without a lock; freed with the exchange. Null, or no bytes: nothing is sent.
  virtual void StartStream(Response head, std::function<std::string()> filler) = 0;
  void StartStream(Response head) { StartStream(std::move(head), nullptr); }
  // Queues bytes. Cancelled when the client is gone; ResourceExhausted when it reads too slowly, which also ends the
  // connection.
  virtual absl::Status Write(std::string_view bytes) = 0;
  // Ends the stream.
  virtual void Finish() = 0;

  // `fn` runs at most once, on a server thread, when the client goes away before the answer is complete; at once if it
  // already has. One that has only closed its sending side still reads, unless what is sent to it comes back. Called
  // once. The server drops `fn` when the exchange ends.
  virtual void OnDisconnect(std::function<void()> fn) = 0;
};

// Runs on a thread of the server and must not block: it answers at once or keeps the exchange and answers from
// elsewhere.
using Handler = std::function<void(std::shared_ptr<Exchange>)>;
// Makes the response of what the server itself refuses (malformed, too large, unknown path), so that errors look alike.
// request: as far as it was read, without its body; of one that cannot be read, nothing.
using ErrorBody = std::function<Response(int status, const std::string& message, const Request& request)>;
// head: a request without its body. Runs on a server thread, for every request whose head is well-formed.
using Gate = std::function<Verdict(const Request& head)>;

// Where a handler runs.
enum class RunsOn {
  kLoop,  // between the turns of all connections: for what is there at once, a fraction of a millisecond
  kLane   // on a thread apart, where requests with large bodies (over 64 KiB) do not hold up others
};

// Paths to handlers, per method. One slash at the end of a request's path does not count.
class Router {
 public:
  void Handle(const std::string& method, const std::string& path, Handler handler, RunsOn runs_on = RunsOn::kLoop);
  // All that begin with path + "/" and have no handler of their own, where something follows the slash.
  void HandleBelow(const std::string& method, const std::string& path, Handler handler);
  void set_error_body(ErrorBody error_body) { error_body_ = std::move(error_body); }
  void set_gate(Gate gate) { gate_ = std::move(gate); }

  // Runs the handler, itself or by way of `on_lane`, or answers 404 or 405 (with Allow). The handler is the router's,
  // and must not run after it.
  void Dispatch(std::shared_ptr<Exchange> exchange, const std::function<void(std::function<void()>)>& on_lane) const;
  Response Error(int status, const std::string& message, const Request& request) const;
  // The gate's; without one everything passes.
  Verdict Judge(const Request& head) const { return gate_ ? gate_(head) : Verdict(); }

 private:
  struct Route {
    Handler handler;
    RunsOn runs_on = RunsOn::kLoop;
  };
  using Routes = std::map<std::string, std::map<std::string, Route>>;  // path -> method -> route
  Routes::const_iterator Find(const std::string& path) const;

  Routes routes_;  // of HandleBelow: with the slash
  ErrorBody error_body_;
  Gate gate_;
};

class Server {
 public:
  // Binds, listens and serves from threads of its own. InvalidArgument for options that cannot work, AlreadyExists for
  // a busy port.
  static absl::StatusOr<std::unique_ptr<Server>> Start(ServerOptions options, Router router);
  // Stops without grace if still running.
  ~Server();

  int port() const;
  int n_connections() const;

  // Refuses new connections, closes idle ones, lets requests in progress end for `grace`, then closes the rest. Not to
  // be called from a handler. Callable again.
  void Stop(absl::Duration grace);

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace updraft::http
