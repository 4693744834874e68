// Task files.
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/cockpit/answer.h"
#include "deploy/task/task.h"
#include "deploy/task/written_label.h"

namespace updraft {
namespace {

using nlohmann::json;

// The value of a string member; empty when absent, nullopt when it is something else.
std::optional<std::string> StringMember(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end()) return std::string();
  if (!found->is_string()) return std::nullopt;
  return found->get<std::string>();
}

absl::StatusOr<Conversation> MessagesOf(const json& object) {
  const auto prompt = object.find("prompt");
  if (prompt != object.end() && prompt->is_string()) return Conversation{{"user", prompt->get<std::string>()}};
  const auto list = object.find("messages");
  if (list == object.end() || !list->is_array() || list->empty()) {
    return absl::InvalidArgumentError("expected \"messages\" (a list that is not empty) or \"prompt\" (text)");
  }
  Conversation messages;
  for (const json& entry : *list) {
    if (!entry.is_object()) return absl::InvalidArgumentError("\"messages\": expected objects");
    const auto role = StringMember(entry, "role"), content = StringMember(entry, "content");
    if (!role || !content || role->empty()) {
      return absl::InvalidArgumentError("\"messages\": expected \"role\" and \"content\" as text");
    }
    messages.push_back({*role, *content});
  }
  return messages;
}

// The first bytes of U+4000 to U+9FFF in UTF-8.
bool HasHan(std::string_view text) { return text.find_first_of("\xE4\xE5\xE6\xE7\xE8\xE9") != std::string_view::npos; }

// Whether a line must say what is right.
enum class Labels { kNeeded, kMayBeMissing };

// A line that was labelled by hand. item: what any line has.
absl::StatusOr<TaskItem> LabelledItem(const json& object, TaskItem item) {
  item.cockpit = true;
  if (item.language.empty()) item.language = HasHan(item.messages.back().content) ? "zh" : "en";
  if (object.contains("accept")) {
    auto accept = AcceptList::FromJson(object["accept"]);
    if (!accept.ok()) return accept.status();
    item.expected = accept->ToJson();
    item.worded = false;
    item.accept = *std::move(accept);
    return item;
  }
  item.expected = object["answer"].dump(-1, ' ', false, json::error_handler_t::replace);
  item.clarify = EffectOf(item.expected).asks_back;
  if (const auto settings = cockpit::CanonicalSettings(item.expected); !settings.ok()) return settings.status();
  item.worded = !item.clarify;
  if (item.clarify) return item;
  auto accept = AcceptListOfWritten(item.family, object["answer"]);
  if (!accept.ok()) return accept.status();
  item.accept = *std::move(accept);
  return item;
}

absl::StatusOr<TaskItem> ParseLine(const std::string& line, Labels labels) {
  const json object = json::parse(line, /*cb=*/nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return absl::InvalidArgumentError("expected one JSON object");
  auto messages = MessagesOf(object);
  if (!messages.ok()) return messages.status();
  const bool labelled = object.contains("accept") || (object.contains("answer") && object["answer"].is_object());
  const auto answer = StringMember(object, "answer"), id = StringMember(object, "id"),
             family = StringMember(object, labelled ? "kind" : "family"), language = StringMember(object, "language");
  if (!id || !family || !language) {
    return absl::InvalidArgumentError(
        absl::StrFormat("\"id\", \"%s\" and \"language\": expected text where present", labelled ? "kind" : "family"));
  }
  TaskItem item;
  item.id = *id;
  item.family = *family;
  item.language = *language;
  item.messages = *std::move(messages);
  if (labelled) return LabelledItem(object, std::move(item));
  if (labels == Labels::kMayBeMissing && !object.contains("answer")) {
    item.labelled = item.worded = false;
    return item;
  }
  if (!answer || !object.contains("answer")) {
    return absl::InvalidArgumentError("expected \"answer\" as text, or \"accept\"");
  }
  item.expected = *answer;
  item.cockpit = cockpit::FamilyFromName(item.family).ok() && cockpit::CanonicalSettings(item.expected).ok();
  return item;
}

// Calls `take` with each line that is not blank, and its number from 1. DataLoss names the line that it refused.
template <typename Take>
absl::Status ForEachLine(const std::string& path, Take take) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrFormat("task '%s': cannot be opened; give a JSONL file", path));
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    if (const absl::Status status = take(number, line); !status.ok()) {
      return absl::DataLossError(
          absl::StrFormat("task '%s', line %d: %s", path, number, std::string(status.message())));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckPrompt(const TaskItem& item) {
  if (item.messages.back().role != "user") {
    return absl::InvalidArgumentError(
        absl::StrFormat("expected the last message to be a user's, which is to be answered, found role '%s'",
                        item.messages.back().role));
  }
  if (item.messages.back().content.find_first_not_of(" \t\r\n") == std::string::npos) {
    return absl::InvalidArgumentError("the prompt is empty; expected something to answer");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<TaskItem>> ReadTask(const std::string& path) {
  std::vector<TaskItem> items;
  const absl::Status read = ForEachLine(path, [&](int, const std::string& line) -> absl::Status {
    auto item = ParseLine(line, Labels::kNeeded);
    if (!item.ok()) return item.status();
    items.push_back(*std::move(item));
    return absl::OkStatus();
  });
  if (!read.ok()) return read;
  if (items.empty()) return absl::DataLossError(absl::StrFormat("task '%s': expected lines of JSON, found none", path));
  return items;
}

absl::StatusOr<std::vector<TaskItem>> ReadPrompts(const std::string& path) {
  std::vector<TaskItem> items;
  std::map<std::string, int> seen;  // the conversation -> its line
  const absl::Status read = ForEachLine(path, [&](int number, const std::string& line) -> absl::Status {
    auto item = ParseLine(line, Labels::kMayBeMissing);
    if (!item.ok()) return item.status();
    if (absl::Status status = CheckPrompt(*item); !status.ok()) return status;
    std::string conversation;
    for (const text::ChatMessage& message : item->messages) {
      conversation += message.role + '\0' + message.content + '\0';
    }
    const auto [first, is_new] = seen.emplace(std::move(conversation), number);
    if (!is_new) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "the same prompt as line %d; what is promised counts on prompts that were drawn one by one", first->second));
    }
    items.push_back(*std::move(item));
    return absl::OkStatus();
  });
  if (!read.ok()) return read;
  if (items.empty()) {
    return absl::DataLossError(
        absl::StrFormat("task '%s': expected prompts, one JSON object a line, found none", path));
  }
  return items;
}

}  // namespace updraft
