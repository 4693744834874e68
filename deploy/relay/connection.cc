#include "deploy/relay/connection.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <sstream>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"

namespace updraft::relay::internal {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr size_t kReadBytes = 16 << 10;  // at a time, so that connections take turns
constexpr auto kResetLook = std::chrono::milliseconds(1);

bool WouldBlock(const error_code& error) {
  return error == asio::error::would_block || error == asio::error::try_again;
}

// Bytes that the other end's system has not acknowledged; 0 where this cannot be told.
int UnacknowledgedBytes(tcp::socket& socket) {
  int n = 0;
  return ioctl(socket.native_handle(), SIOCOUTQ, &n) == 0 ? n : 0;
}

}  // namespace

void CloseWithReset(tcp::socket& socket) {
  error_code ignored;
  if (!socket.is_open()) return;
  socket.set_option(asio::socket_base::linger(true, 0), ignored);
  socket.close(ignored);
}

void CloseOnExec(int fd) { fcntl(fd, F_SETFD, FD_CLOEXEC); }

void SetSocketOptions(tcp::socket& socket) {
  error_code ignored;
  CloseOnExec(socket.native_handle());
  socket.set_option(tcp::no_delay(true), ignored);
  socket.set_option(asio::socket_base::send_buffer_size(kSocketBufferBytes), ignored);
  socket.set_option(asio::socket_base::receive_buffer_size(kSocketBufferBytes), ignored);
  socket.non_blocking(true, ignored);
}

Connection::Connection(tcp::socket client, uint64_t id, Host* host)
    : id_(id), host_(host), client_(std::move(client)), server_(host->io()), timer_(host->io()) {
  half(Direction::kUp).source = half(Direction::kDown).sink = &client_;
  half(Direction::kUp).sink = half(Direction::kDown).source = &server_;
  error_code error;
  const tcp::endpoint from = client_.remote_endpoint(error);
  std::ostringstream text;
  if (!error) text << from;
  record_.id = id;
  record_.from = text.str();
  record_.opened_s = host->Now();
}

void Connection::Start() {
  SetSocketOptions(client_);
  host_->Send(Direction::kUp, {id_, Mark::kOpen, 0});
}

// ---- Out of the road ----------------------------------------------------------------------------------------------

void Connection::Arrive(Direction direction, const Parcel& parcel) {
  if (phase_ == Phase::kSilent || phase_ == Phase::kResetting || phase_ == Phase::kOver) return;
  Half& way = half(direction);
  switch (parcel.mark) {
    case Mark::kOpen:
      return ConnectToTarget();
    case Mark::kOpened:
      return AwaitBytes(Direction::kUp);
    case Mark::kAbort:
      return ResetBehind(direction, record_.end.empty() ? "reset by an end" : record_.end, Host::End::kClosed);
    case Mark::kEnd:
      if (way.writing == Writing::kOpen) way.writing = Writing::kEnding;
      return Write(direction);
    case Mark::kData:
      way.arrived_bytes += parcel.n_bytes;
      return Write(direction);
  }
}

void Connection::ConnectToTarget() {
  error_code error;
  server_.open(host_->target().protocol(), error);
  if (!error) SetSocketOptions(server_);
  server_.async_connect(host_->target(), [self = shared_from_this()](const error_code& failed) {
    if (self->phase_ == Phase::kOver) return;
    if (self->phase_ == Phase::kSilent)
      return failed ? self->CloseSilent(Direction::kDown) : self->AwaitBytes(Direction::kDown);
    if (failed) {
      self->record_.end = "the target refused: " + failed.message();
      self->host_->OnRefusedByTarget();
      return self->host_->Send(Direction::kDown, {self->id_, Mark::kAbort, 0});
    }
    self->phase_ = Phase::kOpen;
    self->host_->Send(Direction::kDown, {self->id_, Mark::kOpened, 0});
    self->AwaitBytes(Direction::kDown);
  });
}

void Connection::Write(Direction direction) {
  Half& way = half(direction);
  if (way.writing == Writing::kGone) {
    DropGone(direction);
    return EndIfDone();
  }
  if (way.write_awaited) return;
  switch (WriteArrived(&way, direction)) {
    case Written::kAll:
      break;
    case Written::kSinkFull:
      return AwaitSink(direction);
    case Written::kSinkFailed:
      return SinkFailed(direction);
    case Written::kResetDue:
      Drop(direction);
      return ResetBehind(direction,
                         absl::StrFormat("reset after %d bytes %s", way.delivered_bytes, DirectionName(direction)),
                         Host::End::kSevered);
  }
  if (way.writing == Writing::kEnding && way.arrived_bytes == 0) {
    error_code ignored;
    way.sink->shutdown(tcp::socket::shutdown_send, ignored);
    way.writing = Writing::kEnded;
    return EndIfDone();
  }
  if (way.waits_for_window()) Read(direction);  // it has opened
}

Connection::Written Connection::WriteArrived(Half* half, Direction direction) {
  while (half->arrived_bytes > 0) {
    const int64_t limit = std::min(half->arrived_bytes, host_->BytesUntilReset(direction));
    const std::string_view bytes = half->held.Front().substr(0, static_cast<size_t>(limit));
    error_code error;
    const size_t written = half->sink->write_some(asio::buffer(bytes), error);
    if (WouldBlock(error)) return Written::kSinkFull;
    if (error) return Written::kSinkFailed;
    PopDelivered(half, static_cast<int64_t>(written));
    if (host_->OnDelivered(direction, static_cast<int64_t>(written))) return Written::kResetDue;
  }
  return Written::kAll;
}

void Connection::AwaitSink(Direction direction) {
  Half& way = half(direction);
  way.write_awaited = true;
  way.sink->async_wait(tcp::socket::wait_write, [self = shared_from_this(), direction](const error_code& error) {
    self->half(direction).write_awaited = false;
    if (error || self->phase_ != Phase::kOpen) return;
    self->Write(direction);
  });
}

// Word of it travels the long way round, behind what that end had said before; reading brings it, if it goes on.
void Connection::SinkFailed(Direction direction) {
  half(direction).writing = Writing::kGone;
  DropGone(direction);
  const Direction back = Opposite(direction);
  if (half(back).reading == Reading::kEnded) EndReading(back, Mark::kAbort);
  if (half(back).waits_for_window()) Read(back);
}

void Connection::PopDelivered(Half* way, int64_t n_bytes) {
  way->held.Pop(static_cast<size_t>(n_bytes));
  way->arrived_bytes -= n_bytes;
  way->delivered_bytes += n_bytes;
}

void Connection::Drop(Direction direction) {
  Half& way = half(direction);
  host_->OnLost(direction, way.held_bytes());
  way.held.Clear();
  way.arrived_bytes = 0;
}

void Connection::DropGone(Direction direction) {
  Drop(direction);
  if (half(direction).waits_for_window()) Read(direction);  // all of it is free
}

void Connection::EndIfDone() {
  for (const Half& way : halves_) {
    if (way.reading != Reading::kEnded || way.writing != Writing::kEnded) return;
  }
  End("closed by both ends", Host::End::kClosed);
}

void Connection::ResetBehind(Direction direction, std::string_view why, Host::End end) {
  phase_ = Phase::kResetting;
  record_.end = std::string(why);
  ResetOnceTaken(direction, end, 0, host_->options().reset_patience_s);
}

// A reset takes away what the system has not passed on yet, so that goes first. `taken_bytes`: at the last look.
void Connection::ResetOnceTaken(Direction direction, Host::End end, int64_t taken_bytes, double patience_s) {
  Half& way = half(direction);
  const Written written = way.writing == Writing::kGone ? Written::kSinkFailed : WriteArrived(&way, direction);
  if (written == Written::kResetDue) Drop(direction);
  const int n_unacknowledged = UnacknowledgedBytes(*way.sink);
  const int64_t taken = way.delivered_bytes - n_unacknowledged;
  const bool all = written != Written::kSinkFull && n_unacknowledged == 0;
  if (taken > taken_bytes) patience_s = host_->options().reset_patience_s;
  if (all || written == Written::kSinkFailed || patience_s <= 0.0) return Sever(std::string(record_.end), end);
  timer_.expires_after(kResetLook);
  timer_.async_wait([self = shared_from_this(), direction, end, taken, patience_s](const error_code& error) {
    if (error || self->phase_ != Phase::kResetting) return;
    self->ResetOnceTaken(direction, end, taken, patience_s - std::chrono::duration<double>(kResetLook).count());
  });
}

// ---- Into the road ------------------------------------------------------------------------------------------------

void Connection::AwaitBytes(Direction direction) {
  Half& way = half(direction);
  if (way.reading == Reading::kAwaited || way.reading == Reading::kEnded || !way.source->is_open()) return;
  way.reading = Reading::kAwaited;
  way.source->async_wait(tcp::socket::wait_read, [self = shared_from_this(), direction](const error_code& error) {
    if (error || self->half(direction).reading != Reading::kAwaited) return;
    self->Read(direction);
  });
}

void Connection::RoomAgain(Direction direction) {
  Half& way = half(direction);
  way.room_awaited = false;
  if (way.reading == Reading::kHeld) Read(direction);
}

void Connection::Read(Direction direction) {
  if (phase_ == Phase::kSilent) return Discard(direction);
  if (phase_ != Phase::kOpen) return;
  Half& way = half(direction);
  const bool source_gone = half(Opposite(direction)).writing == Writing::kGone;
  const int64_t room = host_->Room(direction);
  // What one that is gone had said is with the system already, and ends: it does not wait for a window.
  const int64_t window = source_gone ? int64_t{kReadBytes} : host_->options().window_bytes - way.held_bytes();
  if (room <= 0 || window <= 0) {
    way.reading = Reading::kHeld;
    if (window > 0 && !way.room_awaited) {
      way.room_awaited = true;
      host_->AwaitRoom(direction, weak_from_this());
    }
    return;
  }
  std::array<char, kReadBytes> buffer;
  const size_t n = std::min({buffer.size(), static_cast<size_t>(room), static_cast<size_t>(window)});
  error_code error;
  const size_t n_read = way.source->read_some(asio::buffer(buffer.data(), n), error);
  if (error == asio::error::eof) {
    // A socket tells an error once: where writing to it met the reset, reading finds an end.
    return EndReading(direction, source_gone ? Mark::kAbort : Mark::kEnd);
  }
  if (error && !WouldBlock(error)) return EndReading(direction, Mark::kAbort);
  if (n_read > 0) {
    const std::string_view bytes(buffer.data(), n_read);
    way.held.Append(bytes);
    host_->OnBytes(id_, direction, bytes);
    host_->Send(direction, {id_, Mark::kData, static_cast<int64_t>(n_read)});
  }
  way.reading = Reading::kNotYet;
  AwaitBytes(direction);
}

void Connection::EndReading(Direction direction, Mark mark) {
  half(direction).reading = Reading::kEnded;
  host_->Send(direction, {id_, mark, 0});
}

void Connection::Discard(Direction direction) {
  Half& way = half(direction);
  std::array<char, kReadBytes> buffer;
  error_code error;
  const size_t n_read = way.source->read_some(asio::buffer(buffer), error);
  if (n_read > 0) {
    host_->OnBytes(id_, direction, std::string_view(buffer.data(), n_read));
    host_->OnLost(direction, static_cast<int64_t>(n_read));
  }
  if (!error || WouldBlock(error)) {
    way.reading = Reading::kNotYet;
    return AwaitBytes(direction);
  }
  const bool gone = error != asio::error::eof || half(Opposite(direction)).writing == Writing::kGone;  // told once
  if (gone) return CloseSilent(direction);
  way.reading = Reading::kEnded;  // and may wait for what never comes
  EndSilentIfDone();
}

void Connection::CloseSilent(Direction direction) {
  error_code ignored;
  half(direction).source->close(ignored);
  EndSilentIfDone();
}

void Connection::FallSilent() {
  if (phase_ == Phase::kOver || phase_ == Phase::kResetting || phase_ == Phase::kSilent) return;
  phase_ = Phase::kSilent;
  for (const Direction direction : kDirections) {
    Drop(direction);
    AwaitBytes(direction);
  }
  EndSilentIfDone();
}

void Connection::EndSilentIfDone() {
  for (const Half& way : halves_) {
    if (way.reading != Reading::kEnded && way.source->is_open()) return;
  }
  constexpr std::string_view kWhy = "fell silent";
  if (!client_.is_open() && !server_.is_open()) return Sever(kWhy, Host::End::kClosed);
  timer_.expires_after(
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::duration<double>(host_->options().silence_s)));
  timer_.async_wait([self = shared_from_this(), kWhy](const error_code& error) {
    if (!error) self->Sever(kWhy, Host::End::kClosed);
  });
}

// ---- The end ------------------------------------------------------------------------------------------------------

void Connection::Sever(std::string_view why, Host::End end) {
  if (phase_ == Phase::kOver) return;
  CloseWithReset(client_);
  CloseWithReset(server_);
  End(why, end);
}

void Connection::End(std::string_view why, Host::End end) {
  const auto self = shared_from_this();  // the relay lets go of it
  phase_ = Phase::kOver;
  error_code ignored;
  timer_.cancel(ignored);
  client_.close(ignored);
  server_.close(ignored);
  for (const Direction direction : kDirections) Drop(direction);
  record_.bytes_up = half(Direction::kUp).delivered_bytes;
  record_.bytes_down = half(Direction::kDown).delivered_bytes;
  record_.ended_s = host_->Now();
  record_.end = std::string(why);
  host_->OnEnd(record_, end);
}

}  // namespace updraft::relay::internal
