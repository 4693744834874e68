#include "deploy/relay/road.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/files/file_error.h"

namespace updraft::relay {
namespace {

using Beyond = StepCurve::Beyond;
using Points = std::vector<StepCurve::Point>;

bool Earlier(const Event& a, const Event& b) { return a.time_s < b.time_s; }

// ---- Which file says what -----------------------------------------------------------------------------------------

// x.down.y beside x.up.y: the other one's path, if both are named so and it exists.
std::string Counterpart(const std::string& path, const char* mine, const char* other) {
  const std::filesystem::path file = path.substr(0, path.rfind('#'));
  const std::string name = file.filename().string();
  const size_t at = name.rfind(mine);
  const size_t end = at + std::string_view(mine).size();
  if (at == std::string::npos || (end != name.size() && name[end] != '.')) return "";
  const std::filesystem::path found = file.parent_path() / (name.substr(0, at) + other + name.substr(end));
  std::error_code error;
  return std::filesystem::exists(found, error) ? found.string() : "";
}

struct Sources {
  std::optional<Trace> both, up, down, rtt;
};

absl::Status Load(const std::string& path, const RoadOptions& options, TraceFormat format,
                  std::optional<Trace>* trace) {
  if (path.empty()) return absl::OkStatus();
  auto loaded = LoadTrace(path, {.format = format, .max_gap_s = options.max_gap_s});
  if (!loaded.ok()) return loaded.status();
  if (options.beyond == Beyond::kHold && options.start_s >= loaded->length_s) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "--start: expected a time within '%s', which is %g s long, found %g s; start earlier, or --loop", path,
        loaded->length_s, options.start_s));
  }
  *trace = *std::move(loaded);
  return absl::OkStatus();
}

absl::StatusOr<Sources> LoadAll(const RoadOptions& options) {
  Sources sources;
  std::string trace = options.trace, up = options.trace_up, down = options.trace_down;
  if (up.empty() && down.empty()) {
    if (std::string other = Counterpart(trace, ".down", ".up"); !other.empty()) {
      down = std::exchange(trace, "");
      up = other;
    } else if (other = Counterpart(trace, ".up", ".down"); !other.empty()) {
      up = std::exchange(trace, "");
      down = other;
    }
  }
  for (auto [path, into] : {std::pair(&trace, &sources.both), {&up, &sources.up}, {&down, &sources.down}}) {
    if (absl::Status status = Load(*path, options, options.format, into); !status.ok()) return status;
  }
  if (absl::Status status = Load(options.rtt_trace, options, TraceFormat::kDetect, &sources.rtt); !status.ok()) {
    return status;
  }
  return sources;
}

// ---- Curves -------------------------------------------------------------------------------------------------------

StepCurve CurveOf(const Trace& trace, const Points& points, const RoadOptions& options, double scale) {
  Points scaled = points;
  for (StepCurve::Point& point : scaled) point.value *= scale;
  return StepCurve(std::move(scaled), trace.length_s, options.beyond, options.start_s);
}

// Nothing would pass, now or from some time on.
absl::Status CheckPasses(const Trace& trace, const StepCurve& rate) {
  const bool any = std::any_of(rate.points().begin(), rate.points().end(),
                               [](const StepCurve::Point& point) { return point.value > 0.0; });
  if (!any) {
    return absl::DataLossError(absl::StrCat(
        trace.name,
        ": expected a rate above 0 somewhere, found 0 in every line: nothing would ever pass; is it the right "
        "column and direction?"));
  }
  if (rate.beyond() == Beyond::kHold && rate.points().back().value <= 0.0) {
    return absl::DataLossError(
        absl::StrFormat("%s:%d: expected a rate above 0 at the end, found 0: nothing would pass after %g s for ever; "
                        "let it begin again "
                        "with --loop, or append a line",
                        trace.name, trace.last_line, rate.points().back().time_s));
  }
  return absl::OkStatus();
}

absl::Status SetRate(const Sources& sources, Direction direction, const RoadOptions& options, RoadLane* lane) {
  const bool up = direction == Direction::kUp;
  if (const auto& constant = up ? options.rate_up : options.rate_down; constant.has_value()) {
    lane->rate = StepCurve::Constant(*constant);
    return absl::OkStatus();
  }
  for (const auto* trace : {up ? &sources.up : &sources.down, &sources.both}) {
    if (!trace->has_value()) continue;
    const Points& own = up ? (*trace)->rate_up : (*trace)->rate_down;
    const Points& points = own.empty() ? (*trace)->rate : own;
    if (points.empty()) continue;
    lane->rate = CurveOf(**trace, points, options, options.scale);
    return CheckPasses(**trace, lane->rate);
  }
  return absl::OkStatus();
}

void SetDelay(const Sources& sources, Direction direction, const RoadOptions& options, RoadLane* lane) {
  const auto& own = direction == Direction::kUp ? sources.up : sources.down;
  bool has_delay = options.delay_ms.has_value(), has_jitter = options.jitter_ms.has_value();
  if (has_delay) lane->delay = StepCurve::Constant(1e-3 * *options.delay_ms);
  if (has_jitter) lane->jitter = StepCurve::Constant(1e-3 * *options.jitter_ms);
  for (const auto* trace : {&sources.rtt, &own, &sources.both}) {
    if (!trace->has_value()) continue;
    if (!has_delay && !(*trace)->delay.empty()) {
      lane->delay = CurveOf(**trace, (*trace)->delay, options, 1.0);
      has_delay = true;
    }
    if (!has_jitter && !(*trace)->jitter.empty()) {
      lane->jitter = CurveOf(**trace, (*trace)->jitter, options, 1.0);
      has_jitter = true;
    }
  }
}

absl::Status CheckRange(const char* flag, std::optional<double> value, double low, double high) {
  if (!value.has_value() || (*value >= low && *value <= high)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat("%s: expected %g to %g, found %g", flag, low, high, *value));
}

absl::Status CheckOptions(const RoadOptions& options) {
  const double max_delay_ms = 1e3 * internal::kMaxDelay_s;
  for (const absl::Status& status : {CheckRange("--rate-up", options.rate_up, 1.0, kUnlimited),
                                     CheckRange("--rate-down", options.rate_down, 1.0, kUnlimited),
                                     CheckRange("--delay-ms", options.delay_ms, 0.0, max_delay_ms),
                                     CheckRange("--jitter-ms", options.jitter_ms, 0.0, max_delay_ms),
                                     CheckRange("--start", options.start_s, 0.0, internal::kMaxTime_s),
                                     CheckRange("--scale", options.scale, 1e-6, 1e6),
                                     CheckRange("--max-gap", options.max_gap_s, 1e-3, internal::kMaxTime_s)}) {
    if (!status.ok()) return status;
  }
  if (!options.trace.empty() && !options.trace_up.empty() && !options.trace_down.empty()) {
    return absl::InvalidArgumentError(
        "--trace: expected it without --trace-up and --trace-down, which say everything already");
  }
  return absl::OkStatus();
}

std::string NameOf(const RoadOptions& options, const Sources& sources) {
  std::vector<std::string> parts;
  const auto base = [](const Trace& trace) { return std::filesystem::path(trace.name).filename().string(); };
  if (sources.both) parts.push_back(base(*sources.both));
  if (sources.down) parts.push_back("down " + base(*sources.down));
  if (sources.up) parts.push_back("up " + base(*sources.up));
  if (sources.rtt) parts.push_back("delay " + base(*sources.rtt));
  if (options.rate_down) parts.push_back(absl::StrFormat("down %g B/s", *options.rate_down));
  if (options.rate_up) parts.push_back(absl::StrFormat("up %g B/s", *options.rate_up));
  if (options.delay_ms) parts.push_back(absl::StrFormat("delay %g ms", *options.delay_ms));
  if (options.jitter_ms) parts.push_back(absl::StrFormat("jitter %g ms", *options.jitter_ms));
  return parts.empty() ? "no limits" : absl::StrJoin(parts, ", ");
}

}  // namespace

std::string_view DirectionName(Direction direction) { return direction == Direction::kUp ? "up" : "down"; }

// ---- Events -------------------------------------------------------------------------------------------------------

EventSchedule::EventSchedule(std::vector<Event> events, double length_s, Beyond beyond, double start_s,
                             std::vector<Event> extra)
    : events_(std::move(events)), extra_(std::move(extra)), length_s_(length_s), start_s_(start_s), beyond_(beyond) {
  std::stable_sort(events_.begin(), events_.end(), Earlier);
  std::stable_sort(extra_.begin(), extra_.end(), Earlier);
}

// Rounding keeps the order of times within a lap, so that what holds for one holds for all behind it.
EventSchedule::Range EventSchedule::InLap(double lap, double after, double until) const {
  const auto first = std::partition_point(events_.begin(), events_.end(), [&](const Event& event) {
    return TimeOf(event, lap) <= after || TimeOf(event, lap) < 0.0;
  });
  const auto last =
      std::partition_point(first, events_.end(), [&](const Event& event) { return TimeOf(event, lap) <= until; });
  return {static_cast<size_t>(first - events_.begin()), static_cast<size_t>(last - events_.begin())};
}

EventSchedule::Range EventSchedule::Laps(double after, double until) const {
  if (events_.empty() || until < 0.0) return {0, 0};
  if (beyond_ != Beyond::kRepeat) return {0, 1};
  // One more in front: an event may lie at the very end of its lap.
  const double first = std::max(0.0, std::floor((std::max(after, 0.0) + start_s_) / length_s_) - 1.0);
  const double last = std::floor((until + start_s_) / length_s_);
  return {static_cast<size_t>(first), static_cast<size_t>(std::max(first, last + 1.0))};
}

std::vector<Event> EventSchedule::Between(double after, double until) const {
  std::vector<Event> found;
  const auto begin = std::partition_point(
      extra_.begin(), extra_.end(), [&](const Event& event) { return event.time_s <= after || event.time_s < 0.0; });
  for (auto at = begin; at != extra_.end() && at->time_s <= until; ++at) found.push_back(*at);
  const Range laps = Laps(after, until);
  for (size_t lap = laps.first; lap < laps.last; ++lap) {
    const Range range = InLap(static_cast<double>(lap), after, until);
    for (size_t i = range.first; i < range.last; ++i) {
      found.push_back(events_[i]);
      found.back().time_s = TimeOf(events_[i], static_cast<double>(lap));
    }
  }
  std::stable_sort(found.begin(), found.end(), Earlier);
  return found;
}

int64_t EventSchedule::Count(double after, double until) const {
  int64_t n = std::count_if(extra_.begin(), extra_.end(), [&](const Event& event) {
    return event.time_s > after && event.time_s <= until && event.time_s >= 0.0;
  });
  // All but a few laps at both ends lie inside.
  constexpr size_t kAtAnEnd = 3;
  const Range laps = Laps(after, until);
  for (size_t lap = laps.first; lap < laps.last; ++lap) {
    if (lap == laps.first + kAtAnEnd && laps.last - lap > kAtAnEnd) {
      const size_t n_inside = laps.last - kAtAnEnd - lap;
      n += static_cast<int64_t>(n_inside * events_.size());
      lap += n_inside;
    }
    const Range range = InLap(static_cast<double>(lap), after, until);
    n += static_cast<int64_t>(range.last - range.first);
  }
  return n;
}

double EventSchedule::NextTime(double after) const {
  constexpr double kNever = std::numeric_limits<double>::infinity();
  const auto extra = std::partition_point(
      extra_.begin(), extra_.end(), [&](const Event& event) { return event.time_s <= after || event.time_s < 0.0; });
  double next = extra == extra_.end() ? kNever : extra->time_s;
  if (events_.empty()) return next;
  const size_t first = Laps(after, std::max(after, 0.0)).first;
  const size_t last = beyond_ == Beyond::kRepeat ? first + 4 : 1;
  for (size_t lap = first; lap < last; ++lap) {
    const Range range = InLap(static_cast<double>(lap), after, kNever);
    if (range.first < events_.size()) next = std::min(next, TimeOf(events_[range.first], static_cast<double>(lap)));
  }
  return next;
}

// ---- Roads --------------------------------------------------------------------------------------------------------

absl::StatusOr<Road> MakeRoad(const RoadOptions& options) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  auto sources = LoadAll(options);
  if (!sources.ok()) return sources.status();
  if (sources->rtt && sources->rtt->delay.empty()) {
    return absl::DataLossError(absl::StrCat(sources->rtt->name,
                                            ": expected delays, found none; --rtt-trace takes a file "
                                            "of round trips, --trace one of rates"));
  }
  Road road;
  road.name = NameOf(options, *sources);
  for (const Direction direction : kDirections) {
    RoadLane* lane = direction == Direction::kUp ? &road.up : &road.down;
    if (absl::Status status = SetRate(*sources, direction, options, lane); !status.ok()) return status;
    SetDelay(*sources, direction, options, lane);
  }
  // Files for one direction may hold events as well; all count, those of the longest file's lap.
  std::vector<Event> events;
  double length_s = 0.0;
  for (const auto* trace : {&sources->both, &sources->up, &sources->down, &sources->rtt}) {
    if (!trace->has_value() || (*trace)->events.empty()) continue;
    events.insert(events.end(), (*trace)->events.begin(), (*trace)->events.end());
    length_s = std::max(length_s, (*trace)->length_s);
  }
  if (events.empty()) length_s = 1.0;  // of nothing
  road.events = EventSchedule(std::move(events), length_s, options.beyond, options.start_s, options.events);
  return road;
}

// ---- Facts --------------------------------------------------------------------------------------------------------

namespace {

// Pieces of equal value of a curve between two times; of so many that they say nothing new, the first.
std::vector<std::pair<double, double>> Pieces(const StepCurve& curve, double from_s, double to_s) {
  std::vector<std::pair<double, double>> pieces;  // value, seconds
  if (curve.points().size() == 1) return {{curve.points().front().value, to_s - from_s}};
  const size_t enough = std::max<size_t>(1'000'000, 2 * curve.points().size());
  double t = from_s;
  while (t < to_s && pieces.size() < enough) {
    double own = t + curve.start_s(), lap = 0.0;
    if (curve.beyond() == Beyond::kRepeat) {
      lap = std::floor(own / curve.length_s()) * curve.length_s();
      own -= lap;
    }
    const auto next = std::upper_bound(curve.points().begin(), curve.points().end(), own,
                                       [](double time, const StepCurve::Point& point) { return time < point.time_s; });
    double end = next == curve.points().end() ? to_s : next->time_s + lap - curve.start_s();
    if (next == curve.points().end() && curve.beyond() == Beyond::kRepeat)
      end = lap + curve.length_s() - curve.start_s();
    end = std::clamp(end, std::nextafter(t, to_s), to_s);
    pieces.emplace_back(std::prev(next)->value, end - t);
    t = end;
  }
  return pieces;
}

double WeightedQuantile(std::vector<std::pair<double, double>> pieces, double quantile) {
  std::sort(pieces.begin(), pieces.end());
  double total = 0.0, below = 0.0;
  for (const auto& [value, seconds] : pieces) total += seconds;
  for (const auto& [value, seconds] : pieces) {
    below += seconds;
    if (below >= quantile * total) return value;
  }
  return pieces.empty() ? 0.0 : pieces.back().first;
}

std::string RateText(double rate) {
  if (rate >= kUnlimited) return "unlimited";
  if (rate >= 1e6) return absl::StrFormat("%.2f MB/s", rate / 1e6);
  if (rate >= 1e3) return absl::StrFormat("%.0f kB/s", rate / 1e3);
  return absl::StrFormat("%.0f B/s", rate);
}

std::string LaneText(const LaneFacts& facts) {
  if (facts.p5_rate >= kUnlimited) return "unlimited";
  std::string text = RateText(facts.mean_rate);
  if (facts.p5_rate != facts.p95_rate) {
    absl::StrAppendFormat(&text, " (5 %% of the time under %s, longest outage %.1f s)", RateText(facts.p5_rate),
                          facts.longest_zero_s);
  }
  return text;
}

std::string DelayText(const LaneFacts& facts) {
  std::string text = absl::StrFormat("%.1f ms one way", 1e3 * facts.p50_delay_s);
  if (facts.p95_delay_s != facts.p50_delay_s) {
    absl::StrAppendFormat(&text, " (5 %% of the time over %.1f)", 1e3 * facts.p95_delay_s);
  }
  return text;
}

}  // namespace

LaneFacts FactsOf(const RoadLane& lane, double from_s, double to_s) {
  LaneFacts facts;
  const auto rates = Pieces(lane.rate, from_s, to_s);
  double zero_s = 0.0, run_s = 0.0;
  for (const auto& [rate, seconds] : rates) {
    run_s = rate > 0.0 ? 0.0 : run_s + seconds;
    zero_s += rate > 0.0 ? 0.0 : seconds;
    facts.longest_zero_s = std::max(facts.longest_zero_s, run_s);
  }
  facts.zero_share = zero_s / (to_s - from_s);
  facts.mean_rate = (lane.rate.Integral(to_s) - lane.rate.Integral(from_s)) / (to_s - from_s);
  facts.p5_rate = WeightedQuantile(rates, 0.05);
  facts.p50_rate = WeightedQuantile(rates, 0.5);
  facts.p95_rate = WeightedQuantile(rates, 0.95);
  const auto delays = Pieces(lane.delay, from_s, to_s);
  facts.p50_delay_s = WeightedQuantile(delays, 0.5);
  facts.p95_delay_s = WeightedQuantile(delays, 0.95);
  return facts;
}

std::string Describe(const Road& road, double from_s, double to_s) {
  const LaneFacts down = FactsOf(road.down, from_s, to_s), up = FactsOf(road.up, from_s, to_s);
  std::string text = absl::StrCat("down ", LaneText(down), ", up ", LaneText(up));
  const std::string down_delay = DelayText(down), up_delay = DelayText(up);
  absl::StrAppend(&text, ", delay ", down_delay);
  if (up_delay != down_delay) absl::StrAppend(&text, " down, ", up_delay, " up");
  if (const int64_t n = road.events.Count(from_s == 0.0 ? -1.0 : from_s, to_s); n > 0) {
    absl::StrAppendFormat(&text, ", %d events", n);
  }
  return text;
}

double TraceLength(const Road& road) {
  double length_s = 0.0;
  for (const RoadLane* lane : {&road.up, &road.down}) {
    for (const StepCurve* curve : {&lane->rate, &lane->delay, &lane->jitter}) {
      if (curve->points().size() > 1) length_s = std::max(length_s, curve->length_s());
    }
  }
  return length_s;
}

}  // namespace updraft::relay
