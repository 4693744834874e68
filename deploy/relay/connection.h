// One connection through the relay. Internal to deploy/relay; everything runs on the relay's thread.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "deploy/relay/byte_queue.h"
#include "deploy/relay/link_queue.h"
#include "deploy/relay/relay.h"

namespace updraft::relay::internal {

using tcp = boost::asio::ip::tcp;

class Connection;

// What a connection needs of the relay.
class Host {
 public:
  virtual ~Host() = default;
  virtual boost::asio::io_context& io() = 0;
  virtual const tcp::endpoint& target() const = 0;
  virtual const RelayOptions& options() const = 0;
  virtual double Now() const = 0;
  virtual void OnBytes(uint64_t connection, Direction direction, std::string_view bytes) = 0;  // entered

  virtual int64_t Room(Direction direction) = 0;
  virtual void Send(Direction direction, const Parcel& parcel) = 0;
  virtual void AwaitRoom(Direction direction, std::weak_ptr<Connection> connection) = 0;  // then RoomAgain is called

  // Bytes that may be delivered before a reset is due; and that so many have been: true when it is due now.
  virtual int64_t BytesUntilReset(Direction direction) const = 0;
  virtual bool OnDelivered(Direction direction, int64_t n_bytes) = 0;

  virtual void OnLost(Direction direction, int64_t n_bytes) = 0;
  virtual void OnRefusedByTarget() = 0;
  enum class End { kClosed, kSevered };  // by its ends, by the road
  virtual void OnEnd(const ConnectionRecord& record, End end) = 0;
};

// Sets what both sockets of a connection have: no delay for small writes, and buffers so small that what waits, waits
// on the road and not in the system.
void SetSocketOptions(tcp::socket& socket);
inline constexpr int kSocketBufferBytes = 64 << 10;

// Programs that this process starts do not inherit it: a socket that they hold open is not severed by closing it here.
void CloseOnExec(int fd);
// With RST, which takes with it what has not been read.
void CloseWithReset(tcp::socket& socket);

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(tcp::socket client, uint64_t id, Host* host);

  void Start();  // sends word of itself up the road
  // Something has come out of the road.
  void Arrive(Direction direction, const Parcel& parcel);
  void RoomAgain(Direction direction);
  // Ends both sides with RST, at once. kClosed: it was an end's doing.
  void Sever(std::string_view why, Host::End end = Host::End::kSevered);
  // From now on it takes everything and says nothing. It is over once neither end has more to say, at once where both
  // are known to be gone and else after RelayOptions::silence_s: who has closed a half cannot be told from who has
  // closed both, and if still there hears RST, not an end that would make whole what is not.
  void FallSilent();

 private:
  enum class Phase {
    kOpening,
    kOpen,
    kSilent,
    kResetting,  // both ends are about to be severed, once one has what lies before the reset
    kOver,
  };
  enum class Reading {
    kNotYet,
    kAwaited,  // the system tells when there is something
    kHeld,     // the road or the window is full
    kEnded,
  };
  enum class Writing {
    kOpen,
    kEnding,  // the end has arrived behind bytes that are still to be written
    kEnded,
    kGone,  // the sink takes no more: what arrives is lost, and a kAbort of the other direction ends it all
  };
  enum class Written { kAll, kSinkFull, kSinkFailed, kResetDue };
  struct Half {
    tcp::socket* source = nullptr;
    tcp::socket* sink = nullptr;
    Reading reading = Reading::kNotYet;
    Writing writing = Writing::kOpen;
    bool write_awaited = false;   // the system tells when the sink takes more
    bool room_awaited = false;    // the relay tells when the road takes more
    ByteQueue held;               // entered and not delivered
    int64_t arrived_bytes = 0;    // of them, out of the road
    int64_t delivered_bytes = 0;  // so far
    int64_t held_bytes() const { return static_cast<int64_t>(held.size()); }
    bool waits_for_window() const { return reading == Reading::kHeld && !room_awaited; }
  };
  Half& half(Direction direction) { return halves_[direction == Direction::kUp ? 0 : 1]; }
  static Direction Opposite(Direction d) { return d == Direction::kUp ? Direction::kDown : Direction::kUp; }

  void ConnectToTarget();
  void AwaitBytes(Direction direction);
  void Read(Direction direction);
  void Discard(Direction direction);
  void EndReading(Direction direction, Mark mark);
  void Write(Direction direction);
  Written WriteArrived(Half* half, Direction direction);
  void AwaitSink(Direction direction);
  void SinkFailed(Direction direction);
  void PopDelivered(Half* half, int64_t n_bytes);
  void Drop(Direction direction);      // all that is held
  void DropGone(Direction direction);  // the same where the sink is gone; reading goes on
  void EndIfDone();
  void CloseSilent(Direction direction);  // its source is gone
  void EndSilentIfDone();
  // Sever, behind what this direction still holds.
  void ResetBehind(Direction direction, std::string_view why, Host::End end);
  void ResetOnceTaken(Direction direction, Host::End end, int64_t taken_bytes, double patience_s);
  void End(std::string_view why, Host::End end);

  const uint64_t id_;
  Host* const host_;
  tcp::socket client_, server_;
  boost::asio::steady_timer timer_;
  Phase phase_ = Phase::kOpening;
  Half halves_[2];
  ConnectionRecord record_;
};

}  // namespace updraft::relay::internal
