// Steady time: the one clock for deadlines, ages, waits and rates. The wall clock may be stepped by hours while
// requests run; it is read for log lines, for HTTP's Date, for the `created` of OpenAI's objects and for the date of a
// report, nowhere else. On the wire a deadline travels as the time that is left (gRPC does so itself).
//
// A point in time is a type of its own, so that a wall time cannot be passed for one. Durations are absl::Duration.
// Pure parts (routing, engine) take times as arguments; daemons pass SteadyNow, tests a clock of their own.
#pragma once

#include <algorithm>
#include <chrono>
#include <functional>

#include "absl/time/time.h"

namespace updraft {

class SteadyTime {
 public:
  constexpr SteadyTime() = default;  // the origin: no meaning of its own
  static constexpr SteadyTime FromOrigin(absl::Duration since) { return SteadyTime(since); }
  static constexpr SteadyTime InfiniteFuture() { return SteadyTime(absl::InfiniteDuration()); }
  static constexpr SteadyTime InfinitePast() { return SteadyTime(-absl::InfiniteDuration()); }

  constexpr absl::Duration since_origin() const { return since_origin_; }
  // For arithmetic in seconds, as the routing does it; the origin is the process's own and says nothing outside of it.
  double seconds() const { return absl::ToDoubleSeconds(since_origin_); }

  friend SteadyTime operator+(SteadyTime t, absl::Duration d) { return SteadyTime(t.since_origin_ + d); }
  friend SteadyTime operator-(SteadyTime t, absl::Duration d) { return SteadyTime(t.since_origin_ - d); }
  friend absl::Duration operator-(SteadyTime a, SteadyTime b) { return a.since_origin_ - b.since_origin_; }
  friend constexpr bool operator==(SteadyTime a, SteadyTime b) { return a.since_origin_ == b.since_origin_; }
  friend constexpr bool operator!=(SteadyTime a, SteadyTime b) { return !(a == b); }
  friend constexpr bool operator<(SteadyTime a, SteadyTime b) { return a.since_origin_ < b.since_origin_; }
  friend constexpr bool operator>(SteadyTime a, SteadyTime b) { return b < a; }
  friend constexpr bool operator<=(SteadyTime a, SteadyTime b) { return !(b < a); }
  friend constexpr bool operator>=(SteadyTime a, SteadyTime b) { return !(a < b); }

 private:
  explicit constexpr SteadyTime(absl::Duration since_origin) : since_origin_(since_origin) {}
  absl::Duration since_origin_;
};

// Any thread.
inline SteadyTime SteadyNow() {
  return SteadyTime::FromOrigin(absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch()));
}

using SteadyClock = std::function<SteadyTime()>;

// For waits of the standard library. Beyond a century the sum would overflow the clock's own type.
inline std::chrono::steady_clock::time_point ToStdSteady(SteadyTime time) {
  const absl::Duration latest = SteadyNow().since_origin() + absl::Hours(876000);
  const absl::Duration since_origin = std::clamp(time.since_origin(), absl::ZeroDuration(), latest);
  return std::chrono::steady_clock::time_point(absl::ToChronoNanoseconds(since_origin));
}

}  // namespace updraft
