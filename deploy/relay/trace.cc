#include "deploy/relay/trace.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/files/file_error.h"
#include "common/files/read_file.h"

namespace updraft::relay {

using internal::CellNumber;
using internal::Cells;
using internal::CheckWidth;
using internal::Lines;
using internal::Shown;
using internal::TraceError;

namespace {

constexpr double kPacketBytes = 1500.0;

constexpr std::pair<TraceFormat, std::string_view> kFormats[] = {{TraceFormat::kDetect, "detect"},
                                                                 {TraceFormat::kRoad, "road"},
                                                                 {TraceFormat::kRoadJson, "road-json"},
                                                                 {TraceFormat::kOpportunities, "opportunities"},
                                                                 {TraceFormat::kBins, "bins"},
                                                                 {TraceFormat::kMbps, "mbps"},
                                                                 {TraceFormat::k5g, "5g"},
                                                                 {TraceFormat::kRtt, "rtt"}};

constexpr std::pair<EventKind, std::string_view> kEvents[] = {{EventKind::kStall, "stall"},
                                                              {EventKind::kCut, "cut"},
                                                              {EventKind::kReset, "reset"},
                                                              {EventKind::kBlackhole, "blackhole"}};

// The whole of `text` as a number of the type.
template <typename Number>
bool ParseNumber(std::string_view text, Number* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size();
}

std::string_view Stripped(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\v\f";
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (size_t end; (end = text.find(separator)) != std::string_view::npos; text.remove_prefix(end + 1)) {
    parts.push_back(text.substr(0, end));
  }
  parts.push_back(text);
  return parts;
}

// A recorded CSV: which columns it has and what they count in. Empty names: not there.
struct Dialect {
  TraceFormat format;
  std::string_view group;  // which of several traces a row belongs to
  std::string_view time;
  double time_unit_s;
  std::string_view rate;
  double rate_unit;  // bytes/s; of bins: bytes
  std::string_view rtt;
  double rtt_unit_s;
  std::string_view idle;  // where this column says I, nothing was transferred, and the rate is not known
};

constexpr Dialect kDialects[] = {
    {TraceFormat::kBins, "", "t_ms", 1e-3, "packets_1500B", kPacketBytes, "", 0.0, ""},
    {TraceFormat::kMbps, "trace", "t_s", 1.0, "mbps", 1e6 / 8, "", 0.0, ""},
    {TraceFormat::k5g, "", "t_s", 1.0, "dl_kbps", 1e3 / 8, "ping_avg_ms", 1e-3, "state"},
    {TraceFormat::kRtt, "run", "t_ms", 1e-3, "", 0.0, "delay_ms", 1e-3, ""},
};

// Where a dialect's columns are in a header; -1: not there.
struct Columns {
  int group = -1, time = -1, rate = -1, rtt = -1, idle = -1;
};

std::optional<Columns> FindColumns(const std::vector<std::string_view>& header, const Dialect& dialect) {
  bool all = true;
  const auto find = [&](std::string_view name) {
    if (name.empty()) return -1;
    const auto at = std::find(header.begin(), header.end(), name);
    all = all && at != header.end();
    return static_cast<int>(at - header.begin());
  };
  const Columns columns = {find(dialect.group), find(dialect.time), find(dialect.rate), find(dialect.rtt),
                           find(dialect.idle)};
  return all ? std::optional(columns) : std::nullopt;
}

const Dialect* FindDialect(TraceFormat format) {
  const auto at = std::find_if(std::begin(kDialects), std::end(kDialects),
                               [format](const Dialect& dialect) { return dialect.format == format; });
  return at == std::end(kDialects) ? nullptr : at;
}

absl::StatusOr<TraceFormat> Detect(std::string_view text, const std::string& file) {
  Lines lines(text);
  if (!lines.Next()) {
    return TraceError(file, 0, "expected a trace, found no line at all; is this the right file?");
  }
  if (lines.line().front() == '{') return TraceFormat::kRoadJson;
  const std::vector<std::string_view> cells = Cells(lines.line());
  for (const Dialect& dialect : kDialects) {
    if (FindColumns(cells, dialect)) return dialect.format;
  }
  if (std::find(cells.begin(), cells.end(), "time_s") != cells.end()) return TraceFormat::kRoad;
  uint64_t ms;
  if (cells.size() == 1 && ParseNumber(cells[0], &ms)) return TraceFormat::kOpportunities;
  return TraceError(
      file, lines.number(),
      absl::StrFormat(
          "expected the first line of a trace that is known here, found '%s'; a header with time_s makes a road of our "
          "own, --format names another",
          Shown(lines.line())));
}

// mahimahi: the packets of a millisecond pass evenly in the millisecond that ends at their time (at time 0: the first).
absl::StatusOr<Trace> ParseOpportunities(std::string_view text, const std::string& file) {
  Trace trace;
  Lines lines(text);
  int64_t previous = 0;
  while (lines.Next()) {
    int64_t ms;
    if (!ParseNumber(lines.line(), &ms) || ms < 0 || static_cast<double>(ms) > 1e3 * internal::kMaxTime_s) {
      return TraceError(file, lines.number(),
                        absl::StrFormat("expected one whole number of milliseconds, found '%s'; every line is the time "
                                        "at which a packet may pass",
                                        Shown(lines.line())));
    }
    if (ms < previous) {
      return TraceError(
          file, lines.number(),
          absl::StrFormat("expected a time of at least %d ms, found %d: time goes backwards; sort the file, "
                          "or cut it here",
                          previous, ms));
    }
    previous = ms;
    const double begin = 1e-3 * static_cast<double>(std::max<int64_t>(ms, 1) - 1);
    auto& rate = trace.rate;
    // A step that is open already gets the packet, too; before a new one nothing passes.
    const bool open = rate.size() >= 2 && rate[rate.size() - 2].time_s == begin;
    if (!open) {
      if (rate.empty() && begin > 0.0) rate.push_back({0.0, 0.0});
      if (!rate.empty() && rate.back().time_s == begin) rate.pop_back();
      rate.push_back({begin, 0.0});
      rate.push_back({1e-3 * static_cast<double>(std::max<int64_t>(ms, 1)), 0.0});
    }
    rate[rate.size() - 2].value += 1e3 * kPacketBytes;
    trace.length_s = rate.back().time_s;
    trace.last_line = lines.number();
  }
  // The last point lies at the end, where the trace is over or begins anew.
  if (!trace.rate.empty()) trace.rate.pop_back();
  return trace;
}

// Rows of one time are one reading: the mean of them.
class Series {
 public:
  void Add(double time_s, double value) {
    if (points_.empty() || points_.back().time_s != time_s) {
      points_.push_back({time_s, value});
      n_ = 1;
    } else {
      points_.back().value += (value - points_.back().value) / ++n_;
    }
  }
  std::vector<StepCurve::Point> Take() { return std::move(points_); }

 private:
  std::vector<StepCurve::Point> points_;
  int n_ = 0;
};

// One recorded CSV on its way to a trace.
class TableReader {
 public:
  TableReader(const Dialect& dialect, const std::string& file, const std::string& select, const TraceOptions& options)
      : dialect_(dialect), file_(file), select_(select), options_(options) {}

  absl::StatusOr<Trace> Read(std::string_view text) {
    Lines lines(text);
    if (!lines.Next()) return TraceError(file_, 0, "expected a header and rows, found no line at all");
    const std::vector<std::string_view> header = Cells(lines.line());
    const auto columns = FindColumns(header, dialect_);
    if (!columns) {
      return TraceError(file_, lines.number(),
                        absl::StrFormat("expected a header with %s, found '%s'; is --format %s right?", Names(),
                                        Shown(lines.line()), TraceFormatName(dialect_.format)));
    }
    while (lines.Next()) {
      const std::vector<std::string_view> cells = Cells(lines.line());
      if (absl::Status status = CheckWidth(header.size(), cells.size(), file_, lines.number()); !status.ok())
        return status;
      if (absl::Status status = AddRow(*columns, cells, lines.number()); !status.ok()) return status;
    }
    return Finish();
  }

 private:
  std::string Names() const {
    std::vector<std::string> names;
    for (const std::string_view name : {dialect_.group, dialect_.time, dialect_.rate, dialect_.rtt, dialect_.idle}) {
      if (!name.empty()) names.emplace_back(name);
    }
    return absl::StrJoin(names, ", ");
  }

  absl::Status AddRow(const Columns& columns, const std::vector<std::string_view>& cells, int line) {
    if (columns.group >= 0) {
      const std::string group(cells[columns.group]);
      groups_.insert(group);
      if (group != select_) return absl::OkStatus();
    }
    auto time =
        CellNumber(cells[columns.time], file_, line, dialect_.time, 0.0, internal::kMaxTime_s / dialect_.time_unit_s);
    if (!time.ok()) return time.status();
    if (std::isnan(*time))
      return TraceError(file_, line, absl::StrFormat("expected a time in %s, found none", dialect_.time));
    const double t = *time * dialect_.time_unit_s;
    if (absl::Status status = CheckTime(t, line); !status.ok()) return status;
    if (columns.rate >= 0 && !(columns.idle >= 0 && cells[columns.idle] == "I")) {
      auto rate =
          CellNumber(cells[columns.rate], file_, line, dialect_.rate, 0.0, internal::kMaxRate / dialect_.rate_unit);
      if (!rate.ok()) return rate.status();
      if (!std::isnan(*rate)) rate_.Add(t - first_s_, *rate * dialect_.rate_unit);
    }
    if (columns.rtt >= 0) {
      auto rtt = CellNumber(cells[columns.rtt], file_, line, dialect_.rtt, 0.0,
                            2.0 * internal::kMaxDelay_s / dialect_.rtt_unit_s);
      if (!rtt.ok()) return rtt.status();
      if (!std::isnan(*rtt)) delay_.Add(t - first_s_, 0.5 * *rtt * dialect_.rtt_unit_s);
    }
    return absl::OkStatus();
  }

  absl::Status CheckTime(double t, int line) {
    if (n_rows_++ == 0) {
      first_s_ = last_s_ = t;
      last_line_ = line;
      return absl::OkStatus();
    }
    const double step = t - last_s_;
    if (step < 0.0) {
      return TraceError(file_, line,
                        absl::StrFormat("expected a time of at least %g s, found %g s: time goes backwards; "
                                        "sort the file, or cut it here",
                                        last_s_, t));
    }
    if (step > options_.max_gap_s) {
      return TraceError(
          file_, line,
          absl::StrFormat("expected a reading at least every %g s, found none between %g s and %g s; cut the "
                          "file here, or let the value before stand for it with --max-gap %g",
                          options_.max_gap_s, last_s_, t, std::ceil(step)));
    }
    if (dialect_.format == TraceFormat::kBins) {
      if (n_rows_ == 2) bin_s_ = step;
      if (bin_s_ < internal::kMinLength_s - 1e-6) {
        return TraceError(
            file_, line,
            absl::StrFormat("expected bins of at least a millisecond, found %g s; check the unit of time", bin_s_));
      }
      if (step <= 0.0 || std::abs(step - bin_s_) > 1e-6) {
        return TraceError(file_, line,
                          absl::StrFormat("expected the next bin %g s after the one before, found %g s; fill "
                                          "in what is missing with 0",
                                          bin_s_, step));
      }
    }
    if (step > 0.0) step_s_ = step;
    last_s_ = t;
    last_line_ = line;
    return absl::OkStatus();
  }

  absl::StatusOr<Trace> Finish() {
    if (n_rows_ == 0) return NothingThere();
    Trace trace;
    trace.rate = rate_.Take();
    trace.delay = delay_.Take();
    trace.last_line = last_line_;
    if (dialect_.format == TraceFormat::kBins) {
      if (n_rows_ < 2) return TraceError(file_, last_line_, "expected at least two bins, which tell how long one is");
      for (StepCurve::Point& point : trace.rate) {
        point.value /= bin_s_;
        if (point.value <= internal::kMaxRate) continue;
        return TraceError(file_, 0,
                          absl::StrFormat("%s: expected at most %g bytes/s, found %g in the bin at %g s; check the "
                                          "units",
                                          dialect_.rate, internal::kMaxRate, point.value, point.time_s));
      }
    }
    trace.length_s = last_s_ - first_s_ + std::max(step_s_, internal::kMinLength_s);
    return trace;
  }

  absl::Status NothingThere() const {
    if (groups_.empty()) return TraceError(file_, 0, "expected rows after the header, found none; is the file whole?");
    std::vector<std::string> some;
    for (const std::string& group : groups_) {
      if (some.size() < 5) some.push_back(Shown(group));
    }
    const std::string names = absl::StrCat(absl::StrJoin(some, ", "), groups_.size() > some.size() ? ", ..." : "");
    if (!select_.empty()) {
      return TraceError(file_, 0,
                        absl::StrFormat("holds no trace '%s'; its %d are %s", select_, groups_.size(), names));
    }
    return TraceError(file_, 0,
                      absl::StrFormat("holds %d traces (%s); choose one as FILE#NAME", groups_.size(), names));
  }

  const Dialect& dialect_;
  const std::string& file_;
  const std::string& select_;
  const TraceOptions& options_;
  std::set<std::string> groups_;
  Series rate_, delay_;
  int n_rows_ = 0, last_line_ = 0;
  double first_s_ = 0.0, last_s_ = 0.0, step_s_ = 0.0, bin_s_ = 0.0;
};

absl::StatusOr<Trace> ParseAs(TraceFormat format, std::string_view text, const std::string& file,
                              const std::string& select, const TraceOptions& options) {
  if (const Dialect* dialect = FindDialect(format); dialect != nullptr) {
    if (dialect->group.empty() && !select.empty()) {
      return TraceError(file, 0,
                        absl::StrFormat("holds one trace, expected no name, found '#%s'; leave it out", select));
    }
    return TableReader(*dialect, file, select, options).Read(text);
  }
  if (!select.empty()) {
    return TraceError(file, 0, absl::StrFormat("holds one trace, expected no name, found '#%s'; leave it out", select));
  }
  if (format == TraceFormat::kOpportunities) return ParseOpportunities(text, file);
  return format == TraceFormat::kRoadJson ? internal::ParseRoadJson(text, file) : internal::ParseRoadCsv(text, file);
}

}  // namespace

// ---- Names --------------------------------------------------------------------------------------------------------

absl::StatusOr<TraceFormat> ParseTraceFormat(std::string_view name) {
  std::vector<std::string> names;
  for (const auto& [format, known] : kFormats) {
    if (known == name) return format;
    names.emplace_back(known);
  }
  return absl::InvalidArgumentError(
      absl::StrFormat("expected one of %s, found '%s'", absl::StrJoin(names, ", "), name));
}

std::string_view TraceFormatName(TraceFormat format) {
  for (const auto& [known, name] : kFormats) {
    if (known == format) return name;
  }
  return "?";
}

std::string_view EventKindName(EventKind kind) {
  for (const auto& [known, name] : kEvents) {
    if (known == kind) return name;
  }
  return "?";
}

absl::StatusOr<Event> ParseEvent(std::string_view text) {
  const std::vector<std::string_view> parts = Split(text, ':');
  const auto wrong = [text] {
    return absl::InvalidArgumentError(absl::StrFormat(
        "expected SECONDS:KIND:SECONDS with stall, cut or blackhole, or SECONDS:reset, found '%s'", text));
  };
  Event event;
  if (parts.size() < 2 || parts.size() > 3 || !ParseNumber(parts[0], &event.time_s)) return wrong();
  const auto kind = std::find_if(std::begin(kEvents), std::end(kEvents),
                                 [&parts](const auto& known) { return known.second == parts[1]; });
  if (kind == std::end(kEvents)) return wrong();
  event.kind = kind->first;
  if ((event.kind == EventKind::kReset) != (parts.size() == 2)) return wrong();
  if (parts.size() == 3 && !ParseNumber(parts[2], &event.duration_s)) return wrong();
  for (const double seconds : {event.time_s, event.duration_s}) {
    if (!(seconds >= 0.0 && seconds <= internal::kMaxTime_s)) return wrong();
  }
  return event;
}

// ---- Lines and cells ----------------------------------------------------------------------------------------------

namespace internal {

absl::Status TraceError(const std::string& file, int line, std::string_view what) {
  if (line <= 0) return absl::InvalidArgumentError(absl::StrFormat("%s: %s", file, what));
  return absl::InvalidArgumentError(absl::StrFormat("%s:%d: %s", file, line, what));
}

std::string Shown(std::string_view text) {
  constexpr size_t kMaxBytes = 60;
  std::string shown;
  for (const char c : text.substr(0, kMaxBytes)) shown += c < ' ' || c > '~' ? '?' : c;
  return text.size() > kMaxBytes ? shown + "..." : shown;
}

bool Lines::Next() {
  while (!rest_.empty()) {
    const size_t end = rest_.find('\n');
    line_ = Stripped(rest_.substr(0, end));
    rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
    if (++number_ == 1 && line_.substr(0, 3) == "\xEF\xBB\xBF") line_.remove_prefix(3);
    if (!line_.empty() && line_.front() != '#') return true;
  }
  return false;
}

std::vector<std::string_view> Cells(std::string_view line) {
  std::vector<std::string_view> cells = Split(line, ',');
  for (std::string_view& cell : cells) cell = Stripped(cell);
  return cells;
}

absl::Status CheckWidth(size_t n_header, size_t n_cells, const std::string& file, int line) {
  if (n_cells == n_header) return absl::OkStatus();
  return TraceError(file, line,
                    absl::StrFormat("expected %d cells as in the header, found %d; complete the line, or remove it",
                                    n_header, n_cells));
}

absl::StatusOr<double> CellNumber(std::string_view cell, const std::string& file, int line, std::string_view column,
                                  double low, double high) {
  if (cell.empty() || cell == "-") return kNotSaid;
  double value = 0.0;
  if (!ParseNumber(cell, &value) || !(value >= low && value <= high)) {
    return TraceError(file, line,
                      absl::StrFormat("%s: expected a number from %g to %g, found '%s'; mend or remove the line",
                                      column, low, high, Shown(cell)));
  }
  return value;
}

}  // namespace internal

// ---- Files --------------------------------------------------------------------------------------------------------

absl::StatusOr<Trace> ParseTrace(std::string_view text, const std::string& file, const std::string& select,
                                 const TraceOptions& options) {
  TraceFormat format = options.format;
  if (format == TraceFormat::kDetect) {
    auto detected = Detect(text, file);
    if (!detected.ok()) return detected.status();
    format = *detected;
  }
  auto trace = ParseAs(format, text, file, select, options);
  if (!trace.ok()) return trace.status();
  trace->name = select.empty() ? file : absl::StrCat(file, "#", select);
  const bool says_something = !trace->rate.empty() || !trace->rate_up.empty() || !trace->rate_down.empty() ||
                              !trace->delay.empty() || !trace->jitter.empty() || !trace->events.empty();
  if (!says_something) {
    return TraceError(file, 0, "expected rates, delays or events, found none in any line; is this the right file?");
  }
  if (trace->length_s < internal::kMinLength_s) {
    return TraceError(file, trace->last_line,
                      absl::StrFormat("expected a trace of at least a millisecond, found %g s; add "
                                      "lines, or check the unit of time",
                                      trace->length_s));
  }
  return trace;
}

absl::StatusOr<Trace> LoadTrace(const std::string& path, const TraceOptions& options) {
  const size_t hash = path.rfind('#');
  const std::string file = path.substr(0, hash);
  const std::string select = hash == std::string::npos ? "" : path.substr(hash + 1);
  auto text = ReadFile(file, kMaxTraceBytes);
  if (!text.ok()) return text.status();
  auto trace = ParseTrace(*text, file, select, options);
  if (!trace.ok()) return AsFileError(trace.status());
  return trace;
}

}  // namespace updraft::relay
