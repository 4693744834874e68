// One direction of a link: a bottleneck that all connections share, first in, first out, then the way. Pure: bytes are
// counted, not kept, and time is an argument, in seconds of the road.
//
// The bottleneck serves at the road's rate, which it does not save up while idle. What enters is cut into segments of
// at most 1500 bytes; each leaves when the rate's integral has covered its last byte and arrives a delay and a jitter
// later, never before what left earlier: links of this kind (LTE, 5G, wires) keep order. So, at every time t,
//   bytes arrived <= integral of the rate over [0, t].
#pragma once

#include <cstdint>
#include <deque>
#include <limits>
#include <vector>

#include "deploy/relay/road.h"
#include "deploy/relay/step_curve.h"

namespace updraft::relay {

// A rate with interruptions that become known on the way.
class InterruptedRate {
 public:
  explicit InterruptedRate(StepCurve rate) : rate_(std::move(rate)) {}

  double At(double t) const;
  double Integral(double t) const;
  double Inverse(double amount) const;  // as StepCurve's

  // Rate 0 from `from` to `until`, which may be infinite. REQUIRES: from >= those of before.
  void Interrupt(double from, double until);
  // The interruption that is going on at t, if any, ends there.
  void Resume(double t);

 private:
  struct Gap {
    double from = 0.0, until = 0.0;
    double before = 0.0;  // Integral(from)
    double lost = 0.0;    // of rate_ in the gaps before this one
  };
  double Lost(const Gap& gap, double t) const;  // in gaps before, and in this one up to t

  StepCurve rate_;
  std::vector<Gap> gaps_;  // disjoint, ascending
};

// What passes: bytes of a stream, or a word about it that takes as long as a header.
enum class Mark : uint8_t { kData, kOpen, kOpened, kEnd, kAbort };

struct Parcel {
  uint64_t stream = 0;
  Mark mark = Mark::kData;
  int64_t n_bytes = 0;  // of kData
};

struct LinkQueueOptions {
  int64_t queue_bytes = 256 << 10;  // what may wait at the bottleneck
  uint64_t seed = 1;                // of the jitter
  // Neighbours on the way that are data of one stream and arrive within the same tick arrive together, with the last of
  // them, and are kept as one: so a stream that has the road to itself takes no more memory there for being sent in
  // small pieces. Streams that take turns are kept apart. 0: only neighbours that arrive at one time.
  double tick_s = 0.0;
};

class LinkQueue {
 public:
  static constexpr int64_t kSegmentBytes = 1500;
  static constexpr int64_t kMarkBytes = 40;  // of a mark, on the bottleneck
  static constexpr double kNever = std::numeric_limits<double>::infinity();

  LinkQueue(RoadLane lane, const LinkQueueOptions& options);

  // `now` never goes back: an earlier one counts as the latest.

  // Bytes that the queue takes at this time.
  int64_t Room(double now);
  // REQUIRES: n_bytes of data in 1..Room(now). Marks always find room.
  void Push(const Parcel& parcel, double now);
  // Appends what has arrived by `now`, in order; data of one stream that follows itself is one parcel.
  void Pop(double now, std::vector<Parcel>* arrived);

  // When there is something to Pop, at the earliest; when the queue has more room than now. kNever: not before a Push.
  double NextArrival() const;
  double NextRoom() const;

  // Nothing leaves the bottleneck from `from` (or the latest now) to `until`; see InterruptedRate.
  void Stall(double from, double until);
  void Resume(double now);
  // All that is on the way is lost, and holds up nothing that comes after.
  void Clear(double now);

  int64_t queued_bytes() const { return queued_bytes_; }  // of data, at the bottleneck
  size_t n_in_flight() const { return flight_.size(); }   // pieces kept of what has left it
  const InterruptedRate& rate() const { return rate_; }

 private:
  struct Segment {
    Parcel parcel;
    double arrives = 0.0;  // once it has left
  };
  void Advance(double now);
  void StartHead(double amount);  // its service begins where the integral of the rate is that
  double ArrivalOf(double leaves) const;
  void Fly(const Segment& segment);
  bool InOneTick(double a, double b) const;

  InterruptedRate rate_;
  const StepCurve delay_, jitter_;
  const LinkQueueOptions options_;
  std::deque<Segment> queue_;   // the front is being served
  std::deque<Segment> flight_;  // has left the bottleneck
  double now_ = 0.0;
  double served_ = 0.0;  // the rate's integral when the service of the front began
  double head_leaves_ = kNever;
  double last_arrival_ = 0.0;
  uint64_t n_left_ = 0;  // segments so far, which number the jitter
  int64_t queued_bytes_ = 0;
};

}  // namespace updraft::relay
