#include "common/text/chat_template.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/gguf/reader.h"
#include "common/text/chat_renderer.h"

namespace updraft::text {
namespace {

constexpr char kWhatToDo[] =
    "name the format that the model was trained with (chatml, llama2, llama3, gemma, phi3, "
    "mistral, mistral-v1 or mistral-v7)";

void ReplaceAll(std::string* text, std::string_view from, std::string_view to) {
  std::string replaced;
  size_t pos = 0;
  for (size_t hit = text->find(from); hit != text->npos; hit = text->find(from, pos)) {
    replaced.append(*text, pos, hit - pos).append(to);
    pos = hit + from.size();
  }
  replaced.append(*text, pos);
  *text = std::move(replaced);
}

// One spelling for what programs write in several: line breaks in literals are line breaks, literals that are added
// together are one, and no space surrounds a filter's bar.
std::string Normalized(std::string_view source) {
  std::string text(source);
  ReplaceAll(&text, "\\n", "\n");
  for (const char* joint : {"' + '", "'+'", "\" + \"", "\"+\""}) ReplaceAll(&text, joint, "");
  for (const char* bar : {" | ", "| ", " |"}) ReplaceAll(&text, bar, "|");
  return text;
}

bool Has(std::string_view text, std::string_view part) { return text.find(part) != text.npos; }

bool TrimsContent(std::string_view source) {
  for (const char* way :
       {"content']|trim", "content\"]|trim", "content|trim", "content'].strip()", "content.strip()"}) {
    if (Has(source, way)) return true;
  }
  return false;
}

absl::Status UnknownFormat(std::string_view source) {
  std::string begin(source.substr(0, 60));
  for (char& c : begin) {
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7F) c = ' ';
  }
  return absl::UnimplementedError(
      absl::StrFormat("tokenizer.chat_template: expected ChatML, Llama 2, Llama 3, Gemma, Phi-3 or Mistral, found none "
                      "of their features "
                      "(it begins: %s); %s",
                      begin, kWhatToDo));
}

}  // namespace

const std::vector<std::string>& ChatTemplate::Names() {
  static const std::vector<std::string> names = {"chatml", "llama2",  "llama3",     "gemma",
                                                 "phi3",   "mistral", "mistral-v1", "mistral-v7"};
  return names;
}

absl::StatusOr<ChatTemplate> ChatTemplate::ByName(std::string_view name) {
  const std::string key(name);
  if (key == "chatml") return ChatTemplate(ChatFormat::kChatMl, key);
  if (key == "llama2" || key == "llama3" || key == "gemma") {
    const ChatFormat format = key == "llama2"   ? ChatFormat::kLlama2
                              : key == "llama3" ? ChatFormat::kLlama3
                                                : ChatFormat::kGemma;
    ChatTemplate chat(format, key);
    chat.bos_ = true;
    chat.trim_ = true;
    chat.alternate_ = format != ChatFormat::kLlama3;
    chat.system_ = format != ChatFormat::kGemma;
    return chat;
  }
  if (key == "phi3") return ChatTemplate(ChatFormat::kPhi3, key);
  if (key == "mistral" || key == "mistral-v1" || key == "mistral-v7") {
    ChatTemplate chat(ChatFormat::kMistral, key);
    chat.bos_ = true;
    chat.alternate_ = true;
    chat.trim_ = key == "mistral";
    chat.space_before_inst_ = chat.space_before_inst_end_ = key == "mistral-v1";
    chat.system_prompt_ = key == "mistral-v7";
    chat.system_in_last_user_ = key == "mistral";
    return chat;
  }
  return absl::InvalidArgumentError(absl::StrFormat("chat template: expected one of %s, found '%s'",
                                                    absl::StrJoin(Names(), ", "), key.substr(0, 40)));
}

absl::StatusOr<ChatTemplate> ChatTemplate::FromGguf(const gguf::File& file) {
  const auto in_file = [&](absl::StatusCode code, const std::string& message) {
    return absl::Status(code, absl::StrFormat("chat template of '%s': %s", file.path(), message));
  };
  if (!file.Has("tokenizer.chat_template")) {
    return in_file(absl::StatusCode::kNotFound,
                   absl::StrFormat("the file has no key tokenizer.chat_template; %s", kWhatToDo));
  }
  const absl::StatusOr<std::string_view> source = file.GetString("tokenizer.chat_template");
  if (!source.ok()) return in_file(source.status().code(), std::string(source.status().message()));
  absl::StatusOr<ChatTemplate> chat = FromJinja(*source);
  if (!chat.ok()) return in_file(chat.status().code(), std::string(chat.status().message()));
  return chat;
}

absl::StatusOr<ChatTemplate> ChatTemplate::FromJinja(std::string_view source) {
  const std::string text = Normalized(source);
  const bool bos = Has(text, "bos_token");
  if (Has(text, "<|im_start|>") && Has(text, "<|im_end|>\n") && !Has(text, "<|im_sep|>")) {
    ChatTemplate chat(ChatFormat::kChatMl, "chatml");
    chat.bos_ = bos;
    chat.ReadChatMl(text);
    return chat;
  }
  if (Has(text, "<|start_header_id|>") && Has(text, "<|end_header_id|>\n\n") && Has(text, "<|eot_id|>")) {
    ChatTemplate chat(ChatFormat::kLlama3, "llama3");
    chat.bos_ = bos;
    chat.trim_ = TrimsContent(text);
    chat.dates_ = Has(text, "Cutting Knowledge Date: December 2023\n") && Has(text, "Today Date: ");
    return chat;
  }
  if (Has(text, "<start_of_turn>") && Has(text, "<end_of_turn>\n")) {
    ChatTemplate chat(ChatFormat::kGemma, "gemma");
    chat.bos_ = bos;
    chat.trim_ = TrimsContent(text);
    chat.system_ = Has(text, "first_user_prefix");
    chat.alternate_ = Has(text, "must alternate");
    return chat;
  }
  if (Has(text, "<|assistant|>\n") && Has(text, "<|end|>\n")) {
    ChatTemplate chat(ChatFormat::kPhi3, "phi3");
    chat.bos_ = bos;
    chat.trim_ = TrimsContent(text);
    // Programs that write '<|' + role + '|>' take any role.
    chat.system_ = Has(text, "<|system|>") || Has(text, "'<|' + message['role']");
    chat.eos_at_end_ = Has(text, "eos_token");
    return chat;
  }
  if (Has(text, "[INST]") && Has(text, "[/INST]")) {
    if (Has(text, "<<SYS>>") && !Has(text, "[SYSTEM_PROMPT]")) {
      ChatTemplate chat(ChatFormat::kLlama2, "llama2");
      chat.bos_ = bos;
      chat.alternate_ = true;
      return chat;
    }
    ChatTemplate chat(ChatFormat::kMistral, "mistral");
    chat.bos_ = bos;
    chat.ReadMistral(text);
    return chat;
  }
  return UnknownFormat(source);
}

void ChatTemplate::ReadChatMl(std::string_view source) {
  trim_ = TrimsContent(source);
  drops_thoughts_ = Has(source, "split('</think>')");
  keeps_last_thought_ = Has(source, "last_query_index");
  opens_thought_ = Has(source, "<|im_start|>assistant\n<think>\n");
  can_skip_thought_ = Has(source, "enable_thinking");
  // A system message written out in one literal, rather than put together from the conversation, is the default.
  constexpr std::string_view kBegin = "<|im_start|>system\n";
  for (size_t at = source.find(kBegin); at != source.npos; at = source.find(kBegin, at + 1)) {
    const std::string_view rest = source.substr(at + kBegin.size());
    const std::string_view system = rest.substr(0, rest.find("<|im_end|>"));
    if (system.size() == rest.size() || system.find_first_of("'\"{}") != system.npos) continue;
    default_system_ = std::string(system);
    return;
  }
}

void ChatTemplate::ReadMistral(std::string_view source) {
  // Formats of the tokenizer's versions: v1 " [INST] x [/INST] y</s>", v3 "[INST] x[/INST] y</s>", and with Tekken
  // "[INST]x[/INST]y</s>".
  const auto literal = [&](std::string_view inside) {
    return Has(source, "'" + std::string(inside) + "'") || Has(source, "\"" + std::string(inside) + "\"");
  };
  system_ = Has(source, "system");
  system_prompt_ = Has(source, "[SYSTEM_PROMPT]");
  system_in_last_user_ = Has(source, "loop.last and system_message");
  alternate_ = Has(source, "alternat");
  trim_ = TrimsContent(source);
  space_before_inst_ = Has(source, "' [INST]") || Has(source, "\" [INST]");
  space_after_inst_ = Has(source, "[INST] ");
  space_before_inst_end_ = Has(source, " [/INST]");
  space_before_answer_ = literal(" ") || space_before_inst_;
}

absl::StatusOr<std::vector<TextSegment>> ChatTemplate::Render(std::span<const ChatMessage> messages,
                                                              bool add_generation_prompt, std::string_view bos,
                                                              std::string_view eos) const {
  ChatRenderer renderer(*this, messages, add_generation_prompt, bos, eos);
  if (absl::Status ok = renderer.Check(); !ok.ok()) return ok;
  return renderer.Run();
}

absl::StatusOr<std::string> ChatTemplate::RenderText(std::span<const ChatMessage> messages, bool add_generation_prompt,
                                                     std::string_view bos, std::string_view eos) const {
  const absl::StatusOr<std::vector<TextSegment>> segments = Render(messages, add_generation_prompt, bos, eos);
  if (!segments.ok()) return segments.status();
  std::string text;
  for (const TextSegment& segment : *segments) text += segment.text;
  return text;
}

absl::StatusOr<std::vector<int32_t>> ChatTemplate::RenderTokens(const Tokenizer& tokenizer,
                                                                std::span<const ChatMessage> messages,
                                                                bool add_generation_prompt) const {
  const auto written = [&](std::optional<int32_t> id) {
    const std::string text = id ? tokenizer.TokenBytes(*id, /*render_special=*/true) : std::string();
    return tokenizer.SpecialTokenId(text) == id ? text : std::string();
  };
  const std::string bos = written(tokenizer.bos_id());
  const std::string eos = written(tokenizer.eos_id());
  const absl::StatusOr<std::vector<TextSegment>> segments = Render(messages, add_generation_prompt, bos, eos);
  if (!segments.ok()) return segments.status();
  for (const TextSegment& segment : *segments) {
    if (!segment.is_special || tokenizer.SpecialTokenId(segment.text)) continue;
    for (size_t i = 0; i < messages.size(); ++i) {
      if (!Has(messages[i].content, segment.text)) continue;
      return absl::InvalidArgumentError(absl::StrFormat(
          "messages[%u].content: contains '%s', which this model cannot tell from the chat format's own; remove it", i,
          segment.text));
    }
  }
  // The format writes bos and eos itself.
  return tokenizer.EncodeSegments(*segments, {.add_special = false});
}

std::vector<std::string> ChatTemplate::StopStrings() const {
  switch (format_) {
    case ChatFormat::kChatMl:
      return {"<|im_end|>"};
    case ChatFormat::kLlama3:
      return {"<|eot_id|>"};
    case ChatFormat::kGemma:
      return {"<end_of_turn>"};
    case ChatFormat::kPhi3:
      return {"<|end|>"};
    case ChatFormat::kLlama2:
    case ChatFormat::kMistral:
      return {"</s>"};
  }
  return {};
}

std::vector<int32_t> ChatTemplate::StopTokenIds(const Tokenizer& tokenizer) const {
  std::vector<int32_t> ids = tokenizer.EndOfGenerationIds();
  for (const std::string& stop : StopStrings()) {
    const std::optional<int32_t> id = tokenizer.SpecialTokenId(stop);
    if (id && std::find(ids.begin(), ids.end(), *id) == ids.end()) ids.push_back(*id);
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

}  // namespace updraft::text
