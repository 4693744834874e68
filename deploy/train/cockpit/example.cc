#include "deploy/train/cockpit/example.h"

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"

namespace updraft::cockpit {
namespace {

using nlohmann::json;

constexpr std::string_view kFamilyNames[kFamilies] = {"slot", "implicit", "multi", "followup", "arithmetic", "scope"};

// An answer of the task nests three deep; a hostile one must not exhaust the parser's stack.
constexpr size_t kMaxAnswerBytes = 64 * 1024;
constexpr int kMaxDepth = 16;

bool TooDeep(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxDepth) return true;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

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

absl::StatusOr<json> ParseObject(std::string_view text, std::string_view what) {
  if (text.size() > kMaxAnswerBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(what), ": expected at most ", kMaxAnswerBytes, " bytes, found ", text.size()));
  }
  if (TooDeep(text)) {
    return absl::InvalidArgumentError(absl::StrCat(std::string(what), ": nested deeper than ", kMaxDepth, " levels"));
  }
  json value = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded() || !value.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(what), ": expected one JSON object, found '", std::string(text.substr(0, 80)), "'"));
  }
  return value;
}

absl::StatusOr<std::string> StringField(const json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_string()) {
    return absl::InvalidArgumentError(absl::StrCat("expected a text field '", key, "'"));
  }
  return it->get<std::string>();
}

}  // namespace

std::string_view FamilyName(Family family) { return kFamilyNames[static_cast<int>(family)]; }
std::string_view LanguageName(Language language) { return language == Language::kEnglish ? "en" : "zh"; }
std::string_view SplitName(Split split) {
  return split == Split::kTrain ? "train" : split == Split::kCalibrate ? "calibrate" : "test";
}

absl::StatusOr<Family> FamilyFromName(std::string_view name) {
  for (int i = 0; i < kFamilies; ++i) {
    if (kFamilyNames[i] == name) return static_cast<Family>(i);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("family '", std::string(name), "': expected slot, implicit, multi, followup, arithmetic or scope"));
}

absl::StatusOr<Language> LanguageFromName(std::string_view name) {
  if (name == "en") return Language::kEnglish;
  if (name == "zh") return Language::kChinese;
  return absl::InvalidArgumentError(absl::StrCat("language '", std::string(name), "': expected en or zh"));
}

absl::StatusOr<Split> SplitFromName(std::string_view name) {
  for (Split split : {Split::kTrain, Split::kCalibrate, Split::kTest}) {
    if (SplitName(split) == name) return split;
  }
  return absl::InvalidArgumentError(absl::StrCat("split '", std::string(name), "': expected train, calibrate or test"));
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

bool ExactMatch(std::string_view expected, std::string_view got) {
  const absl::StatusOr<std::string> a = CanonicalSettings(expected);
  const absl::StatusOr<std::string> b = CanonicalSettings(got);
  return a.ok() && b.ok() && *a == *b;
}

std::string ToJsonLine(const Example& example) {
  nlohmann::ordered_json line;
  line["id"] = example.id;
  line["family"] = std::string(FamilyName(example.family));
  line["language"] = std::string(LanguageName(example.language));
  line["messages"] = nlohmann::ordered_json::array();
  for (const ChatTurn& turn : example.turns) {
    nlohmann::ordered_json message;
    message["role"] = turn.role;
    message["content"] = turn.content;
    line["messages"].push_back(std::move(message));
  }
  line["answer"] = example.answer;
  return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

absl::StatusOr<Example> FromJsonLine(std::string_view line) {
  absl::StatusOr<json> parsed = ParseObject(line, "example");
  if (!parsed.ok()) return parsed.status();
  Example example;
  std::string family, language;
  for (auto& [key, target] : std::vector<std::pair<const char*, std::string*>>{
           {"id", &example.id}, {"family", &family}, {"language", &language}, {"answer", &example.answer}}) {
    absl::StatusOr<std::string> text = StringField(*parsed, key);
    if (!text.ok()) return text.status();
    *target = *std::move(text);
  }
  absl::StatusOr<Family> parsed_family = FamilyFromName(family);
  if (!parsed_family.ok()) return parsed_family.status();
  example.family = *parsed_family;
  absl::StatusOr<Language> parsed_language = LanguageFromName(language);
  if (!parsed_language.ok()) return parsed_language.status();
  example.language = *parsed_language;
  const auto messages = parsed->find("messages");
  if (messages == parsed->end() || !messages->is_array() || messages->empty()) {
    return absl::InvalidArgumentError("example: expected 'messages' to be a list of at least one message");
  }
  for (const json& message : *messages) {
    if (!message.is_object()) return absl::InvalidArgumentError("example: expected every message to be an object");
    absl::StatusOr<std::string> role = StringField(message, "role");
    if (!role.ok()) return role.status();
    absl::StatusOr<std::string> content = StringField(message, "content");
    if (!content.ok()) return content.status();
    example.turns.push_back({*std::move(role), *std::move(content)});
  }
  return example;
}

absl::Status WriteJsonLines(const std::vector<Example>& examples, const std::string& path) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  for (const Example& example : examples) out << ToJsonLine(example) << '\n';
  out.close();
  if (!out) return absl::UnavailableError(absl::StrCat(path, ": cannot be written; check the folder and the space"));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Example>> ReadJsonLines(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return absl::NotFoundError(absl::StrCat(path, ": cannot be opened; give a JSONL file of examples"));
  std::vector<Example> examples;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    if (line.empty()) continue;
    absl::StatusOr<Example> example = FromJsonLine(line);
    if (!example.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ":", number, ": ", std::string(example.status().message())));
    }
    examples.push_back(*std::move(example));
  }
  return examples;
}

}  // namespace updraft::cockpit
