// A TCP relay that makes its connections drive a road: what comes in at one end leaves at the other as late, as slowly
// and as interrupted as the road says. For tests of links between live processes, and `updraft relay`.
//
// All connections share one bottleneck in each direction (link_queue.h), whose queue is bounded: when it is full the
// relay reads no more, so that the sender feels it as TCP does. A connection takes a round trip to open. Both ends of a
// connection that is severed see ECONNRESET. An end that dies with a reset, or takes no more, is told to the other one
// by a reset, which travels behind what that end had said and comes when the other one's system has taken that.
//
// Beside the road lies what the system keeps in the buffers of both sockets of a connection: those here ask for 64 kB
// each and get more, and the ends have their own. To a reader that never reads, some 300 kB count as delivered when it
// has seen none of them, and a sender gets rid of 0.5 MB more than the window takes; with the system's own buffers at
// the ends it is 4 MB. The road does not delay these bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "deploy/relay/road.h"

namespace updraft::relay {

// Bytes as they enter the road, before anything may happen to them: what left the sender, also when it never arrives.
// On the relay's thread; must not block.
using Capture = std::function<void(uint64_t connection, Direction direction, std::string_view bytes)>;

// A connection that is over. Times are seconds of the road.
struct ConnectionRecord {
  uint64_t id = 0;   // from 1, in order of arrival
  std::string from;  // HOST:PORT of who connected
  double opened_s = 0.0, ended_s = 0.0;
  int64_t bytes_up = 0, bytes_down = 0;  // delivered
  std::string end;                       // why, in a few words
};

struct LaneCounters {
  int64_t bytes_entered = 0;
  int64_t bytes_delivered = 0;  // to the system of the receiving end
  int64_t bytes_lost = 0;       // of connections that were severed or fell silent; the rest is on the way
};

struct RelayCounters {
  LaneCounters up, down;
  int64_t connections = 0;          // taken
  int64_t connections_refused = 0;  // by the target, or beyond max_connections
  int64_t connections_reset = 0;    // severed by the road or by a call
  int open_connections = 0;
  int64_t peak_held_bytes = 0;  // the most that the relay kept at a time, of all connections
  double seconds = 0.0;         // on the road

  const LaneCounters& lane(Direction direction) const { return direction == Direction::kUp ? up : down; }
};

struct RelayOptions {
  std::string listen = "127.0.0.1:0";  // HOST:PORT; port 0 picks a free one
  std::string to = "";                 // HOST:PORT
  Road road = {};
  int64_t queue_bytes = 256 << 10;  // that wait at the bottleneck, each direction
  // Of one connection and direction between its two ends; TCP's receive window. What this system had taken from an end
  // that died is kept beyond it.
  int64_t window_bytes = 4 << 20;
  int max_connections = 1024;
  uint64_t seed = 1;  // of the jitter
  // Each direction's: once so many bytes have been delivered, the connection that they were for is reset; then the next
  // number counts from there. These bytes arrive and none after them.
  std::vector<int64_t> reset_after_bytes_up = {}, reset_after_bytes_down = {};
  // Any reset that lies behind bytes waits until the system of the receiving end has acknowledged them; but so long at
  // most while that takes none, as when the end does not read and its buffers are full: then the last ones are lost.
  double reset_patience_s = 5.0;
  // How long a connection that fell silent outlives the last word of its ends, which may both wait to hear more.
  double silence_s = 60.0;
  Capture capture = nullptr;
  std::function<void(const ConnectionRecord&)> on_connection_end = nullptr;  // on the relay's thread; must not block

  absl::Status Validate() const;
};

class Relay {
 public:
  static constexpr double kForever = std::numeric_limits<double>::infinity();

  // Listens, and serves from a thread of its own; the road begins now. InvalidArgument for options that cannot work,
  // AlreadyExists for a busy port. The target need not be up yet.
  static absl::StatusOr<std::unique_ptr<Relay>> Start(RelayOptions options);
  ~Relay();  // stops

  int port() const;
  std::string address() const;  // HOST:PORT to connect to

  // What follows: any thread; has happened when it returns. Seconds may be kForever, and 0 for what is over at once.

  RelayCounters counters() const;
  void Cut(double seconds = kForever);        // severs all; who connects is refused
  void Stall(double seconds = kForever);      // nothing leaves the bottlenecks
  void Blackhole(double seconds = kForever);  // connections now and meanwhile fall silent for good
  void Restore();                             // ends all three early
  void Reset();                               // severs all
  // As reset_after_bytes, behind those that are still to come.
  void ResetAfter(Direction direction, int64_t bytes);

  // Severs what is open and ends the thread; not from a callback. Counters stay.
  void Stop();

 private:
  class Impl;
  explicit Relay(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Appends what passes to FOLDER/<connection>.up and .down, which are made. Trouble with a file is told once on stderr.
absl::StatusOr<Capture> CaptureToFolder(const std::string& folder);

}  // namespace updraft::relay
