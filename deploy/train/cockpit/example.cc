#include "deploy/train/cockpit/example.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/cockpit/json_object.h"

namespace updraft::cockpit {
namespace {

using nlohmann::json;

constexpr std::string_view kFamilyNames[kFamilies] = {"slot", "implicit", "multi", "followup", "arithmetic", "scope"};

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
