// Recorded and hand-written roads as files. Parsing is pure: text in, numbers or an error with file and line out.
#pragma once

#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "deploy/relay/step_curve.h"

namespace updraft::relay {

enum class TraceFormat {
  kDetect,         // by the first line
  kRoad,           // our own, CSV: time_s and any of rate_up, rate_down, delay_ms, jitter_ms, event, duration_s
  kRoadJson,       // the same names as one JSON object a line
  kOpportunities,  // mahimahi: a line per packet of 1500 bytes that may pass, its time in ms
  kBins,           // t_ms,packets_1500B: the same, counted in bins of equal length
  kMbps,           // trace,t_s,mbps: many traces in a file (HSDPA of Norway, Oboe)
  k5g,             // t_s,...,dl_kbps,...,state,ping_avg_ms: rate while something was transferred (state not I), ping
  kRtt,            // run,t_ms,delay_ms: round trips, many runs in a file
};

// detect, road, road-json, opportunities, bins, mbps, 5g, rtt. InvalidArgument names them all.
absl::StatusOr<TraceFormat> ParseTraceFormat(std::string_view name);
std::string_view TraceFormatName(TraceFormat format);

// Something that happens to all connections at once.
enum class EventKind {
  kStall,      // nothing passes for a while; then it goes on
  kCut,        // connections are severed, new ones are refused for a while
  kReset,      // connections are severed
  kBlackhole,  // connections of before and of the while say nothing ever more, and are not severed either
};
std::string_view EventKindName(EventKind kind);

struct Event {
  double time_s = 0.0;
  EventKind kind = EventKind::kStall;
  double duration_s = 0.0;
};

// "10:cut:5", "12.5:reset": what --event takes.
absl::StatusOr<Event> ParseEvent(std::string_view text);

// What one file says of a road. Curves that it says nothing of are empty.
struct Trace {
  std::string name;                    // FILE or FILE#NAME
  std::vector<StepCurve::Point> rate;  // bytes/s, of whichever direction was recorded
  std::vector<StepCurve::Point> rate_up, rate_down;
  std::vector<StepCurve::Point> delay, jitter;  // seconds, one way
  std::vector<Event> events;
  double length_s = 0.0;
  int last_line = 0;  // for errors about how it ends
};

struct TraceOptions {
  TraceFormat format = TraceFormat::kDetect;
  double max_gap_s =
      60.0;  // between two readings of a recorded trace; in hand-written ones a step may be as long as it likes
};

constexpr size_t kMaxTraceBytes = size_t{64} << 20;

// `file` names the text in errors; `select` chooses one of many traces in it, empty where there is one.
// InvalidArgument: "FILE:LINE: expected ..., found ...; what to do".
absl::StatusOr<Trace> ParseTrace(std::string_view text, const std::string& file, const std::string& select,
                                 const TraceOptions& options);

// `path`: FILE or FILE#NAME. What is wrong inside a file is DataLoss; NotFound when it is not there.
absl::StatusOr<Trace> LoadTrace(const std::string& path, const TraceOptions& options);

namespace internal {

// One line of a hand-written road. NaN: not said, the value of before stays.
struct RoadRow {
  int line = 0;
  double time_s = 0.0, rate_up = 0.0, rate_down = 0.0, delay_ms = 0.0, jitter_ms = 0.0, duration_s = 0.0;
  std::string event;
};

absl::StatusOr<Trace> ParseRoadCsv(std::string_view text, const std::string& file);
absl::StatusOr<Trace> ParseRoadJson(std::string_view text, const std::string& file);
absl::Status TraceError(const std::string& file, int line, std::string_view what);

constexpr double kNotSaid = std::numeric_limits<double>::quiet_NaN();
constexpr double kMaxTime_s = 1e8;  // three years
constexpr double kMaxRate = 1e10;   // bytes/s
constexpr double kMaxDelay_s = 600.0;
constexpr double kMinLength_s = 1e-3;

// Walks the lines of a text: without their ends, blank ones and those that begin with # left out.
class Lines {
 public:
  explicit Lines(std::string_view text) : rest_(text) {}
  bool Next();
  std::string_view line() const { return line_; }
  int number() const { return number_; }  // from 1; 0 before the first

 private:
  std::string_view rest_, line_;
  int number_ = 0;
};

// The beginning of a text from outside, fit for one line of an error.
std::string Shown(std::string_view text);

// The cells of a line, without blanks around them.
std::vector<std::string_view> Cells(std::string_view line);

// Whether a row has as many cells as the header.
absl::Status CheckWidth(size_t n_header, size_t n_cells, const std::string& file, int line);

// A number of a cell within [low, high]; NaN where the cell is empty or "-". `file`, `line` and `column` are for
// errors.
absl::StatusOr<double> CellNumber(std::string_view cell, const std::string& file, int line, std::string_view column,
                                  double low, double high);

}  // namespace internal

}  // namespace updraft::relay
