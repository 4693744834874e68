#include "deploy/task/accept_list.h"

#include <unicode/unistr.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/cockpit/json_object.h"

namespace updraft {
namespace {

using nlohmann::json;

constexpr int kMaxMatcherDepth = 8;

icu::UnicodeString Lower(const std::string& text) { return icu::UnicodeString::fromUTF8(text).toLower(); }

// ---- What is read ----

absl::Status CheckMatcher(const json& matcher, int depth) {
  if (matcher.is_boolean() || matcher.is_number() || matcher.is_string()) return absl::OkStatus();
  const auto wrong = [&] {
    return absl::InvalidArgumentError(
        absl::StrCat("expected a boolean, a number, a text, {\"range\": [low, high]}, {\"any\": [...]} or "
                     "{\"contains\": text}, found ",
                     matcher.dump(-1, ' ', true, json::error_handler_t::replace).substr(0, 80)));
  };
  if (!matcher.is_object() || matcher.size() != 1 || depth > kMaxMatcherDepth) return wrong();
  const std::string& kind = matcher.begin().key();
  const json& value = matcher.begin().value();
  if (kind == "contains") return value.is_string() ? absl::OkStatus() : wrong();
  if (kind == "range") {
    const bool fits = value.is_array() && value.size() == 2 && value[0].is_number() && value[1].is_number();
    return fits && value[0].get<double>() <= value[1].get<double>() ? absl::OkStatus() : wrong();
  }
  if (kind != "any" || !value.is_array() || value.empty()) return wrong();
  for (const json& each : value) {
    if (absl::Status status = CheckMatcher(each, depth + 1); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status CheckAlternative(const json& alternative) {
  if (!alternative.is_object()) return absl::InvalidArgumentError("expected an object");
  for (const auto& [key, value] : alternative.items()) {
    if (key == "refuse") {
      if (!value.is_boolean()) return absl::InvalidArgumentError("\"refuse\": expected true or false");
      continue;
    }
    if (key != "set" && key != "optional" && key != "call" && key != "result") {
      return absl::InvalidArgumentError(
          absl::StrCat("expected \"set\", \"optional\", \"call\", \"result\" or \"refuse\", found \"", key, "\""));
    }
    if (!value.is_object()) return absl::InvalidArgumentError(absl::StrCat("\"", key, "\": expected an object"));
    for (const auto& [name, matcher] : value.items()) {
      if (absl::Status status = CheckMatcher(matcher, 1); !status.ok()) {
        return absl::InvalidArgumentError(absl::StrCat("\"", key, "\", \"", name, "\": ", status.message()));
      }
    }
  }
  return absl::OkStatus();
}

// ---- What is judged ----

bool Matches(const json& matcher, const json& value) {
  if (matcher.is_object()) {
    const json& what = matcher.begin().value();
    if (matcher.contains("any")) {
      return std::any_of(what.begin(), what.end(), [&](const json& each) { return Matches(each, value); });
    }
    if (matcher.contains("range")) {
      if (!value.is_number()) return false;
      const double number = value.get<double>();
      return what[0].get<double>() <= number && number <= what[1].get<double>();
    }
    if (!value.is_string()) return false;
    const icu::UnicodeString part = Lower(what.get<std::string>());
    return part.isEmpty() || Lower(value.get<std::string>()).indexOf(part) >= 0;  // ICU finds no empty part anywhere
  }
  if (matcher.is_boolean()) return value.is_boolean() && matcher == value;
  if (matcher.is_number()) {
    return value.is_number() && std::fabs(matcher.get<double>() - value.get<double>()) < 1e-6;
  }
  return value.is_string() && Lower(matcher.get<std::string>()).trim() == Lower(value.get<std::string>()).trim();
}

// Absent, null, false, 0, "" and what is empty say nothing.
bool Says(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return false;
  if (found->is_boolean()) return found->get<bool>();
  if (found->is_number()) return found->get<double>() != 0.0;
  if (found->is_string()) return !found->get_ref<const std::string&>().empty();
  return !found->empty();
}

// All of `wanted` are in `got`.
bool HasAll(const json& wanted, const json& got) {
  return std::all_of(wanted.items().begin(), wanted.items().end(), [&](const auto& item) {
    const auto found = got.find(item.key());
    return found != got.end() && Matches(item.value(), *found);
  });
}

bool SettingsFit(const json& alternative, const json& answer) {
  static const json none = json::object();
  const json& got = Says(answer, "set") ? answer["set"] : none;
  if (!got.is_object()) return false;
  const json& wanted = alternative.contains("set") ? alternative["set"] : none;
  const json& optional = alternative.contains("optional") ? alternative["optional"] : none;
  if (!HasAll(wanted, got)) return false;
  return std::all_of(got.items().begin(), got.items().end(), [&](const auto& item) {
    if (wanted.contains(item.key())) return true;
    const auto found = optional.find(item.key());
    return found != optional.end() && Matches(*found, item.value());
  });
}

bool PartFits(const char* key, const std::set<std::string>* further, const json& alternative, const json& answer) {
  if (!Says(alternative, key) && !Says(answer, key)) return true;
  if (!alternative.contains(key) || !answer.contains(key) || !answer[key].is_object()) return false;
  if (further != nullptr) {
    for (const auto& [name, value] : answer[key].items()) {
      if (!alternative[key].contains(name) && !further->contains(name)) return false;
    }
  }
  return HasAll(alternative[key], answer[key]);
}

bool AlternativeFits(const json& alternative, const json& answer) {
  static const std::set<std::string> kMayBeAdded = {"avoid", "artist"};
  return Says(alternative, "refuse") == Says(answer, "refuse") && SettingsFit(alternative, answer) &&
         PartFits("call", &kMayBeAdded, alternative, answer) && PartFits("result", nullptr, alternative, answer);
}

}  // namespace

absl::StatusOr<AcceptList> AcceptList::FromJson(const json& alternatives) {
  if (!alternatives.is_array() || alternatives.empty()) {
    return absl::InvalidArgumentError("\"accept\": expected a list of alternatives that is not empty");
  }
  for (size_t i = 0; i < alternatives.size(); ++i) {
    if (absl::Status status = CheckAlternative(alternatives[i]); !status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("\"accept\", alternative %d: %s", static_cast<int>(i) + 1, std::string(status.message())));
    }
  }
  return AcceptList(alternatives);
}

bool AcceptList::Fits(std::string_view answer) const {
  const absl::StatusOr<json> object = cockpit::ParseObject(answer, "answer");
  if (!object.ok()) return false;
  return std::any_of(alternatives_.begin(), alternatives_.end(),
                     [&](const json& alternative) { return AlternativeFits(alternative, *object); });
}

Effect EffectOf(std::string_view answer) {
  const absl::StatusOr<json> object = cockpit::ParseObject(answer, "answer");
  if (!object.ok()) return {};
  return {.asks_back = Says(*object, "clarify"), .acts = Says(*object, "set") || Says(*object, "call")};
}

std::vector<std::string> AlternativesOf(std::string_view answer) {
  std::vector<std::string> alternatives;
  const absl::StatusOr<json> object = cockpit::ParseObject(answer, "answer");
  if (!object.ok() || !Says(*object, "clarify") || !(*object)["clarify"].is_array()) return alternatives;
  for (const json& alternative : (*object)["clarify"]) {
    alternatives.push_back(alternative.dump(-1, ' ', false, json::error_handler_t::replace));
  }
  return alternatives;
}

}  // namespace updraft
