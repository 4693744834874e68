#include "deploy/train/adapter/sheets.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/cockpit/answer.h"
#include "common/cockpit/json_object.h"
#include "deploy/train/cockpit/random.h"

namespace updraft::train {
namespace {

using nlohmann::ordered_json;

// Families of the generator by the kinds of the sheets.
cockpit::Family FamilyOf(std::string_view kind) {
  if (kind == "implicit") return cockpit::Family::kImplicit;
  if (kind == "multi") return cockpit::Family::kMulti;
  if (kind == "followup") return cockpit::Family::kFollowup;
  if (kind == "scope") return cockpit::Family::kScope;
  return cockpit::Family::kSlot;
}

absl::Status ReadTurns(const ordered_json& line, cockpit::Example* example) {
  const auto messages = line.find("messages");
  if (messages == line.end() || !messages->is_array() || messages->empty()) {
    return absl::InvalidArgumentError("expected 'messages' to be a list of at least one message");
  }
  for (const ordered_json& message : *messages) {
    if (!message.is_object() || !message.contains("role") || !message["role"].is_string() ||
        !message.contains("content") || !message["content"].is_string()) {
      return absl::InvalidArgumentError("expected every message to have a role and a content");
    }
    example->turns.push_back({message["role"].get<std::string>(), message["content"].get<std::string>()});
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadSheetLine(std::string_view text, cockpit::Example* example, std::string* kind) {
  // Bounds the depth; the order of an answer's settings is kept below.
  if (const auto checked = cockpit::ParseObject(text, "line"); !checked.ok()) return checked.status();
  const ordered_json line = ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!line.contains("kind") || !line["kind"].is_string() || !line.contains("answer") || !line["answer"].is_object()) {
    return absl::InvalidArgumentError("expected a text 'kind' and an object 'answer'");
  }
  *kind = line["kind"].get<std::string>();
  example->family = FamilyOf(*kind);
  if (absl::Status status = ReadTurns(line, example); !status.ok()) return status;
  const ordered_json& told = line["answer"];
  if (told.contains("clarify")) return absl::OkStatus();
  cockpit::Answer answer;
  for (const auto& [key, value] : told.items()) {
    if (key == "set" && value.is_object()) {
      answer.set = value;
    } else if (key == "call" && value.is_object()) {
      answer.call = value;
    } else if (key == "refuse" && value.is_boolean()) {
      answer.refuse = value.get<bool>();
    } else if (key != "adjust" && key != "partly") {  // marks beside what is to be done
      return absl::InvalidArgumentError(absl::StrCat("answer: '", key, "' is not of the agreed form"));
    }
  }
  example->answer = cockpit::AnswerText(answer);
  return cockpit::CheckLegal(example->answer);
}

absl::StatusOr<Sheet> ReadSheet(const std::string& folder, const std::string& name) {
  const std::string path = (std::filesystem::path(folder) / (name + ".jsonl")).string();
  std::ifstream in(path, std::ios::binary);
  if (!in) return absl::NotFoundError(absl::StrCat(path, ": cannot be opened; the recipe names this sheet"));
  Sheet sheet;
  sheet.name = name;
  const size_t zh = name.find("zh"), en = name.find("en");
  const cockpit::Language language = zh < en ? cockpit::Language::kChinese : cockpit::Language::kEnglish;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    if (line.empty()) continue;
    cockpit::Example example;
    example.language = language;
    example.id = absl::StrCat(name, ":", number);
    std::string kind;
    if (absl::Status status = ReadSheetLine(line, &example, &kind); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ":", number, ": ", std::string(status.message())));
    }
    if (example.answer.empty()) {
      ++sheet.skipped;
      continue;
    }
    sheet.examples.push_back(std::move(example));
    sheet.kinds.push_back(std::move(kind));
  }
  if (sheet.examples.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": holds no request"));
  return sheet;
}

}  // namespace updraft::train
