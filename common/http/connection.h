// One client's connection: reads requests one after the other, hands them to the router, writes the answers. Private to
// this folder.
//
// Threads: everything named "on strand" runs on the connection's strand of the server's io_context. Handlers run there
// too, or on a lane (work_lanes.h), as the router says, and answer from any thread through ExchangeState, which holds
// the bytes on their way to the strand behind a mutex; no lock is held while calling out.
//
// Life: pending socket operations own the connection, and so does an exchange in progress (it and the connection own
// each other until EndExchange or Fail parts them).
#pragma once

#include <atomic>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/clock/steady.h"
#include "common/http/server.h"
#include "common/sync/mutex.h"
#include "common/sync/work_lanes.h"

namespace updraft::http::internal {

class Connection;

// What one request's body takes of ServerOptions::max_total_body_bytes; given back when this goes. Belongs to the
// connection while the body arrives, then to the exchange. Holds the count alone, not the server, which it may outlive.
class BodyShare {
 public:
  explicit BodyShare(std::shared_ptr<std::atomic<size_t>> total) : total_(std::move(total)) {}
  ~BodyShare() { *total_ -= counted_; }
  BodyShare(const BodyShare&) = delete;
  BodyShare& operator=(const BodyShare&) = delete;

  // The body has `n_bytes` now. False, and nothing changed, when all bodies together would exceed `max_total`.
  bool Grow(size_t n_bytes, size_t max_total);

 private:
  const std::shared_ptr<std::atomic<size_t>> total_;
  size_t counted_ = 0;
};

// What all connections of one server share. Outlives them all: each holds a reference.
struct ServerState {
  ServerState(ServerOptions opts, Router r) : options(std::move(opts)), router(std::move(r)), io(options.n_threads) {}
  const ServerOptions options;
  const Router router;
  boost::asio::io_context io;
  WorkLanes lanes;
  std::atomic<bool> draining{false};  // no new requests; every answer closes its connection
  const std::shared_ptr<std::atomic<size_t>> body_bytes = std::make_shared<std::atomic<size_t>>(0);  // see BodyShare

  Mutex mu;
  std::unordered_map<Connection*, std::weak_ptr<Connection>> connections ABSL_GUARDED_BY(mu);
};

// One request's answer on its way out.
class ExchangeState {
 public:
  struct Framing {
    bool keep_alive = true;  // the connection goes on after this answer
    bool chunked = true;     // streams are chunked; otherwise (HTTP/1.0) the close ends them
    bool no_body = false;    // HEAD
    std::vector<std::pair<std::string, std::string>> headers = {};  // of every answer
  };

  ExchangeState(std::shared_ptr<Connection> connection, Framing framing)
      : connection_(std::move(connection)), framing_(std::move(framing)) {}

  // Any thread.
  void Respond(const Response& response);
  void StartStream(const Response& head, std::function<std::string()> filler);
  absl::Status Write(std::string_view bytes);
  void Finish();
  void Abandon(const Request& request);  // the handler let go of it
  void OnDisconnect(std::function<void()> fn);

  // What is to be done for it on a lane. It goes when the client does, with the request that it holds.
  void Defer(std::function<void()> handle);
  void RunDeferred();  // if it is there still

  // On strand.
  std::string TakeOutput();
  bool complete();
  bool streaming();
  // Queues what means nothing to the client, where nothing else waits: the stream's filler, or 100 (Continue) before
  // the head of an answer. False when neither can be: a stream has no filler, or HTTP/1.0 no such interim answer.
  bool Fill();
  bool keep_alive() const { return framing_.keep_alive; }  // settled once the head is queued
  void Break();                                            // the client is gone: later writes fail, the callback runs
  void Detach();                                           // lets go of connection and callback

 private:
  enum class Progress { kNothing, kStreaming, kComplete };  // what has been queued

  std::string Head(const Response& response, std::optional<size_t> length) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void AppendBody(std::string_view bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Mutex mu_;
  std::shared_ptr<Connection> connection_ ABSL_GUARDED_BY(mu_);  // null once the exchange is over
  Framing framing_;
  std::string out_ ABSL_GUARDED_BY(mu_);
  std::function<std::string()> filler_ ABSL_GUARDED_BY(mu_);
  Progress progress_ ABSL_GUARDED_BY(mu_) = Progress::kNothing;
  bool broken_ ABSL_GUARDED_BY(mu_) = false;  // the client is gone
  std::function<void()> on_disconnect_ ABSL_GUARDED_BY(mu_);
  std::function<void()> deferred_ ABSL_GUARDED_BY(mu_);
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(boost::asio::ip::tcp::socket socket, std::shared_ptr<ServerState> state);
  ~Connection();

  // Any thread.
  void Start();
  void Refuse();  // answers 503 and closes
  void Close();
  void CloseIfIdle();
  void CloseIfWaiting();  // no whole request has arrived
  // Since when the server waits for a request to arrive whole, in nanoseconds of SteadyTime; 0 while one is answered.
  int64_t waiting_since() const { return waiting_since_.load(std::memory_order_relaxed); }
  void ScheduleFlush();
  size_t max_buffered_bytes() const { return state_->options.max_buffered_bytes; }
  bool draining() const { return state_->draining; }
  const Router& router() const { return state_->router; }

 private:
  using Error = boost::beast::error_code;

  // On strand.
  void ReadRequest();
  void ReadHeader();
  void OnHeader(Error error);
  void ReadBody();
  void OnBody(Error error);
  void OnReadFailed(Error error);
  void Dispatch();
  void AnswerError(int status, const std::string& message);
  void Answer(const Response& response, ExchangeState::Framing framing);  // of the server itself
  void Watch();  // notices the client's going while a request is answered
  void OnWatch(Error error, size_t n_bytes);
  void OnEnd();  // of what the client sends
  void AwaitSilence(absl::Duration time);
  void OnSilence();
  void Flush();
  void WriteSome();
  void EndExchange();
  void Linger();  // closes our side and lets the client read what was sent before the socket goes
  void DiscardInput();
  void Fail();

  std::shared_ptr<ServerState> state_;  // first: its io_context must outlive the stream
  boost::beast::tcp_stream stream_;
  boost::asio::steady_timer silence_;  // runs while a request is answered
  boost::beast::flat_buffer buffer_;   // read but not yet parsed
  std::optional<boost::beast::http::request_parser<boost::beast::http::string_body>> parser_;
  std::vector<std::pair<std::string, std::string>> headers_;  // the gate's, for whatever answers the request
  Request head_;                             // as the gate has seen it: fields behind a body (trailers) are not of it
  std::unique_ptr<BodyShare> body_share_;    // of the body that is arriving
  std::shared_ptr<ExchangeState> exchange_;  // null between requests
  std::string in_flight_;                    // being written
  size_t written_ = 0;                       // of in_flight_
  size_t discarded_ = 0;
  bool writing_ = false;
  bool watching_ = false;
  bool reading_idle_ = false;
  bool end_seen_ = false;                  // the client sends nothing more
  SteadyTime sent_at_;                     // when the client last took something, or the answer began
  std::atomic<int64_t> waiting_since_{0};  // written on strand
  enum class AfterWatch { kNothing, kReadRequest, kLinger };
  AfterWatch after_watch_ = AfterWatch::kNothing;  // what to do once the cancelled watch has returned
  bool closed_ = false;
};

}  // namespace updraft::http::internal
