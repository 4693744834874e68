#include "deploy/relay/relay.h"

#include <algorithm>
#include <array>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cmath>
#include <deque>
#include <future>
#include <map>
#include <sstream>
#include <thread>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/clock/steady.h"
#include "common/rpc/address.h"
#include "common/sync/mutex.h"
#include "deploy/relay/connection.h"
#include "deploy/relay/link_queue.h"

namespace updraft::relay {

namespace asio = boost::asio;
using boost::system::error_code;
using internal::CloseWithReset;
using internal::Connection;
using tcp = asio::ip::tcp;

namespace {

constexpr double kNever = LinkQueue::kNever;
// Between two looks at the road: bytes arrive that much late at most, and fast roads do not wake it for every segment.
constexpr double kTick_s = 100e-6;
constexpr auto kListenRetry = std::chrono::milliseconds(20);

absl::StatusOr<tcp::endpoint> Resolve(asio::io_context& io, const HostPort& address, const char* what) {
  error_code error;
  tcp::resolver resolver(io);
  const auto found =
      resolver.resolve(address.host, std::to_string(address.port), tcp::resolver::numeric_service, error);
  if (error || found.empty()) {
    return absl::InvalidArgumentError(absl::StrFormat("relay: %s: the host of '%s' cannot be resolved: %s", what,
                                                      address.ToString(), error.message()));
  }
  return found.begin()->endpoint();
}

}  // namespace

absl::Status RelayOptions::Validate() const {
  if (queue_bytes < LinkQueue::kSegmentBytes || queue_bytes > (int64_t{1} << 30)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("queue-bytes: expected %d to %d, found %d", LinkQueue::kSegmentBytes, 1 << 30, queue_bytes));
  }
  if (window_bytes < LinkQueue::kSegmentBytes || window_bytes > (int64_t{1} << 30)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("window-bytes: expected %d to %d, found %d", LinkQueue::kSegmentBytes, 1 << 30, window_bytes));
  }
  if (max_connections < 1 || max_connections > 100'000) {
    return absl::InvalidArgumentError(
        absl::StrFormat("max-connections: expected 1 to 100000, found %d", max_connections));
  }
  for (const auto& [what, seconds] : {std::pair("reset-patience-s", reset_patience_s), {"silence-s", silence_s}}) {
    if (!(seconds >= 0.0 && seconds <= 1e6)) {
      return absl::InvalidArgumentError(absl::StrFormat("%s: expected 0 to 1e6, found %g", what, seconds));
    }
  }
  for (const auto* list : {&reset_after_bytes_up, &reset_after_bytes_down}) {
    for (const int64_t bytes : *list) {
      if (bytes < 1) {
        return absl::InvalidArgumentError(
            absl::StrFormat("reset-after-bytes: expected numbers of at least 1, found %d", bytes));
      }
    }
  }
  return absl::OkStatus();
}

// Everything but the constructor, Listen, Call and counters runs on the thread.
class Relay::Impl final : public internal::Host {
 public:
  explicit Impl(RelayOptions options)
      : options_(std::move(options)),
        acceptor_(io_),
        pump_timer_(io_),
        listen_timer_(io_),
        lanes_{LaneState(options_, Direction::kUp), LaneState(options_, Direction::kDown)} {}

  absl::Status Listen();
  void Run();
  void Stop();
  int port() const { return endpoint_.port(); }
  std::string address() const {
    std::ostringstream text;
    text << endpoint_;
    return text.str();
  }
  RelayCounters counters() const {
    MutexLock lock(mu_);
    RelayCounters counters = counters_;
    counters.seconds = stopped_s_ >= 0.0 ? stopped_s_ : Now();
    return counters;
  }

  // Runs `fn` on the thread and waits for it; not at all once it has stopped.
  template <typename Function>
  void Call(Function fn) {
    if (io_.get_executor().running_in_this_thread()) return fn();
    MutexLock lock(call_mu_);
    if (!thread_.joinable()) return;
    std::promise<void> done;
    asio::post(io_, [&fn, &done] {
      fn();
      done.set_value();
    });
    done.get_future().wait();
  }

  void Apply(const Event& event);  // its time: seconds of the road
  void Restore();
  void ResetAfter(Direction direction, int64_t bytes) { lane(direction).resets.push_back(bytes); }

  // Host
  asio::io_context& io() override { return io_; }
  const tcp::endpoint& target() const override { return target_; }
  const RelayOptions& options() const override { return options_; }
  double Now() const override { return absl::ToDoubleSeconds(SteadyNow() - start_); }
  void OnBytes(uint64_t connection, Direction direction, std::string_view bytes) override;
  int64_t Room(Direction direction) override { return lane(direction).link.Room(Now()); }
  void Send(Direction direction, const Parcel& parcel) override;
  void AwaitRoom(Direction direction, std::weak_ptr<Connection> connection) override;
  int64_t BytesUntilReset(Direction direction) const override;
  bool OnDelivered(Direction direction, int64_t n_bytes) override;
  void OnLost(Direction direction, int64_t n_bytes) override;
  void OnRefusedByTarget() override;
  void OnEnd(const ConnectionRecord& record, End end) override;

 private:
  struct LaneState {
    LaneState(const RelayOptions& options, Direction direction)
        : link(options.road.lane(direction), {.queue_bytes = options.queue_bytes,
                                              .seed = 2 * options.seed + (direction == Direction::kUp ? 0 : 1),
                                              .tick_s = kTick_s}),
          resets(direction == Direction::kUp ? options.reset_after_bytes_up.begin()
                                             : options.reset_after_bytes_down.begin(),
                 direction == Direction::kUp ? options.reset_after_bytes_up.end()
                                             : options.reset_after_bytes_down.end()) {}
    LinkQueue link;
    std::deque<std::weak_ptr<Connection>> waiting;  // for room, in turn
    std::deque<int64_t> resets;                     // bytes each, from the one before
    int64_t since_reset = 0;                        // bytes delivered
  };
  LaneState& lane(Direction direction) { return lanes_[direction == Direction::kUp ? 0 : 1]; }
  const LaneState& lane(Direction direction) const { return lanes_[direction == Direction::kUp ? 0 : 1]; }
  LaneCounters& Count(Direction direction) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return direction == Direction::kUp ? counters_.up : counters_.down;
  }

  void Accept();
  void Admit(tcp::socket socket);
  void RefuseNewcomers();
  void ListenAgain();
  error_code Bind();

  void Pump();
  void GrantRoom(Direction direction);
  void RunEvents(double now);
  void Schedule();
  double NextLook() const;
  void SeverAll(std::string_view why);

  const RelayOptions options_;
  asio::io_context io_{1};
  asio::executor_work_guard<asio::io_context::executor_type> work_{io_.get_executor()};
  tcp::acceptor acceptor_;
  tcp::endpoint endpoint_, target_;
  asio::steady_timer pump_timer_, listen_timer_;
  std::array<LaneState, 2> lanes_;
  using Connections = std::map<uint64_t, std::shared_ptr<Connection>>;
  Connections connections_;  // they leave it as they end: walk over a copy
  uint64_t next_id_ = 1;
  uint64_t door_ = 0;  // counts closings: what was accepted before one is not let in after it
  SteadyTime start_;
  double events_until_ = -1.0;  // those of the road up to here have happened
  double next_event_ = -1.0;    // at the first look
  double refuse_until_ = -1.0, silent_until_ = -1.0;
  double look_at_ = kNever;  // when the timer goes off
  double looked_at_ = 0.0;
  std::vector<Parcel> arrived_;

  Mutex call_mu_;  // one call at a time, and none after Stop
  std::thread thread_ ABSL_GUARDED_BY(call_mu_);
  mutable Mutex mu_;
  RelayCounters counters_ ABSL_GUARDED_BY(mu_);
  double stopped_s_ ABSL_GUARDED_BY(mu_) = -1.0;
  int64_t held_bytes_ ABSL_GUARDED_BY(mu_) = 0;
};

// ---- Listening ----------------------------------------------------------------------------------------------------

error_code Relay::Impl::Bind() {
  error_code error, ignored;
  acceptor_.close(ignored);
  acceptor_.open(endpoint_.protocol(), error);
  if (!error) internal::CloseOnExec(acceptor_.native_handle());
  if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
  // What is accepted inherits it; set later, it would not bound what the other end may send at first.
  if (!error) acceptor_.set_option(asio::socket_base::receive_buffer_size(internal::kSocketBufferBytes), error);
  if (!error) acceptor_.bind(endpoint_, error);
  if (error) acceptor_.close(ignored);  // open and not bound, it would listen at a port that nobody knows
  return error;
}

absl::Status Relay::Impl::Listen() {
  const auto listen = ParseHostPort(options_.listen, "listen", PortZero::kAllowed);
  if (!listen.ok()) return listen.status();
  const auto to = ParseHostPort(options_.to, "to", PortZero::kRefused);
  if (!to.ok()) return to.status();
  if (IsSameEndpoint(*listen, *to)) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "relay: to: expected another address than the one it listens on, found '%s'; it would connect to itself",
        options_.to));
  }
  const auto endpoint = Resolve(io_, *listen, "listen"), target = Resolve(io_, *to, "to");
  if (!endpoint.ok()) return endpoint.status();
  if (!target.ok()) return target.status();
  endpoint_ = *endpoint;
  target_ = *target;
  error_code error = Bind();
  if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
  if (error == asio::error::address_in_use) {
    return absl::AlreadyExistsError(
        absl::StrFormat("relay: cannot listen on %s: the port is in use; stop what holds it, or choose another (port 0 "
                        "picks a free one)",
                        options_.listen));
  }
  if (error) {
    return absl::InvalidArgumentError(
        absl::StrFormat("relay: cannot listen on %s: %s", options_.listen, error.message()));
  }
  endpoint_ = acceptor_.local_endpoint(error);
  return absl::OkStatus();
}

void Relay::Impl::Run() {
  start_ = SteadyNow();
  asio::post(io_, [this] {
    Accept();
    Pump();
  });
  MutexLock lock(call_mu_);
  thread_ = std::thread([this] { io_.run(); });
}

void Relay::Impl::Accept() {
  acceptor_.async_accept([this, door = door_](const error_code& error, tcp::socket socket) {
    if (door != door_) return CloseWithReset(socket);  // it came in while that door was closed
    if (error) {  // out of file descriptors, or the other end gave up: a little later
      listen_timer_.expires_after(kListenRetry);
      return listen_timer_.async_wait([this](const error_code& cancelled) {
        if (!cancelled) Accept();
      });
    }
    Admit(std::move(socket));
    Accept();
  });
}

void Relay::Impl::Admit(tcp::socket socket) {
  if (static_cast<int>(connections_.size()) >= options_.max_connections) {
    {
      MutexLock lock(mu_);
      ++counters_.connections_refused;
    }
    return CloseWithReset(socket);
  }
  const auto connection = std::make_shared<Connection>(std::move(socket), next_id_, this);
  connections_[next_id_++] = connection;
  {
    MutexLock lock(mu_);
    ++counters_.connections;
    counters_.open_connections = static_cast<int>(connections_.size());
  }
  connection->Start();
  if (Now() < silent_until_) connection->FallSilent();
}

// The port stays ours, bound by a socket that does not listen: who connects is refused by the system. If somebody has
// taken it meanwhile, nothing here is bound, and ListenAgain tries until the port is free.
void Relay::Impl::RefuseNewcomers() {
  ++door_;
  listen_timer_.cancel();
  Bind();
}

void Relay::Impl::ListenAgain() {
  error_code error;
  if (!acceptor_.is_open()) error = Bind();
  if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    acceptor_.close(error);
    listen_timer_.expires_after(kListenRetry);
    return listen_timer_.async_wait([this](const error_code& cancelled) {
      if (!cancelled) ListenAgain();
    });
  }
  Accept();
}

// ---- What the road does -------------------------------------------------------------------------------------------

void Relay::Impl::Apply(const Event& event) {
  const double until = event.time_s + event.duration_s;
  switch (event.kind) {
    case EventKind::kStall:
      for (LaneState& lane : lanes_) lane.link.Stall(event.time_s, until);
      break;
    case EventKind::kReset:
      SeverAll("reset by the road");
      break;
    case EventKind::kCut:
      if (until > Now()) {
        const bool refusing = refuse_until_ >= 0.0;
        refuse_until_ = std::max(refuse_until_, until);
        if (!refusing) RefuseNewcomers();  // first: who is severed may come back at once
      }
      SeverAll("cut by the road");
      for (LaneState& lane : lanes_) lane.link.Clear(Now());
      break;
    case EventKind::kBlackhole:
      silent_until_ = std::max(silent_until_, until);
      for (const auto& [id, connection] : Connections(connections_)) connection->FallSilent();
      break;
  }
  Schedule();
}

void Relay::Impl::Restore() {
  for (LaneState& lane : lanes_) lane.link.Resume(Now());
  silent_until_ = -1.0;
  if (refuse_until_ >= 0.0) {
    refuse_until_ = -1.0;
    ListenAgain();
  }
  Schedule();
}

void Relay::Impl::RunEvents(double now) {
  if (now >= next_event_) {
    for (const Event& event : options_.road.events.Between(events_until_, now)) Apply(event);
    events_until_ = now;
    next_event_ = options_.road.events.NextTime(now);
  }
  if (refuse_until_ >= 0.0 && now >= refuse_until_) {
    refuse_until_ = -1.0;
    ListenAgain();
  }
}

void Relay::Impl::SeverAll(std::string_view why) {
  for (const auto& [id, connection] : Connections(connections_)) connection->Sever(why);
}

void Relay::Impl::Pump() {
  const double now = looked_at_ = Now();
  RunEvents(now);
  for (const Direction direction : kDirections) {
    arrived_.clear();
    lane(direction).link.Pop(now, &arrived_);
    for (const Parcel& parcel : arrived_) {
      const auto found = connections_.find(parcel.stream);
      if (found == connections_.end()) continue;  // severed meanwhile
      const std::shared_ptr<Connection> connection = found->second;
      connection->Arrive(direction, parcel);
    }
    GrantRoom(direction);
  }
  Schedule();
}

void Relay::Impl::GrantRoom(Direction direction) {
  LaneState& state = lane(direction);
  // Those that are told now and find too little stand in line again.
  for (size_t n = state.waiting.size(); n > 0 && state.link.Room(Now()) > 0; --n) {
    const std::shared_ptr<Connection> connection = state.waiting.front().lock();
    state.waiting.pop_front();
    if (connection != nullptr) connection->RoomAgain(direction);
  }
}

double Relay::Impl::NextLook() const {
  double next = next_event_;
  for (const LaneState& lane : lanes_) {
    next = std::min(next, lane.link.NextArrival());
    if (!lane.waiting.empty()) next = std::min(next, lane.link.NextRoom());
  }
  if (refuse_until_ >= 0.0) next = std::min(next, refuse_until_);
  return next;
}

void Relay::Impl::Schedule() {
  constexpr double kLongest_s = 3600.0;  // the clock's own type has an end
  const double next = std::clamp(NextLook(), looked_at_ + kTick_s, looked_at_ + kLongest_s);
  if (look_at_ > looked_at_ && look_at_ <= next) return;  // early enough; it looks again then
  look_at_ = next;
  const absl::Duration since_origin = (start_ + absl::Seconds(next)).since_origin();
  pump_timer_.expires_at(std::chrono::steady_clock::time_point(absl::ToChronoNanoseconds(since_origin)));
  pump_timer_.async_wait([this](const error_code& cancelled) {
    if (!cancelled) Pump();
  });
}

// ---- For connections ----------------------------------------------------------------------------------------------

void Relay::Impl::OnBytes(uint64_t connection, Direction direction, std::string_view bytes) {
  if (options_.capture) options_.capture(connection, direction, bytes);
  MutexLock lock(mu_);
  Count(direction).bytes_entered += static_cast<int64_t>(bytes.size());
  held_bytes_ += static_cast<int64_t>(bytes.size());
  counters_.peak_held_bytes = std::max(counters_.peak_held_bytes, held_bytes_);
}

void Relay::Impl::Send(Direction direction, const Parcel& parcel) {
  lane(direction).link.Push(parcel, Now());
  Schedule();
}

void Relay::Impl::AwaitRoom(Direction direction, std::weak_ptr<Connection> connection) {
  lane(direction).waiting.push_back(std::move(connection));
  Schedule();
}

int64_t Relay::Impl::BytesUntilReset(Direction direction) const {
  const LaneState& state = lane(direction);
  return state.resets.empty() ? std::numeric_limits<int64_t>::max() : state.resets.front() - state.since_reset;
}

bool Relay::Impl::OnDelivered(Direction direction, int64_t n_bytes) {
  {
    MutexLock lock(mu_);
    Count(direction).bytes_delivered += n_bytes;
    held_bytes_ -= n_bytes;
  }
  LaneState& state = lane(direction);
  if (state.resets.empty()) return false;
  state.since_reset += n_bytes;
  if (state.since_reset < state.resets.front()) return false;
  state.resets.pop_front();
  state.since_reset = 0;
  return true;
}

void Relay::Impl::OnLost(Direction direction, int64_t n_bytes) {
  MutexLock lock(mu_);
  Count(direction).bytes_lost += n_bytes;
  held_bytes_ -= n_bytes;
}

void Relay::Impl::OnRefusedByTarget() {
  MutexLock lock(mu_);
  ++counters_.connections_refused;
}

void Relay::Impl::OnEnd(const ConnectionRecord& record, End end) {
  connections_.erase(record.id);
  {
    MutexLock lock(mu_);
    counters_.connections_reset += end == End::kSevered ? 1 : 0;
    counters_.open_connections = static_cast<int>(connections_.size());
  }
  if (options_.on_connection_end) options_.on_connection_end(record);
}

void Relay::Impl::Stop() {
  Call([this] {
    error_code ignored;
    ++door_;
    acceptor_.close(ignored);
    listen_timer_.cancel();
    pump_timer_.cancel();
    SeverAll("the relay ended");
    MutexLock lock(mu_);
    stopped_s_ = Now();
  });
  MutexLock lock(call_mu_);
  if (!thread_.joinable()) return;
  work_.reset();
  io_.stop();
  thread_.join();
  // Handlers that were cancelled hold connections, whose sockets need the io_context.
  io_.restart();
  io_.poll();
}

// ---- Relay --------------------------------------------------------------------------------------------------------

absl::StatusOr<std::unique_ptr<Relay>> Relay::Start(RelayOptions options) {
  if (absl::Status status = options.Validate(); !status.ok()) return status;
  auto impl = std::make_unique<Impl>(std::move(options));
  if (absl::Status status = impl->Listen(); !status.ok()) return status;
  impl->Run();
  return std::unique_ptr<Relay>(new Relay(std::move(impl)));
}

Relay::Relay(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Relay::~Relay() { Stop(); }

int Relay::port() const { return impl_->port(); }
std::string Relay::address() const { return impl_->address(); }
RelayCounters Relay::counters() const { return impl_->counters(); }
void Relay::Cut(double seconds) {
  impl_->Call([&] { impl_->Apply({impl_->Now(), EventKind::kCut, seconds}); });
}
void Relay::Stall(double seconds) {
  impl_->Call([&] { impl_->Apply({impl_->Now(), EventKind::kStall, seconds}); });
}
void Relay::Blackhole(double seconds) {
  impl_->Call([&] { impl_->Apply({impl_->Now(), EventKind::kBlackhole, seconds}); });
}
void Relay::Reset() {
  impl_->Call([&] { impl_->Apply({impl_->Now(), EventKind::kReset, 0.0}); });
}
void Relay::Restore() {
  impl_->Call([&] { impl_->Restore(); });
}
void Relay::ResetAfter(Direction direction, int64_t bytes) {
  impl_->Call([&] { impl_->ResetAfter(direction, std::max<int64_t>(bytes, 1)); });
}
void Relay::Stop() { impl_->Stop(); }

}  // namespace updraft::relay
