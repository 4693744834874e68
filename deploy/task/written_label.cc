#include "deploy/task/written_label.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace updraft {
namespace {

using nlohmann::json;
using Range = std::pair<double, double>;

std::string_view LeafOf(std::string_view path) {
  const size_t dot = path.rfind('.');
  return dot == std::string_view::npos ? path : path.substr(dot + 1);
}

// From the resting state on, a little apart from it, as far as the signal goes.
std::optional<Range> Adjusted(std::string_view leaf, double value, bool up) {
  if (leaf == "Temperature") return up ? Range{22.5, 30} : Range{15, 21.5};
  if (leaf == "FanSpeed" || leaf == "Volume") return up ? Range{45, 100} : Range{1, 35};
  if (leaf == "Brightness" || leaf == "Intensity") return up ? Range{55, 100} : Range{1, 40};
  if (leaf == "Recline") return up ? Range{18, 60} : Range{0, 12};
  if (leaf == "Level") return up ? Range{55, 100} : Range{1, 45};
  if (leaf == "HeatingCooling" && value > 0) return up ? Range{55, 100} : Range{1, 45};
  if (leaf == "HeatingCooling" && value < 0) return up ? Range{-45, -1} : Range{-100, -55};
  return std::nullopt;
}

// What a word without a number bears, of which `value` is the convention.
std::optional<Range> Levelless(std::string_view leaf, double value) {
  if (value == 0) return std::nullopt;  // off is off
  if (leaf == "Temperature") {
    if (value >= 22.5) return Range{22.5, 30};
    return value <= 21 ? std::optional(Range{15, 21}) : std::nullopt;
  }
  if (leaf == "HeatingCooling") return value > 0 ? Range{30, 100} : Range{-100, -30};
  if (leaf == "Level") return Range{20, 100};
  if (leaf == "Recline") return Range{value - 10, value + 15};
  if (leaf != "FanSpeed" && leaf != "Volume" && leaf != "Brightness" && leaf != "Intensity" && leaf != "Position") {
    return std::nullopt;
  }
  if (value >= 90) return Range{90, 100};
  if (value == 50) return Range{40, 60};
  return Range{std::max(1.0, value - 12), value + 15};
}

json MatcherOf(std::string_view kind, const std::string& path, const json& value, const json& adjust) {
  if (!value.is_number()) return value;
  const double number = value.get<double>();
  std::optional<Range> range;
  if (const auto how = adjust.find(path); how != adjust.end()) {
    if (kind != "followup" && (*how == "up" || *how == "down")) range = Adjusted(LeafOf(path), number, *how == "up");
  } else if (kind == "levelless" || kind == "implicit") {
    range = Levelless(LeafOf(path), number);
  }
  // The convention itself is right, whatever the ranges say.
  if (!range) return value;
  return {{"range", {std::min(range->first, number), std::max(range->second, number)}}};
}

}  // namespace

absl::StatusOr<AcceptList> AcceptListOfWritten(std::string_view kind, const json& answer) {
  static const json none = json::object();
  const auto part = [&](const char* key) -> const json& { return answer.contains(key) ? answer[key] : none; };
  for (const char* key : {"set", "call", "adjust"}) {
    if (!part(key).is_object()) {
      return absl::InvalidArgumentError(absl::StrCat("answer: expected '", key, "' to be an object"));
    }
  }
  json alternative = json::object();
  for (const auto& [path, value] : part("set").items()) {
    alternative["set"][path] = MatcherOf(kind, path, value, part("adjust"));
  }
  if (!part("call").empty()) alternative["call"] = part("call");
  if (answer.contains("refuse")) alternative["refuse"] = answer["refuse"];
  return AcceptList::FromJson(json::array({std::move(alternative)}));
}

}  // namespace updraft
