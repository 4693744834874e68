#include "common/cockpit/answer.h"

#include <cmath>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/cockpit/catalogue.h"
#include "common/cockpit/json_object.h"

namespace updraft::cockpit {
namespace {

using nlohmann::json;

// Numbers compare by value: every whole number becomes an integer.
json Canonical(const json& value) {
  if (value.is_number_float()) {
    const double number = value.get<double>();
    if (std::isfinite(number) && number == std::floor(number) && std::fabs(number) < 1e15) {
      return static_cast<int64_t>(number);
    }
    return number;
  }
  if (value.is_number_unsigned() && value.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX)) {
    return static_cast<int64_t>(value.get<uint64_t>());
  }
  if (value.is_object()) {
    json out = json::object();
    for (const auto& [key, item] : value.items()) out[key] = Canonical(item);
    return out;
  }
  if (value.is_array()) {
    json out = json::array();
    for (const auto& item : value) out.push_back(Canonical(item));
    return out;
  }
  return value;
}

bool TypeFits(const Signal& signal, const nlohmann::json& value) {
  switch (signal.datatype) {
    case Datatype::kBoolean:
      return value.is_boolean();
    case Datatype::kFloat:
      return value.is_number();
    case Datatype::kUint8:
      return value.is_number_integer() && value.get<int64_t>() >= 0 && value.get<int64_t>() <= 255;
    case Datatype::kInt8:
      return value.is_number_integer() && value.get<int64_t>() >= -128 && value.get<int64_t>() <= 127;
    case Datatype::kString:
      return value.is_string();
  }
  return false;
}

bool ValueFits(const Signal& signal, const nlohmann::json& value) {
  if (!TypeFits(signal, value)) return false;
  if (value.is_number()) {
    const double number = value.get<double>();
    return !(number < signal.min) && !(number > signal.max);
  }
  if (value.is_string() && !signal.allowed.empty()) {
    const std::string text = value.get<std::string>();
    for (const auto& item : absl::StrSplit(std::string(signal.allowed), '|')) {
      if (text == std::string(item)) return true;
    }
    return false;
  }
  return true;
}

}  // namespace

std::string AnswerText(const Answer& answer) {
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  if (!answer.work.empty()) object["work"] = answer.work;
  object["set"] = answer.set;
  if (!answer.call.empty()) object["call"] = answer.call;
  if (!answer.result.empty()) object["result"] = answer.result;
  if (answer.refuse) object["refuse"] = true;
  object["say"] = answer.say;
  return object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

absl::StatusOr<std::string> CanonicalSettings(std::string_view answer) {
  absl::StatusOr<json> parsed = ParseObject(answer, "answer");
  if (!parsed.ok()) return parsed.status();
  json out = json::object();
  for (const char* key : {"set", "call", "result"}) {
    const auto it = parsed->find(key);
    if (it == parsed->end()) continue;
    if (!it->is_object()) {
      return absl::InvalidArgumentError(absl::StrCat("answer: expected '", key, "' to be an object"));
    }
    // An empty object says the same as none.
    if (!it->empty()) out[key] = Canonical(*it);
  }
  const auto refuse = parsed->find("refuse");
  if (refuse != parsed->end()) {
    if (!refuse->is_boolean()) return absl::InvalidArgumentError("answer: expected 'refuse' to be true or false");
    if (refuse->get<bool>()) out["refuse"] = true;
  }
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

Parts PartsOf(std::string_view answer) {
  Parts parts;
  parts.acting_bytes = answer.find("\"say\":");
  const std::string_view acting = answer.substr(0, parts.acting_bytes);
  constexpr std::string_view kPath = "\"Vehicle.";
  for (size_t at = acting.find(kPath); at != std::string_view::npos; at = acting.find(kPath, at + kPath.size())) {
    ++parts.n_settings;
  }
  parts.calls = acting.find("\"call\":") != std::string_view::npos;
  parts.refuses = acting.find("\"refuse\":") != std::string_view::npos;
  return parts;
}

bool ExactMatch(std::string_view expected, std::string_view got) {
  const absl::StatusOr<std::string> a = CanonicalSettings(expected);
  const absl::StatusOr<std::string> b = CanonicalSettings(got);
  return a.ok() && b.ok() && *a == *b;
}

absl::Status CheckLegal(std::string_view answer) {
  const absl::StatusOr<json> parsed = ParseObject(answer, "answer");
  if (!parsed.ok()) return parsed.status();
  if (const auto set = parsed->find("set"); set != parsed->end()) {
    if (!set->is_object()) return absl::InvalidArgumentError("answer: expected 'set' to be an object");
    for (const auto& [path, value] : set->items()) {
      const Signal* signal = FindSignal(path);
      if (signal == nullptr) {
        return absl::InvalidArgumentError(absl::StrCat("answer: '", path, "' is not a signal of the catalogue"));
      }
      if (!ValueFits(*signal, value)) {
        return absl::InvalidArgumentError(absl::StrCat("answer: '", path, "' cannot take ",
                                                       value.dump(-1, ' ', false, json::error_handler_t::replace)));
      }
    }
  }
  if (const auto call = parsed->find("call"); call != parsed->end()) {
    const std::string name = call->is_object() ? call->value("name", json()).dump() : "";
    if (name != "\"navigate\"" && name != "\"media\"" && name != "\"phone\"") {
      return absl::InvalidArgumentError("answer: expected 'call' to name navigate, media or phone");
    }
  }
  return absl::OkStatus();
}

}  // namespace updraft::cockpit
