#include "deploy/router/outcomes.h"

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/files/read_file.h"
#include "common/json/nesting.h"
#include "common/text/field_hasher.h"
#include "deploy/router/csv.h"

namespace updraft {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 16;
const char* const kWeakNames[] = {"weak", "weak_correct", "weak_score"};
const char* const kStrongNames[] = {"strong", "strong_correct", "strong_score"};

// A field of a row as text; nullopt: the row has none of this name.
using FieldOf = std::function<std::optional<std::string>(const std::string& name)>;

absl::StatusOr<double> Rightness(const FieldOf& field, std::span<const char* const> names) {
  for (const char* name : names) {
    const auto text = field(name);
    if (!text) continue;
    double value = 0.0;
    bool yes = false;
    if (absl::SimpleAtod(*text, &value)) {  // which leaves a 0 where it fails
      if (value >= 0.0 && value <= 1.0) return value;
    } else if (absl::SimpleAtob(*text, &yes)) {
      return yes ? 1.0 : 0.0;
    }
    return absl::InvalidArgumentError(
        absl::StrFormat("\"%s\": expected true, false or a number in [0, 1], found '%s'", name, text->substr(0, 40)));
  }
  return absl::InvalidArgumentError(absl::StrCat("expected one of \"", absl::StrJoin(names, "\", \""), "\""));
}

// Whether `without` says to leave this row out. `known` is set where the row has it.
bool LeftOut(const FieldOf& field, const std::string& without, bool* known) {
  if (without.empty()) return false;
  const auto text = field(without);
  if (!text) return false;
  *known = true;
  return !text->empty() && *text != "0" && *text != "false" && *text != "False" && *text != "null";
}

absl::StatusOr<RouterOutcome> OutcomeOf(const FieldOf& field) {
  const auto prompt = field("prompt");
  if (!prompt || prompt->find_first_not_of(" \t\r\n") == std::string::npos) {
    return absl::InvalidArgumentError("expected \"prompt\" (text that is not empty) or \"messages\"");
  }
  auto weak = Rightness(field, kWeakNames);
  if (!weak.ok()) return weak.status();
  auto strong = Rightness(field, kStrongNames);
  if (!strong.ok()) return strong.status();
  return RouterOutcome{*prompt, *weak, *strong};
}

// The last thing that a user says in "messages".
std::optional<std::string> LastOfUser(const json& messages) {
  if (!messages.is_array()) return std::nullopt;
  for (auto message = messages.rbegin(); message != messages.rend(); ++message) {
    if (!message->is_object() || message->value("role", json()) != "user") continue;
    const auto content = message->find("content");
    return content != message->end() && content->is_string() ? std::optional(content->get<std::string>())
                                                             : std::nullopt;
  }
  return std::nullopt;
}

std::optional<std::string> FieldOfObject(const json& object, const std::string& name) {
  const auto found = object.find(name);
  if (found == object.end())
    return name == "prompt" && object.contains("messages") ? LastOfUser(object["messages"]) : std::nullopt;
  if (found->is_string()) return found->get<std::string>();
  if (name == "prompt") return std::nullopt;
  return found->dump(-1, ' ', false, json::error_handler_t::replace);
}

// Calls `use` with each row and the number of its line, until an error.
using UseRow = std::function<absl::Status(int line, const FieldOf& field)>;

absl::Status ForEachJsonLine(const std::string& text, const UseRow& use) {
  int number = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    if (line.find_first_not_of(" \t\r") == absl::string_view::npos) continue;
    if (FirstTooDeep({line.data(), line.size()}, kMaxDepth) != std::string_view::npos) {
      return absl::InvalidArgumentError(absl::StrFormat("line %d: nests deeper than %d", number, kMaxDepth));
    }
    const json object = json::parse(line.begin(), line.end(), /*cb=*/nullptr, /*allow_exceptions=*/false);
    if (!object.is_object()) {
      return absl::InvalidArgumentError(absl::StrFormat("line %d: expected one JSON object", number));
    }
    const auto status = use(number, [&](const std::string& name) { return FieldOfObject(object, name); });
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status ForEachCsvRow(const std::string& text, const UseRow& use) {
  auto records = ParseCsv(text);
  if (!records.ok()) return records.status();
  for (size_t i = 1; i < records->size(); ++i) {
    const std::vector<std::string>&names = records->front().fields, &fields = (*records)[i].fields;
    if (fields.size() != names.size()) {
      return absl::InvalidArgumentError(absl::StrFormat("line %d: expected %d fields as in the first line, found %d",
                                                        (*records)[i].line, names.size(), fields.size()));
    }
    const auto status = use((*records)[i].line, [&](const std::string& name) -> std::optional<std::string> {
      const auto at = std::find(names.begin(), names.end(), name);
      if (at == names.end()) return std::nullopt;
      return fields[static_cast<size_t>(at - names.begin())];
    });
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<RouterOutcome>> ReadOutcomes(const std::string& path, const std::string& without) {
  auto text = ReadFile(path);
  if (!text.ok()) return text.status();
  std::vector<RouterOutcome> rows;
  bool without_known = without.empty();
  const UseRow use = [&](int line, const FieldOf& field) -> absl::Status {
    if (LeftOut(field, without, &without_known)) return absl::OkStatus();
    auto row = OutcomeOf(field);
    if (!row.ok()) return absl::InvalidArgumentError(absl::StrFormat("line %d: %s", line, row.status().message()));
    rows.push_back(*std::move(row));
    return absl::OkStatus();
  };
  const absl::Status read = path.ends_with(".csv") ? ForEachCsvRow(*text, use) : ForEachJsonLine(*text, use);
  if (!read.ok()) return absl::DataLossError(absl::StrFormat("outcomes '%s', %s", path, read.message()));
  if (!without_known && !rows.empty()) {
    return absl::InvalidArgumentError(absl::StrFormat("outcomes '%s': no row has a field '%s'", path, without));
  }
  if (absl::Status status = CheckOutcomes(rows, path); !status.ok()) return status;
  return rows;
}

absl::Status CheckOutcomes(const std::vector<RouterOutcome>& rows, std::string_view what) {
  if (rows.size() < kMinRouterRows) {
    return absl::InvalidArgumentError(
        absl::StrFormat("outcomes '%s': expected at least %d rows, found %d", what, kMinRouterRows, rows.size()));
  }
  double gain = 0.0;
  for (const RouterOutcome& row : rows) gain += row.strong - row.weak;
  if (std::none_of(rows.begin(), rows.end(), [](const RouterOutcome& row) { return row.fixes() > 0.0; })) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "outcomes '%s': expected rows where the strong one is right and the weak one wrong, found none in %d; there is "
        "nothing to learn or to measure",
        what, rows.size()));
  }
  if (gain <= 0.0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "outcomes '%s': expected the strong one to be right more often than the weak one, found %+.0f of "
        "%d rows; are they exchanged?",
        what, gain, rows.size()));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> FingerprintOf(const std::vector<RouterOutcome>& rows) {
  text::FieldHasher hasher;
  for (const RouterOutcome& row : rows) {
    hasher.Add(row.prompt);
    hasher.Add(absl::StrFormat("%.17g %.17g", row.weak, row.strong));
  }
  return hasher.Finish();
}

}  // namespace updraft
