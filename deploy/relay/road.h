// A road: what the link between two processes is like at every moment, in both directions. Made of traces and of
// constants. Pure but for MakeRoad, which reads the files. Times are seconds since the road was entered.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "deploy/relay/step_curve.h"
#include "deploy/relay/trace.h"

namespace updraft::relay {

enum class Direction { kUp, kDown };  // up: from who connects to the relay to where the relay connects
inline constexpr std::array kDirections = {Direction::kUp, Direction::kDown};
std::string_view DirectionName(Direction direction);

inline constexpr double kUnlimited = internal::kMaxRate;  // bytes/s: the rate where nothing says one

// Events of a trace, which may come again with it, and events of their own times.
class EventSchedule {
 public:
  EventSchedule() = default;
  // `events` of a trace in its own time, see StepCurve for the rest; `extra` in this schedule's time. Any order.
  EventSchedule(std::vector<Event> events, double length_s, StepCurve::Beyond beyond, double start_s,
                std::vector<Event> extra);

  // Those with after < time <= until, in order of time. after: negative for the very first.
  std::vector<Event> Between(double after, double until) const;
  // How many those are, without listing them.
  int64_t Count(double after, double until) const;
  // The time of the first one after; infinity when there is none.
  double NextTime(double after) const;
  bool empty() const { return events_.empty() && extra_.empty(); }

 private:
  // Indices [first, last) into events_ of those with after < time <= until in a lap.
  struct Range {
    size_t first = 0, last = 0;
  };
  Range InLap(double lap, double after, double until) const;
  Range Laps(double after, double until) const;  // that may hold some
  double TimeOf(const Event& event, double lap) const { return event.time_s + lap * length_s_ - start_s_; }

  std::vector<Event> events_, extra_;  // sorted
  double length_s_ = 1.0, start_s_ = 0.0;
  StepCurve::Beyond beyond_ = StepCurve::Beyond::kHold;
};

struct RoadLane {                                    // one direction
  StepCurve rate = StepCurve::Constant(kUnlimited);  // bytes/s
  StepCurve delay = StepCurve::Constant(0.0);        // seconds, one way
  StepCurve jitter = StepCurve::Constant(0.0);       // seconds; at most so much is added to the delay
};

struct Road {
  std::string name = "no limits";  // of what it is made, for people
  RoadLane up, down;
  EventSchedule events;

  const RoadLane& lane(Direction direction) const { return direction == Direction::kUp ? up : down; }
};

// What flags say of a road. A constant wins over a file, a file for one direction over one for both.
struct RoadOptions {
  // FILE or FILE#NAME. `trace` gives whatever the file says. A rate of no direction counts for both, unless the file
  // is named like x.down.y or x.up.y and its counterpart lies beside it: then each has its own.
  std::string trace = "", trace_up = "", trace_down = "";
  std::string rtt_trace = "";  // delays alone: half of each round trip in each direction
  TraceFormat format = TraceFormat::kDetect;
  StepCurve::Beyond beyond = StepCurve::Beyond::kHold;
  double start_s = 0.0;  // where in the traces the road begins
  double scale = 1.0;    // of all rates of traces
  double max_gap_s = 60.0;
  std::optional<double> rate_up = {}, rate_down = {};   // bytes/s
  std::optional<double> delay_ms = {}, jitter_ms = {};  // one way
  std::vector<Event> events = {};
};

// InvalidArgument for options that cannot be, with the option's name; for what is wrong with a file see trace.h. A road
// on which nothing would pass for ever is refused.
absl::StatusOr<Road> MakeRoad(const RoadOptions& options);

// Figures of a stretch of road, weighted by time.
struct LaneFacts {
  double mean_rate = 0.0, p5_rate = 0.0, p50_rate = 0.0, p95_rate = 0.0;  // bytes/s
  double zero_share = 0.0, longest_zero_s = 0.0;
  double p50_delay_s = 0.0, p95_delay_s = 0.0;  // one way, without jitter
};
// REQUIRES: 0 <= from_s < to_s.
LaneFacts FactsOf(const RoadLane& lane, double from_s, double to_s);
// "down 1.2 MB/s (5 % under 0.1, longest outage 3.2 s), up ..., delay 9 ms (5 % over 40)": one line.
std::string Describe(const Road& road, double from_s, double to_s);
// How long the longest of its traces is; 0 for a road of constants.
double TraceLength(const Road& road);

}  // namespace updraft::relay
