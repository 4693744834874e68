// Roads written by hand: CSV or JSON lines with the same names.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "deploy/relay/trace.h"

namespace updraft::relay::internal {
namespace {

struct Field {
  const char* name;
  double RoadRow::*value;
  double high;
};

constexpr Field kFields[] = {{"time_s", &RoadRow::time_s, kMaxTime_s},
                             {"rate_up", &RoadRow::rate_up, kMaxRate},
                             {"rate_down", &RoadRow::rate_down, kMaxRate},
                             {"delay_ms", &RoadRow::delay_ms, 1e3 * kMaxDelay_s},
                             {"jitter_ms", &RoadRow::jitter_ms, 1e3 * kMaxDelay_s},
                             {"duration_s", &RoadRow::duration_s, kMaxTime_s}};

const Field* FindField(std::string_view name) {
  const auto at =
      std::find_if(std::begin(kFields), std::end(kFields), [name](const Field& field) { return field.name == name; });
  return at == std::end(kFields) ? nullptr : at;
}

std::string KnownNames() {
  std::vector<std::string> names;
  for (const Field& field : kFields) names.emplace_back(field.name);
  names.emplace_back("event");
  return absl::StrJoin(names, ", ");
}

RoadRow EmptyRow(int line) {
  RoadRow row;
  row.line = line;
  for (const Field& field : kFields) row.*field.value = kNotSaid;
  return row;
}

absl::Status AddEvent(const RoadRow& row, const std::string& file, Trace* trace, double* end_s) {
  const bool lasts = !std::isnan(row.duration_s);
  if (row.event.empty()) {
    return lasts ? TraceError(file, row.line, "duration_s: expected an event that lasts so long, found none")
                 : absl::OkStatus();
  }
  if (row.event == "end") {
    *end_s = row.time_s;
    return absl::OkStatus();
  }
  for (const EventKind kind : {EventKind::kStall, EventKind::kCut, EventKind::kReset, EventKind::kBlackhole}) {
    if (EventKindName(kind) != row.event) continue;
    if ((kind == EventKind::kReset) == lasts) {
      return TraceError(
          file, row.line,
          absl::StrFormat("%s: expected %s", row.event,
                          lasts ? "no duration_s: it is over at once" : "a duration_s: how long it lasts"));
    }
    trace->events.push_back({row.time_s, kind, lasts ? row.duration_s : 0.0});
    return absl::OkStatus();
  }
  return TraceError(
      file, row.line,
      absl::StrFormat("event: expected stall, cut, reset, blackhole or end, found '%s'", Shown(row.event)));
}

// Collects rows into curves.
class Builder {
 public:
  explicit Builder(const std::string& file) : file_(file) {}

  absl::Status Add(const RoadRow& row) {
    if (std::isnan(row.time_s))
      return TraceError(file_, row.line, "expected a number of seconds in time_s, found none");
    if (end_s_ >= 0.0)
      return TraceError(file_, row.line, "expected nothing after the event end; move it to the last line");
    if (row.time_s < last_s_) {
      return TraceError(file_, row.line,
                        absl::StrFormat("expected a time of at least %g s, found %g s: time goes "
                                        "backwards; sort the lines",
                                        last_s_, row.time_s));
    }
    if (row.time_s > last_s_) step_s_ = row.time_s - last_s_;
    last_s_ = row.time_s;
    trace_.last_line = row.line;
    const auto add = [&row](std::vector<StepCurve::Point>* points, double value) {
      if (!std::isnan(value)) points->push_back({row.time_s, value});
    };
    add(&trace_.rate_up, row.rate_up);
    add(&trace_.rate_down, row.rate_down);
    add(&trace_.delay, 1e-3 * row.delay_ms);
    add(&trace_.jitter, 1e-3 * row.jitter_ms);
    return AddEvent(row, file_, &trace_, &end_s_);
  }

  // The last line lasts as long as the one before it; a road of one line has no length of its own.
  Trace Take() {
    trace_.length_s = end_s_ >= 0.0 ? end_s_ : last_s_ + (step_s_ > 0.0 ? step_s_ : 1.0);
    return std::move(trace_);
  }

 private:
  const std::string& file_;
  Trace trace_;
  double last_s_ = 0.0, step_s_ = 0.0, end_s_ = -1.0;
};

absl::StatusOr<RoadRow> RowOfJson(std::string_view line, const std::string& file, int number) {
  const nlohmann::json object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) {
    return TraceError(file, number, "expected one JSON object a line, such as {\"time_s\": 0, \"rate_down\": 1e6}");
  }
  RoadRow row = EmptyRow(number);
  for (const auto& [key, value] : object.items()) {
    if (key == "event") {
      if (!value.is_string()) return TraceError(file, number, "event: expected a string");
      row.event = value.get<std::string>();
      continue;
    }
    const Field* field = FindField(key);
    if (field == nullptr) {
      return TraceError(file, number,
                        absl::StrFormat("expected names out of %s, found '%s'", KnownNames(), Shown(key)));
    }
    const double found = value.is_number() ? value.get<double>() : kNotSaid;
    if (!(found >= 0.0 && found <= field->high)) {
      return TraceError(file, number, absl::StrFormat("%s: expected a number from 0 to %g", field->name, field->high));
    }
    row.*field->value = found;
  }
  return row;
}

}  // namespace

absl::StatusOr<Trace> ParseRoadCsv(std::string_view text, const std::string& file) {
  Lines lines(text);
  if (!lines.Next()) return TraceError(file, 0, "expected a header and rows, found no line at all");
  const std::vector<std::string_view> header = Cells(lines.line());
  for (const std::string_view name : header) {
    if (name == "event" || FindField(name) != nullptr) continue;
    return TraceError(file, lines.number(),
                      absl::StrFormat("expected columns out of %s, found '%s'", KnownNames(), Shown(name)));
  }
  if (std::set<std::string_view>(header.begin(), header.end()).size() != header.size()) {
    return TraceError(file, lines.number(), "expected every column once; remove the second of its name");
  }
  Builder builder(file);
  int n_rows = 0;
  for (; lines.Next(); ++n_rows) {
    const std::vector<std::string_view> cells = Cells(lines.line());
    if (absl::Status status = CheckWidth(header.size(), cells.size(), file, lines.number()); !status.ok())
      return status;
    RoadRow row = EmptyRow(lines.number());
    for (size_t i = 0; i < cells.size(); ++i) {
      if (header[i] == "event") {
        row.event = std::string(cells[i]);
        continue;
      }
      const Field* field = FindField(header[i]);
      auto value = CellNumber(cells[i], file, lines.number(), header[i], 0.0, field->high);
      if (!value.ok()) return value.status();
      row.*field->value = *value;
    }
    if (absl::Status status = builder.Add(row); !status.ok()) return status;
  }
  if (n_rows == 0) return TraceError(file, 0, "expected rows after the header, found none; is the file whole?");
  return builder.Take();
}

absl::StatusOr<Trace> ParseRoadJson(std::string_view text, const std::string& file) {
  Builder builder(file);
  Lines lines(text);
  if (!lines.Next()) return TraceError(file, 0, "expected JSON objects, found no line at all");
  do {
    auto row = RowOfJson(lines.line(), file, lines.number());
    if (!row.ok()) return row.status();
    if (absl::Status status = builder.Add(*row); !status.ok()) return status;
  } while (lines.Next());
  return builder.Take();
}

}  // namespace updraft::relay::internal
