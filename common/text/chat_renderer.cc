#include "common/text/chat_renderer.h"

#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <utility>

#include "absl/strings/str_format.h"

namespace updraft::text {
namespace {

// What Jinja's trim (Python's str.strip) removes: white space, and the separators 1C to 1F.
bool Trimmed(UChar32 c) { return c >= 0 && (u_isUWhiteSpace(c) || (c >= 0x1C && c <= 0x1F)); }

std::string_view TrimLeft(std::string_view text) {
  while (!text.empty()) {
    const auto length = static_cast<int32_t>(text.size() < 4 ? text.size() : 4);
    int32_t used = 0;
    UChar32 c;
    U8_NEXT(text.data(), used, length, c);
    if (!Trimmed(c)) break;
    text.remove_prefix(static_cast<size_t>(used));
  }
  return text;
}

std::string_view TrimRight(std::string_view text) {
  while (!text.empty()) {
    const size_t tail = text.size() < 4 ? text.size() : 4;
    const char* data = text.data() + (text.size() - tail);
    auto at = static_cast<int32_t>(tail);
    UChar32 c;
    U8_PREV(data, 0, at, c);
    if (!Trimmed(c)) break;
    text.remove_suffix(tail - static_cast<size_t>(at));
  }
  return text;
}

std::string_view Trim(std::string_view text) { return TrimLeft(TrimRight(text)); }

std::string_view StripNewlines(std::string_view text, bool left, bool right) {
  while (left && !text.empty() && text.front() == '\n') text.remove_prefix(1);
  while (right && !text.empty() && text.back() == '\n') text.remove_suffix(1);
  return text;
}

constexpr std::string_view kThink = "<think>";
constexpr std::string_view kThinkEnd = "</think>";

// An answer of a model that thinks first, taken apart as the templates of Qwen do.
struct Answer {
  std::string_view thought;
  std::string_view said;
};

Answer TakeApart(std::string_view content) {
  const size_t first_end = content.find(kThinkEnd);
  if (first_end == content.npos) return {{}, content};
  std::string_view thought = StripNewlines(content.substr(0, first_end), false, true);
  if (const size_t begin = thought.rfind(kThink); begin != thought.npos) thought.remove_prefix(begin + kThink.size());
  const std::string_view said = content.substr(content.rfind(kThinkEnd) + kThinkEnd.size());
  return {StripNewlines(thought, true, false), StripNewlines(said, true, false)};
}

}  // namespace

void ChatRenderer::Special(std::string_view marker) {
  if (!marker.empty()) segments_.push_back({std::string(marker), true});
}

void ChatRenderer::Text(std::string_view text) {
  if (!text.empty()) segments_.push_back({std::string(text), false});
}

std::string ChatRenderer::Content(const ChatMessage& message) const {
  return std::string(chat_.trim_ ? Trim(message.content) : std::string_view(message.content));
}

absl::Status ChatRenderer::Check() const {
  if (messages_.empty()) {
    return absl::InvalidArgumentError("conversation: expected at least one message, found none; send a user message");
  }
  for (size_t i = 0; i < messages_.size(); ++i) {
    const std::string& role = messages_[i].role;
    if (role != "system" && role != "user" && role != "assistant") {
      return absl::InvalidArgumentError(
          absl::StrFormat("messages[%u].role: expected system, user or assistant, found '%s'", i, role.substr(0, 40)));
    }
    if (!messages_[i].tool_calls.empty()) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "messages[%u].tool_calls: the model's chat format (%s) has no tools; leave the calls out", i, chat_.name_));
    }
    if (role == "system" && !chat_.system_) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "messages[%u]: the model's chat format (%s) has no system role; put the text into the first user message", i,
          chat_.name_));
    }
  }
  return CheckOrder();
}

absl::Status ChatRenderer::CheckOrder() const {
  const bool system_first = chat_.format_ == ChatFormat::kLlama2 || chat_.format_ == ChatFormat::kGemma ||
                            chat_.format_ == ChatFormat::kMistral;
  if (!system_first) return absl::OkStatus();
  const size_t begin = StartsWithSystem() ? 1 : 0;
  if (begin == messages_.size()) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "conversation: the model's chat format (%s) needs a user message after the system message", chat_.name_));
  }
  for (size_t i = begin; i < messages_.size(); ++i) {
    const std::string& role = messages_[i].role;
    if (role == "system") {
      return absl::InvalidArgumentError(absl::StrFormat(
          "messages[%u]: the model's chat format (%s) takes one system message, before all others; join them", i,
          chat_.name_));
    }
    const char* expected = (i - begin) % 2 == 0 ? "user" : "assistant";
    if (chat_.alternate_ && role != expected) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "messages[%u].role: in the model's chat format (%s) user and assistant take turns, beginning with user; "
          "expected %s, found %s; join neighbouring messages of one role",
          i, chat_.name_, expected, role));
    }
  }
  return absl::OkStatus();
}

std::vector<TextSegment> ChatRenderer::Run() {
  if (chat_.bos_ && chat_.format_ != ChatFormat::kLlama2) Special(bos_);
  switch (chat_.format_) {
    case ChatFormat::kChatMl:
      ChatMl();
      break;
    case ChatFormat::kLlama2:
      Llama2();
      break;
    case ChatFormat::kLlama3:
      Llama3();
      break;
    case ChatFormat::kGemma:
      Gemma();
      break;
    case ChatFormat::kPhi3:
      Phi3();
      break;
    case ChatFormat::kMistral:
      Mistral();
      break;
  }
  return std::move(segments_);
}

// ---- ChatML -------------------------------------------------------------------------------------------------------

void ChatRenderer::ChatMl() {
  if (!StartsWithSystem() && !chat_.default_system_.empty()) {
    Special("<|im_start|>");
    Text("system\n" + chat_.default_system_);
    Special("<|im_end|>");
    Text("\n");
  }
  const size_t last_question = LastQuestion();
  for (size_t i = 0; i < messages_.size(); ++i) {
    Special("<|im_start|>");
    if (messages_[i].role == "assistant" && chat_.drops_thoughts_) {
      ChatMlAnswer(i, last_question);
    } else {
      Text(messages_[i].role + "\n" + Content(messages_[i]));
    }
    Special("<|im_end|>");
    Text("\n");
  }
  if (!ask_) return;
  Special("<|im_start|>");
  Text("assistant\n");
  if (chat_.opens_thought_) {
    Special(kThink);
    Text("\n");
  } else if (chat_.can_skip_thought_ && !chat_.thinking_) {
    Special(kThink);
    Text("\n\n");
    Special(kThinkEnd);
    Text("\n\n");
  }
}

void ChatRenderer::ChatMlAnswer(size_t index, size_t last_question) {
  const std::string content = Content(messages_[index]);
  const Answer answer = TakeApart(content);
  const bool after_question = chat_.keeps_last_thought_ && index > last_question;
  if (!after_question || (index + 1 < messages_.size() && answer.thought.empty())) {
    Text("assistant\n" + std::string(answer.said));
    return;
  }
  Text("assistant\n");
  Special(kThink);
  Text("\n" + std::string(StripNewlines(answer.thought, true, true)) + "\n");
  Special(kThinkEnd);
  Text("\n\n" + std::string(StripNewlines(answer.said, true, false)));
}

// The last user message that is no tool's answer; without one, the last message.
size_t ChatRenderer::LastQuestion() const {
  constexpr std::string_view kTool = "<tool_response>";
  constexpr std::string_view kToolEnd = "</tool_response>";
  for (size_t i = messages_.size(); i-- > 0;) {
    const std::string_view content = messages_[i].content;
    if (messages_[i].role == "user" && !(content.starts_with(kTool) && content.ends_with(kToolEnd))) return i;
  }
  return messages_.size() - 1;
}

// ---- Llama 2, Llama 3 ---------------------------------------------------------------------------------------------

void ChatRenderer::Llama2() {
  const size_t begin = StartsWithSystem() ? 1 : 0;
  for (size_t i = begin; i < messages_.size(); ++i) {
    const std::string& content = messages_[i].content;
    if (messages_[i].role == "assistant") {
      Text(" " + std::string(Trim(content)) + " ");
      Special(eos_);
      continue;
    }
    if (chat_.bos_) Special(bos_);
    Special("[INST]");
    Text(" ");
    if (i == begin && begin == 1) {
      Special("<<SYS>>");
      Text("\n" + messages_[0].content + "\n");
      Special("<</SYS>>");
      // The template trims the system message and the user's as one, so only white space at the end goes.
      const std::string rest = "\n\n" + content;
      Text(TrimRight(rest));
    } else {
      Text(Trim(content));
    }
    Text(" ");
    Special("[/INST]");
  }
}

void ChatRenderer::Llama3() {
  const auto message = [&](std::string_view role, std::string_view content) {
    Special("<|start_header_id|>");
    Text(role);
    Special("<|end_header_id|>");
    Text("\n\n");
    Text(content);
    Special("<|eot_id|>");
  };
  size_t begin = 0;
  if (chat_.dates_) {
    std::string system = "Cutting Knowledge Date: December 2023\nToday Date: " + chat_.date_ + "\n\n";
    if (StartsWithSystem()) {
      system += Content(messages_[0]);
      begin = 1;
    }
    message("system", system);
  }
  for (const ChatMessage& m : messages_.subspan(begin)) message(m.role, Content(m));
  if (!ask_) return;
  Special("<|start_header_id|>");
  Text("assistant");
  Special("<|end_header_id|>");
  Text("\n\n");
}

// ---- Gemma, Phi-3, Mistral ----------------------------------------------------------------------------------------

void ChatRenderer::Gemma() {
  const size_t begin = StartsWithSystem() ? 1 : 0;
  for (size_t i = begin; i < messages_.size(); ++i) {
    Special("<start_of_turn>");
    Text(messages_[i].role == "assistant" ? "model\n" : "user\n");
    if (i == begin && begin == 1) Text(messages_[0].content + "\n\n");
    Text(Content(messages_[i]));
    Special("<end_of_turn>");
    Text("\n");
  }
  if (!ask_) return;
  Special("<start_of_turn>");
  Text("model\n");
}

void ChatRenderer::Phi3() {
  for (const ChatMessage& m : messages_) {
    if (m.role == "system" && m.content.empty()) continue;
    Special(m.role == "system" ? "<|system|>" : m.role == "user" ? "<|user|>" : "<|assistant|>");
    Text("\n" + Content(m));
    Special("<|end|>");
    Text("\n");
  }
  if (ask_) {
    Special("<|assistant|>");
    Text("\n");
  } else if (chat_.eos_at_end_) {
    Special(eos_);
  }
}

void ChatRenderer::Mistral() {
  const auto space_if = [&](bool there) { Text(there ? " " : ""); };
  const size_t begin = StartsWithSystem() ? 1 : 0;
  if (begin == 1 && chat_.system_prompt_) {
    Special("[SYSTEM_PROMPT]");
    space_if(chat_.space_after_inst_);
    Text(messages_[0].content);
    Special("[/SYSTEM_PROMPT]");
  }
  const size_t system_at = chat_.system_in_last_user_ ? messages_.size() - 1 : begin;
  for (size_t i = begin; i < messages_.size(); ++i) {
    if (messages_[i].role == "assistant") {
      space_if(chat_.space_before_answer_);
      Text(Content(messages_[i]));
      Special(eos_);
      continue;
    }
    space_if(chat_.space_before_inst_);
    Special("[INST]");
    space_if(chat_.space_after_inst_);
    if (begin == 1 && !chat_.system_prompt_ && i == system_at) Text(messages_[0].content + "\n\n");
    Text(messages_[i].content);
    space_if(chat_.space_before_inst_end_);
    Special("[/INST]");
  }
}

}  // namespace updraft::text
