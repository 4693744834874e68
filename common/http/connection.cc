#include "common/http/connection.h"

#include <algorithm>
#include <new>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/clock/steady.h"

namespace updraft::http::internal {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace bhttp = boost::beast::http;
using tcp = asio::ip::tcp;

namespace {

constexpr size_t kReadBytes = 4096;
constexpr size_t kReadAheadBytes = 64 << 10;      // pipelined input kept while a request is answered
constexpr size_t kUncountedBodyBytes = 64 << 10;  // of each body
constexpr size_t kMaxDiscardedBytes = 16 << 20;
constexpr std::chrono::seconds kLingerTime(2);
constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";

std::chrono::nanoseconds Chrono(absl::Duration d) { return absl::ToChronoNanoseconds(d); }

// The facade that handlers hold; dropping it ends the exchange.
class HandlerExchange final : public Exchange {
 public:
  HandlerExchange(Request request, std::unique_ptr<BodyShare> body_share, std::shared_ptr<ExchangeState> state)
      : request_(std::move(request)), body_share_(std::move(body_share)), state_(std::move(state)) {}
  ~HandlerExchange() override { state_->Abandon(request_); }

  const Request& request() const override { return request_; }
  void Respond(Response response) override { state_->Respond(response); }
  using Exchange::StartStream;
  void StartStream(Response head, std::function<std::string()> filler) override {
    state_->StartStream(head, std::move(filler));
  }
  absl::Status Write(std::string_view bytes) override { return state_->Write(bytes); }
  void Finish() override { state_->Finish(); }
  void OnDisconnect(std::function<void()> fn) override { state_->OnDisconnect(std::move(fn)); }

 private:
  const Request request_;
  const std::unique_ptr<BodyShare> body_share_;
  const std::shared_ptr<ExchangeState> state_;
};

template <typename StringView>
std::string ToString(const StringView& view) {
  return std::string(view.data(), view.size());
}

// Clients that take this server for a proxy send a whole URL; a server must take that too (RFC 9112, section 3.2.2).
std::string WithoutAuthority(const std::string& target, std::string& authority) {
  for (const std::string scheme : {"http://", "https://"}) {
    if (!absl::StartsWithIgnoreCase(target, scheme)) continue;
    const size_t path = target.find_first_of("/?", scheme.size());
    authority = target.substr(scheme.size(), path - scheme.size());
    if (path == std::string::npos) return "/";
    return target[path] == '/' ? target.substr(path) : "/" + target.substr(path);
  }
  return target;
}

// What is known of a request from what was read of its head; its body is not copied.
template <typename Message>
Request HeadOf(const Message& message) {
  Request request;
  request.method = ToString(message.method_string());
  const std::string target = WithoutAuthority(ToString(message.target()), request.authority);
  const size_t mark = target.find('?');
  request.path = target.substr(0, mark);
  if (mark != std::string::npos) request.query = target.substr(mark + 1);
  for (const auto& field : message) {
    request.headers[absl::AsciiStrToLower(ToString(field.name_string()))] = ToString(field.value());
  }
  return request;
}

}  // namespace

bool BodyShare::Grow(size_t n_bytes, size_t max_total) {
  const size_t counted = n_bytes - std::min(n_bytes, kUncountedBodyBytes);
  const size_t more = counted - counted_;
  if (total_->fetch_add(more) + more > max_total) {
    *total_ -= more;
    return false;
  }
  counted_ = counted;
  return true;
}

// ---- ExchangeState ------------------------------------------------------------------------------------------------

std::string ExchangeState::Head(const Response& response, std::optional<size_t> length) {
  if (connection_ != nullptr && connection_->draining()) framing_.keep_alive = false;
  if (!length && !framing_.chunked) framing_.keep_alive = false;
  std::string head =
      absl::StrFormat("HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\nConnection: %s\r\n", response.status,
                      ToString(bhttp::obsolete_reason(static_cast<bhttp::status>(response.status))),
                      absl::FormatTime("%a, %d %b %Y %H:%M:%S GMT", absl::Now(), absl::UTCTimeZone()),
                      response.content_type, framing_.keep_alive ? "keep-alive" : "close");
  for (const auto& [name, value] : response.headers) absl::StrAppendFormat(&head, "%s: %s\r\n", name, value);
  for (const auto& [name, value] : framing_.headers) absl::StrAppendFormat(&head, "%s: %s\r\n", name, value);
  if (length) {
    absl::StrAppendFormat(&head, "Content-Length: %d\r\n", *length);
  } else if (framing_.chunked) {
    head += "Transfer-Encoding: chunked\r\n";
  }
  head += "\r\n";
  return head;
}

void ExchangeState::AppendBody(std::string_view bytes) {
  // An empty chunk would end the stream.
  if (bytes.empty() || framing_.no_body) return;
  if (framing_.chunked) absl::StrAppendFormat(&out_, "%x\r\n", bytes.size());
  out_.append(bytes);
  if (framing_.chunked) out_ += "\r\n";
}

void ExchangeState::Respond(const Response& response) {
  std::shared_ptr<Connection> connection;
  {
    MutexLock lock(mu_);
    if (progress_ != Progress::kNothing || broken_) return;
    progress_ = Progress::kComplete;
    out_ += Head(response, response.body.size());
    if (!framing_.no_body) out_ += response.body;
    connection = connection_;
  }
  if (connection != nullptr) connection->ScheduleFlush();
}

void ExchangeState::StartStream(const Response& head, std::function<std::string()> filler) {
  std::shared_ptr<Connection> connection;
  {
    MutexLock lock(mu_);
    if (progress_ != Progress::kNothing || broken_) return;
    progress_ = Progress::kStreaming;
    if (connection_ != nullptr) filler_ = std::move(filler);
    out_ += Head(head, std::nullopt);
    AppendBody(head.body);
    connection = connection_;
  }
  if (connection != nullptr) connection->ScheduleFlush();
}

absl::Status ExchangeState::Write(std::string_view bytes) {
  std::shared_ptr<Connection> connection;
  bool too_slow = false;
  {
    MutexLock lock(mu_);
    if (broken_ || connection_ == nullptr) return absl::CancelledError("the client is gone");
    if (progress_ != Progress::kStreaming) return absl::FailedPreconditionError("Write outside of a stream");
    connection = connection_;
    // One answer given at once (again) may be longer: who takes that in good time is not slow.
    too_slow = !out_.empty() && out_.size() + bytes.size() > connection->max_buffered_bytes();
    if (!too_slow) AppendBody(bytes);
  }
  if (too_slow) {
    connection->Close();
    return absl::ResourceExhaustedError(absl::StrFormat("the client reads too slowly: more than %d bytes wait for it",
                                                        connection->max_buffered_bytes()));
  }
  connection->ScheduleFlush();
  return absl::OkStatus();
}

void ExchangeState::Finish() {
  std::shared_ptr<Connection> connection;
  {
    MutexLock lock(mu_);
    if (progress_ != Progress::kStreaming || broken_) return;
    progress_ = Progress::kComplete;
    if (framing_.chunked && !framing_.no_body) out_ += "0\r\n\r\n";
    connection = connection_;
  }
  if (connection != nullptr) connection->ScheduleFlush();
}

void ExchangeState::Abandon(const Request& request) {
  std::shared_ptr<Connection> connection;
  bool answered = false;
  {
    MutexLock lock(mu_);
    if (progress_ == Progress::kComplete || broken_) return;
    answered = progress_ == Progress::kStreaming;
    connection = connection_;
  }
  if (connection == nullptr) return;
  if (!answered) {
    Respond(connection->router().Error(500, "the server gave no answer", request));
  } else {
    connection->Close();  // a stream without its end must not look complete
  }
}

void ExchangeState::OnDisconnect(std::function<void()> fn) {
  {
    MutexLock lock(mu_);
    if (!broken_) {
      if (connection_ != nullptr) on_disconnect_ = std::move(fn);
      return;
    }
  }
  fn();
}

std::string ExchangeState::TakeOutput() {
  MutexLock lock(mu_);
  return std::exchange(out_, {});
}

void ExchangeState::Defer(std::function<void()> handle) {
  MutexLock lock(mu_);
  deferred_ = std::move(handle);
}

void ExchangeState::RunDeferred() {
  std::function<void()> handle;
  {
    MutexLock lock(mu_);
    handle.swap(deferred_);
  }
  if (!handle) return;
  try {
    handle();
  } catch (const std::bad_alloc&) {
    // The exchange goes with the handler, and answers by that.
  }
}

bool ExchangeState::complete() {
  MutexLock lock(mu_);
  return progress_ == Progress::kComplete;
}

bool ExchangeState::streaming() {
  MutexLock lock(mu_);
  return progress_ == Progress::kStreaming;
}

bool ExchangeState::Fill() {
  std::function<std::string()> filler;
  {
    MutexLock lock(mu_);
    filler = filler_;
  }
  const std::string bytes = filler ? filler() : "";
  MutexLock lock(mu_);
  if (!out_.empty()) return true;
  if (progress_ == Progress::kStreaming) {
    AppendBody(bytes);
  } else if (progress_ == Progress::kNothing && framing_.chunked) {
    // The one interim answer that every client passes over, asked for or not (RFC 9110, section 15.2.1).
    out_ = kContinue;
  }
  return !out_.empty();
}

void ExchangeState::Break() {
  std::function<void()> fn, unwanted;  // freed without the lock
  {
    MutexLock lock(mu_);
    broken_ = true;
    unwanted.swap(deferred_);
    if (progress_ != Progress::kComplete) fn = std::exchange(on_disconnect_, nullptr);
  }
  if (fn) fn();
}

void ExchangeState::Detach() {
  std::shared_ptr<Connection> connection;
  std::function<void()> fn, unwanted;
  std::function<std::string()> filler;
  MutexLock lock(mu_);
  connection.swap(connection_);
  filler.swap(filler_);
  fn.swap(on_disconnect_);
  unwanted.swap(deferred_);
}

// ---- Connection: reading ------------------------------------------------------------------------------------------

Connection::Connection(tcp::socket socket, std::shared_ptr<ServerState> state)
    : state_(std::move(state)),
      stream_(std::move(socket)),
      silence_(stream_.get_executor()),
      buffer_(state_->options.max_header_bytes + kReadAheadBytes) {}

Connection::~Connection() {
  MutexLock lock(state_->mu);
  state_->connections.erase(this);
}

void Connection::Start() {
  asio::dispatch(stream_.get_executor(), [self = shared_from_this()] { self->ReadRequest(); });
}

void Connection::Refuse() {
  asio::dispatch(stream_.get_executor(), [self = shared_from_this()] {
    self->AnswerError(503, absl::StrFormat("the server holds %d connections already; try again later",
                                           self->state_->options.max_connections));
  });
}

void Connection::Close() {
  asio::post(stream_.get_executor(), [self = shared_from_this()] { self->Fail(); });
}

void Connection::CloseIfIdle() {
  asio::post(stream_.get_executor(), [self = shared_from_this()] {
    if (self->reading_idle_) self->Fail();
  });
}

void Connection::CloseIfWaiting() {
  asio::post(stream_.get_executor(), [self = shared_from_this()] {
    if (self->waiting_since() != 0) self->Fail();
  });
}

void Connection::ReadRequest() {
  if (state_->draining) return Linger();
  waiting_since_ = absl::ToInt64Nanoseconds(SteadyNow().since_origin());
  // The rest of a pipelined request may be here already.
  if (buffer_.size() > 0) return ReadHeader();
  if (end_seen_) return Fail();  // a read would wait for news that came already
  reading_idle_ = true;
  stream_.expires_after(Chrono(state_->options.idle_timeout));
  stream_.async_read_some(buffer_.prepare(kReadBytes), [self = shared_from_this()](Error error, size_t n_bytes) {
    self->reading_idle_ = false;
    if (error) return self->Fail();
    self->buffer_.commit(n_bytes);
    self->ReadHeader();
  });
}

void Connection::ReadHeader() {
  parser_.emplace();
  headers_.clear();
  body_share_ = std::make_unique<BodyShare>(state_->body_bytes);
  parser_->header_limit(static_cast<uint32_t>(state_->options.max_header_bytes));
  parser_->body_limit(state_->options.max_body_bytes);
  stream_.expires_after(Chrono(state_->options.read_timeout));
  bhttp::async_read_header(stream_, buffer_, *parser_,
                           [self = shared_from_this()](Error error, size_t) { self->OnHeader(error); });
}

void Connection::OnHeader(Error error) {
  // A body that will be too large is told by a header that is whole.
  const bool too_large = error == bhttp::error::body_limit;
  if (error && !too_large) return OnReadFailed(error);
  const auto& message = parser_->get();
  // RFC 9112, section 3.2.
  const size_t n_hosts = message.count(bhttp::field::host);
  if (n_hosts > 1 || (n_hosts == 0 && message.version() >= 11)) {
    return AnswerError(400, absl::StrFormat("Host: expected this header once, found it %d times", n_hosts));
  }
  // A coding that is not understood would leave the end of the body, and so the start of the next request, to
  // guesswork.
  if (message.count(bhttp::field::transfer_encoding) != 0 && !parser_->chunked()) {
    return AnswerError(400, "Transfer-Encoding: only 'chunked' is supported");
  }
  head_ = HeadOf(message);
  Verdict verdict = state_->router.Judge(head_);
  headers_ = std::move(verdict.headers);
  if (verdict.answer) {
    // Behind a body that is not read the next request cannot be found.
    return Answer(*verdict.answer, {.keep_alive = message.keep_alive() && !too_large && parser_->is_done(),
                                    .no_body = message.method() == bhttp::verb::head});
  }
  if (too_large) return OnReadFailed(error);
  if (beast::iequals(message[bhttp::field::expect], "100-continue")) {
    asio::async_write(
        stream_, asio::buffer(kContinue.data(), kContinue.size()),
        [self = shared_from_this()](Error write_error, size_t) { write_error ? self->Fail() : self->ReadBody(); });
    return;
  }
  ReadBody();
}

void Connection::ReadBody() {
  if (parser_->is_done()) return Dispatch();
  // Piece by piece, since a length that is only declared takes no memory yet.
  parser_->eager(true);
  bhttp::async_read_some(stream_, buffer_, *parser_,
                         [self = shared_from_this()](Error error, size_t) { self->OnBody(error); });
}

void Connection::OnBody(Error error) {
  if (error) return OnReadFailed(error);
  if (body_share_->Grow(parser_->get().body().size(), state_->options.max_total_body_bytes)) return ReadBody();
  AnswerError(503, absl::StrFormat("the server holds %d bytes of requests already; try again later",
                                   state_->options.max_total_body_bytes));
}

void Connection::OnReadFailed(Error error) {
  const ServerOptions& options = state_->options;
  if (error == bhttp::error::body_limit) {
    return AnswerError(413, absl::StrFormat("the body is larger than %d bytes", options.max_body_bytes));
  }
  if (error == bhttp::error::header_limit || error == bhttp::error::buffer_overflow) {
    return AnswerError(431, absl::StrFormat("the header is larger than %d bytes", options.max_header_bytes));
  }
  if (error == bhttp::error::end_of_stream) return Fail();  // between requests: nobody waits for an answer
  if (error.category() == bhttp::make_error_code(bhttp::error::bad_method).category()) {
    return AnswerError(400, "malformed HTTP request: " + error.message());
  }
  Fail();  // time-out, reset, or our own closing
}

void Connection::Dispatch() {
  if (closed_) return;  // by another while the read's end was on its way: an exchange begun now would never be parted
  waiting_since_ = 0;
  auto message = parser_->release();
  parser_.reset();
  Request request = std::move(head_);
  request.body = std::move(message.body());
  request.arrived = SteadyNow();

  ExchangeState::Framing framing;
  framing.keep_alive = message.keep_alive();
  framing.chunked = message.version() >= 11;
  framing.no_body = message.method() == bhttp::verb::head;
  framing.headers = std::move(headers_);
  exchange_ = std::make_shared<ExchangeState>(shared_from_this(), std::move(framing));
  auto exchange = exchange_;
  const auto lane = WorkLanes::LaneOf(request.body.size());
  state_->router.Dispatch(std::make_shared<HandlerExchange>(std::move(request), std::move(body_share_), exchange),
                          [&](std::function<void()> handle) {
                            exchange->Defer(std::move(handle));
                            state_->lanes.Post(lane, [exchange] { exchange->RunDeferred(); });
                          });
  if (exchange_ != exchange || exchange->complete()) return;
  sent_at_ = SteadyNow();
  AwaitSilence(state_->options.silence);
  Watch();
}

void Connection::AnswerError(int status, const std::string& message) {
  if (closed_) return;
  Request request;
  if (parser_) request = HeadOf(parser_->get());  // the fields that were read before the trouble
  Response response = state_->router.Error(status, message, request);
  if (status == 503) response.headers.emplace_back("Retry-After", "1");
  Answer(response, {.keep_alive = false});  // where the next request starts is not known
}

void Connection::Answer(const Response& response, ExchangeState::Framing framing) {
  if (closed_) return;  // by another while the read's end was on its way: an exchange begun now would never be parted
  waiting_since_ = 0;
  parser_.reset();  // with what has arrived of the body
  body_share_.reset();
  framing.headers = std::move(headers_);
  exchange_ = std::make_shared<ExchangeState>(shared_from_this(), std::move(framing));
  exchange_->Respond(response);
}

// ---- Connection: answering ----------------------------------------------------------------------------------------

void Connection::Watch() {
  // A client that pipelines more than the read-ahead is not watched any more; writing to it tells when it has gone.
  if (watching_ || closed_ || buffer_.size() + kReadBytes > kReadAheadBytes) return;
  watching_ = true;
  stream_.expires_never();
  stream_.async_read_some(buffer_.prepare(kReadBytes),
                          [self = shared_from_this()](Error error, size_t n_bytes) { self->OnWatch(error, n_bytes); });
}

void Connection::OnWatch(Error error, size_t n_bytes) {
  watching_ = false;
  if (!error) buffer_.commit(n_bytes);
  if (closed_) return;
  if (error == asio::error::eof) end_seen_ = true;
  const bool failed = error && !end_seen_ && error != asio::error::operation_aborted;
  switch (std::exchange(after_watch_, AfterWatch::kNothing)) {
    case AfterWatch::kReadRequest:
      return failed ? Fail() : ReadRequest();
    case AfterWatch::kLinger:
      return failed ? Fail() : Linger();
    case AfterWatch::kNothing:
      break;
  }
  if (!error) return Watch();
  end_seen_&& exchange_ != nullptr ? OnEnd() : Fail();
}

// The client has closed its sending side, or the whole connection: TCP does not say which until something is sent. What
// is sent to one that has gone comes back as a reset.
void Connection::OnEnd() {
  if (exchange_->complete()) return;
  if (!exchange_->Fill() && !exchange_->streaming()) return Fail();  // nothing would ever tell
  stream_.socket().async_wait(tcp::socket::wait_error, [self = shared_from_this()](Error error) {
    if (!error) self->Fail();
  });
  Flush();
}

void Connection::AwaitSilence(absl::Duration time) {
  if (state_->options.silence == absl::ZeroDuration()) return;
  silence_.expires_after(Chrono(time));
  silence_.async_wait([weak = weak_from_this()](Error error) {
    if (auto self = weak.lock(); self && !error) self->OnSilence();
  });
}

void Connection::OnSilence() {
  // A timer that was set anew after this one had run out has a later end.
  if (exchange_ == nullptr || silence_.expiry() > std::chrono::steady_clock::now()) return;
  const absl::Duration left = state_->options.silence - (SteadyNow() - sent_at_);
  if (left > absl::ZeroDuration()) return AwaitSilence(left);
  // Before its head an answer is waited for in silence, as clients know it; see OnEnd for the exception.
  if (!writing_ && (exchange_->streaming() || end_seen_) && exchange_->Fill()) Flush();
  AwaitSilence(state_->options.silence);
}

void Connection::ScheduleFlush() {
  // Weak: bytes queued after the server has stopped must not keep it alive through its own io_context.
  asio::post(stream_.get_executor(), [weak = weak_from_this()] {
    if (auto self = weak.lock()) self->Flush();
  });
}

void Connection::Flush() {
  if (writing_ || closed_ || exchange_ == nullptr) return;
  // Completion is asked for first: what completes the answer is queued with or before the mark.
  const bool complete = exchange_->complete();
  in_flight_ = exchange_->TakeOutput();
  written_ = 0;
  if (!in_flight_.empty()) {
    writing_ = true;
    return WriteSome();
  }
  if (complete) EndExchange();
}

void Connection::WriteSome() {
  stream_.expires_after(Chrono(state_->options.write_timeout));
  stream_.async_write_some(asio::buffer(in_flight_.data() + written_, in_flight_.size() - written_),
                           [self = shared_from_this()](Error error, size_t n_bytes) {
                             if (error) {
                               self->writing_ = false;
                               return self->Fail();
                             }
                             self->written_ += n_bytes;
                             self->sent_at_ = SteadyNow();
                             if (self->written_ < self->in_flight_.size()) return self->WriteSome();
                             self->writing_ = false;
                             self->Flush();
                           });
}

void Connection::EndExchange() {
  const bool keep_alive = exchange_->keep_alive();
  silence_.cancel();
  exchange_->Detach();
  exchange_.reset();
  if (watching_) {
    after_watch_ = keep_alive ? AfterWatch::kReadRequest : AfterWatch::kLinger;
    return stream_.cancel();
  }
  keep_alive ? ReadRequest() : Linger();
}

void Connection::Linger() {
  Error ignored;
  stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
  stream_.expires_after(kLingerTime);
  DiscardInput();
}

void Connection::DiscardInput() {
  buffer_.clear();
  if (discarded_ > kMaxDiscardedBytes) return Fail();
  stream_.async_read_some(buffer_.prepare(kReadBytes), [self = shared_from_this()](Error error, size_t n_bytes) {
    if (error) return self->Fail();
    self->discarded_ += n_bytes;
    self->DiscardInput();
  });
}

void Connection::Fail() {
  if (closed_) return;
  closed_ = true;
  waiting_since_ = 0;
  silence_.cancel();
  Error ignored;
  stream_.socket().shutdown(tcp::socket::shutdown_both, ignored);
  stream_.close();
  auto exchange = std::move(exchange_);
  exchange_.reset();
  if (exchange != nullptr) {
    exchange->Break();
    exchange->Detach();
  }
}

}  // namespace updraft::http::internal
