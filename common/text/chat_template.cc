#include "common/text/chat_template.h"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "common/gguf/reader.h"
#include "common/jinja/budget.h"
#include "common/jinja/unicode.h"
#include "common/text/chat_input.h"
#include "common/text/field_hasher.h"
#include "common/text/named_templates.h"

namespace updraft::text {
namespace {

using jinja::Source;
using jinja::SourcedText;

constexpr char kOwnKey[] = "tokenizer.chat_template";
constexpr char kToolKey[] = "tokenizer.chat_template.tool_use";
constexpr size_t kMaxMarkerBytes = 64;

std::string WhatToChoose() {
  return absl::StrCat("choose one with --chat-template: the name of the format that the model was trained with (",
                      absl::StrJoin(NamedTemplates(), ", "), ") or the path of a file with its Jinja template");
}

absl::Status In(const std::string& what, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(what, ": ", std::string(status.message())));
}

absl::StatusOr<std::string> ReadTemplateFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(jinja::kMaxSourceBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad() || (!file.eof() && file.fail())) {
    return absl::InvalidArgumentError(
        absl::StrFormat("--chat-template: expected one of %s, or the path of a file that can be read, found '%s'",
                        absl::StrJoin(NamedTemplates(), ", "), path.substr(0, 200)));
  }
  text.resize(static_cast<size_t>(file.gcount()));
  return text;
}

// Whether the text has a part of this source.
bool Has(const SourcedText& text, Source source) {
  return std::any_of(text.runs().begin(), text.runs().end(),
                     [&](const SourcedText::Run& run) { return run.source == source; });
}

bool IsBlank(std::string_view text) { return jinja::StripRange(text, nullptr, true, false).begin == text.size(); }

// <...> without white space, or [...] of capitals, that begins here; empty: neither.
std::string_view MarkerAt(std::string_view text) {
  if (text.empty() || (text[0] != '<' && text[0] != '[')) return {};
  const bool angle = text[0] == '<';
  size_t end = 1;
  while (end < text.size() && end < kMaxMarkerBytes && text[end] != (angle ? '>' : ']')) {
    const char c = text[end];
    if (angle ? absl::ascii_isspace(static_cast<unsigned char>(c)) || (c == '<' && end > 1)
              : !absl::ascii_isupper(static_cast<unsigned char>(c)) && c != '_' && c != '/') {
      return {};
    }
    ++end;
  }
  if (end == text.size() || end == kMaxMarkerBytes || end == 1) return {};
  while (angle && end + 1 < text.size() && text[end + 1] == '>') ++end;  // <<SYS>>
  return text.substr(0, end + 1);
}

const std::vector<ChatMessage>& ProbeTurns() {
  static const auto* const turns = new std::vector<ChatMessage>{{"user", "Q"}, {"assistant", "A"}, {"user", "R"}};
  return *turns;
}

}  // namespace

// ---- Where templates come from --------------------------------------------------------------------------------------

absl::StatusOr<ChatTemplate> ChatTemplate::Make(std::string name, std::string_view source) {
  absl::StatusOr<jinja::Template> program = jinja::Template::Parse(source);
  if (!program.ok()) return In(name, program.status());
  return ChatTemplate(std::move(name), std::string(source), *std::move(program));
}

absl::StatusOr<ChatTemplate> ChatTemplate::FromJinja(std::string_view source) {
  absl::StatusOr<ChatTemplate> made = Make("chat template", source);
  if (made.ok()) made->FindOut();
  return made;
}

absl::StatusOr<ChatTemplate> ChatTemplate::ByName(std::string_view name) {
  const std::optional<std::string_view> source = NamedTemplate(name);
  if (!source) {
    return absl::InvalidArgumentError(absl::StrFormat("chat template: expected one of %s, found '%s'",
                                                      absl::StrJoin(NamedTemplates(), ", "),
                                                      std::string(name.substr(0, 40))));
  }
  absl::StatusOr<ChatTemplate> made = Make(std::string(name), *source);
  if (made.ok()) made->FindOut();
  return made;
}

absl::StatusOr<ChatTemplate> ChatTemplate::Choose(const gguf::File& file, const std::string& choice) {
  if (NamedTemplate(choice)) {
    absl::StatusOr<ChatTemplate> made = ByName(choice);
    if (made.ok()) made->why_ = absl::StrFormat("the built-in '%s', as chosen", choice);
    return made;
  }
  if (!choice.empty()) {
    absl::StatusOr<std::string> source = ReadTemplateFile(choice);
    if (!source.ok()) return source.status();
    absl::StatusOr<ChatTemplate> made = Make(choice, *source);
    if (!made.ok()) return In("--chat-template", made.status());
    made->why_ = absl::StrFormat("the file '%s', as chosen", choice);
    if (absl::Status status = made->CheckUse(); !status.ok()) return In("--chat-template", status);
    made->FindOut();
    return made;
  }
  const std::string where = absl::StrFormat("chat template of '%s'", file.path());
  if (!file.Has(kOwnKey)) {
    return absl::NotFoundError(absl::StrFormat("%s: the file has no key %s; %s", where, kOwnKey, WhatToChoose()));
  }
  const absl::StatusOr<std::string_view> source = file.GetString(kOwnKey);
  if (!source.ok()) return In(where, source.status());
  absl::StatusOr<ChatTemplate> made = Make(kOwnKey, *source);
  if (!made.ok()) {
    return absl::Status(made.status().code(),
                        absl::StrCat(where, ": ", std::string(made.status().message()), "; ", WhatToChoose()));
  }
  if (absl::Status status = made->CheckUse(); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat(where, ": ", std::string(status.message()), "; ", WhatToChoose()));
  }
  made->why_ = "the model file's own";
  if (file.Has(kToolKey)) {
    const absl::StatusOr<std::string_view> tool_source = file.GetString(kToolKey);
    if (!tool_source.ok()) return In(where, tool_source.status());
    absl::StatusOr<jinja::Template> program = jinja::Template::Parse(*tool_source);
    if (!program.ok()) return In(absl::StrCat(where, ": ", kToolKey), program.status());
    made->tool_program_ = *std::move(program);
    made->tool_source_ = std::string(*tool_source);
    made->why_ = "the model file's own, with one for tools";
  }
  made->FindOut();
  return made;
}

absl::StatusOr<std::string> ChatFingerprint(const Tokenizer& tokenizer, const absl::StatusOr<ChatTemplate>& chat) {
  FieldHasher hasher;
  hasher.Add(tokenizer.fingerprint());
  hasher.Add(chat.ok() ? chat->source() : "");
  hasher.Add(chat.ok() ? chat->tool_source() : "");
  return hasher.Finish();
}

// ---- What a template does -------------------------------------------------------------------------------------------

bool ChatTemplate::RendersCalls(const CallForm& form) const {
  ChatTemplate trial = *this;
  trial.call_form_ = form;
  const std::vector<ChatMessage> messages = {
      {"user", "Q"},
      {"assistant", "", {{"call00001", "probe_name", R"({"probe_key": "probe_value"})"}}},
      {.role = "tool", .content = "probe_result", .tool_call_id = "call00001", .name = "probe_name"}};
  const std::vector<ChatTool> tools = {{"probe_name", "probe_description"}};
  const absl::StatusOr<SourcedText> text = trial.Run({.messages = messages, .tools = tools}, "<s>", "</s>");
  if (!text.ok()) return false;
  const auto has = [&](const char* what) { return text->bytes().find(what) != std::string::npos; };
  return Has(*text, ChatInput::kTools) && Has(*text, ChatInput::OfCalls(1)) && has("probe_key") && has("probe_value") &&
         has("probe_result");
}

// What a template does wrong whatever it is given is told when it is chosen, not with the first conversation.
absl::Status ChatTemplate::CheckUse() const {
  static const auto* const kSystem = new std::vector<ChatMessage>{{"system", "S"}, {"user", "Q"}};
  const std::span<const ChatMessage> forms[] = {{ProbeTurns().data(), 1}, ProbeTurns(), *kSystem};
  absl::Status status;
  for (const std::span<const ChatMessage> messages : forms) {
    const absl::StatusOr<SourcedText> text = Run({.messages = messages}, "<s>", "</s>");
    if (text.ok() && Has(*text, ChatInput::OfContent(messages.size() - 1))) return absl::OkStatus();
    if (status.ok() && !text.ok()) status = text.status();
  }
  if (!status.ok()) return status;
  return absl::InvalidArgumentError(
      absl::StrCat("the model's chat template (", name_,
                   "): expected one that writes what a user says, found that it writes nothing of it"));
}

void ChatTemplate::FindOut() {
  for (const CallForm& form :
       {CallForm{false, false}, CallForm{false, true}, CallForm{true, false}, CallForm{true, true}}) {
    if (!RendersCalls(form)) continue;
    call_form_ = form;
    renders_tools_ = true;
    break;
  }
  const std::span<const ChatMessage> question(ProbeTurns().data(), 1);
  const auto with = [&](bool thinking) { return Run({.messages = question, .thinking = thinking}, "<s>", "</s>"); };
  const absl::StatusOr<SourcedText> on = with(true), off = with(false);
  can_skip_thought_ = on.ok() && off.ok() && on->bytes() != off->bytes();
}

// What the template writes between an answer and the next question.
std::string ChatTemplate::AfterAnswer(std::string_view bos, std::string_view eos) const {
  const absl::StatusOr<SourcedText> text = Run({.messages = ProbeTurns()}, bos, eos);
  if (!text.ok()) return "";
  const SourcedText::Runs& runs = text->runs();
  size_t answer = 0;
  for (const SourcedText::Run& run : runs) {
    if (run.source == ChatInput::OfContent(1)) answer = run.end;
  }
  for (const SourcedText::Run& run : runs) {
    if (answer > 0 && run.end > answer && run.source == jinja::kTemplate) {
      return text->bytes().substr(answer, run.end - answer);
    }
  }
  return "";
}

std::vector<std::string> ChatTemplate::StopStrings(const Tokenizer& tokenizer) const {
  const std::string after =
      AfterAnswer(tokenizer.SpecialText(tokenizer.bos_id()), tokenizer.SpecialText(tokenizer.eos_id()));
  const std::string_view behind = std::string_view(after).substr(jinja::StripRange(after, nullptr, true, false).begin);
  std::string_view stop = MarkerAt(behind);
  if (stop.empty()) {
    stop = behind.substr(0, behind.find('\n'));
    stop = stop.substr(0, jinja::StripRange(stop, nullptr, false, true).end);
  }
  // A single letter or sign would end answers that it happens to be in.
  if (stop.size() < 3 || stop.size() > kMaxMarkerBytes) return {};
  return {std::string(stop)};
}

std::vector<int32_t> ChatTemplate::StopTokenIds(const Tokenizer& tokenizer) const {
  std::vector<int32_t> ids = tokenizer.EndOfGenerationIds();
  for (const std::string& stop : StopStrings(tokenizer)) {
    const std::optional<int32_t> id = tokenizer.SpecialTokenId(stop);
    if (id && std::find(ids.begin(), ids.end(), *id) == ids.end()) ids.push_back(*id);
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

// ---- Rendering ------------------------------------------------------------------------------------------------------

absl::Status ChatTemplate::CheckMessages(const Chat& chat) const {
  if (chat.messages.empty()) {
    return absl::InvalidArgumentError("conversation: expected at least one message, found none; send a user message");
  }
  for (size_t i = 0; i < chat.messages.size(); ++i) {
    const ChatMessage& message = chat.messages[i];
    const bool is_tool = message.role == "tool";
    if (message.role != "system" && message.role != "user" && message.role != "assistant" &&
        !(is_tool && renders_tools_)) {
      return absl::InvalidArgumentError(
          absl::StrFormat("messages[%u].role: expected system, user or assistant, found '%s'%s", i,
                          message.role.substr(0, 40), is_tool ? "; the model's chat template has no tools" : ""));
    }
    if (!message.tool_calls.empty() && !renders_tools_) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "messages[%u].tool_calls: the model's chat template (%s) has no tools; leave the calls out", i, name_));
    }
  }
  if (chat.ending == Chat::Ending::kContinuesAnswer && chat.messages.back().role != "assistant") {
    return absl::InvalidArgumentError(
        absl::StrFormat("messages[%u].role: expected assistant, since the last message is to be continued, found %s",
                        chat.messages.size() - 1, chat.messages.back().role));
  }
  if (!chat.tools.empty() && !renders_tools_) {
    return absl::InvalidArgumentError(
        absl::StrFormat("tools: the model's chat template (%s) has none; leave them out", name_));
  }
  return absl::OkStatus();
}

// A model that is not shown a message answers as if it had not been sent.
absl::Status ChatTemplate::CheckNothingLost(const Chat& chat, const SourcedText& text) const {
  for (size_t i = 0; i < chat.messages.size(); ++i) {
    const ChatMessage& message = chat.messages[i];
    if (message.role != "assistant" && !IsBlank(message.content) && !Has(text, ChatInput::OfContent(i))) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "messages[%u]: the model's chat template (%s) %s", i, name_,
          message.role == "system" ? "has no system role; put the text into the first user message"
                                   : "leaves this message out; change the order or the roles of the messages"));
    }
    if (!message.tool_calls.empty() && !Has(text, ChatInput::OfCalls(i))) {
      return absl::InvalidArgumentError(
          absl::StrFormat("messages[%u].tool_calls: the model's chat template (%s) leaves the calls out", i, name_));
    }
  }
  if (!chat.tools.empty() && !Has(text, ChatInput::kTools)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("tools: the model's chat template (%s) leaves them out of this conversation", name_));
  }
  return absl::OkStatus();
}

absl::StatusOr<SourcedText> ChatTemplate::Run(const Chat& chat, std::string_view bos, std::string_view eos) const {
  const absl::StatusOr<jinja::Dict> variables = ChatInput::Variables(chat, call_form_, bos, eos);
  if (!variables.ok()) return variables.status();
  bool has_tools = !chat.tools.empty();
  for (const ChatMessage& message : chat.messages) {
    has_tools = has_tools || message.role == "tool" || !message.tool_calls.empty();
  }
  const jinja::Template& program = has_tools && tool_program_ ? *tool_program_ : program_;
  absl::StatusOr<SourcedText> text = program.Render(*variables, now_ ? *now_ : absl::Now());
  if (!text.ok()) return In(absl::StrFormat("the model's chat template (%s)", name_), text.status());
  if (chat.ending == Chat::Ending::kContinuesAnswer) {
    if (absl::Status cut = ChatInput::CutBehindLast(&*text); !cut.ok()) return cut;
  }
  return text;
}

absl::StatusOr<std::vector<TextSegment>> ChatTemplate::Render(const Chat& chat, std::string_view bos,
                                                              std::string_view eos) const {
  if (absl::Status status = CheckMessages(chat); !status.ok()) return status;
  const absl::StatusOr<SourcedText> text = Run(chat, bos, eos);
  if (!text.ok()) return text.status();
  if (absl::Status status = CheckNothingLost(chat, *text); !status.ok()) return status;
  std::vector<TextSegment> segments;
  size_t begin = 0;
  for (const SourcedText::Run& run : text->runs()) {
    const bool is_special = run.source == jinja::kTemplate;
    if (segments.empty() || segments.back().is_special != is_special) segments.push_back({"", is_special});
    segments.back().text.append(text->bytes(), begin, run.end - begin);
    begin = run.end;
  }
  return segments;
}

absl::StatusOr<std::string> ChatTemplate::RenderText(const Chat& chat, std::string_view bos,
                                                     std::string_view eos) const {
  const absl::StatusOr<std::vector<TextSegment>> segments = Render(chat, bos, eos);
  if (!segments.ok()) return segments.status();
  std::string text;
  for (const TextSegment& segment : *segments) text += segment.text;
  return text;
}

// The markers of turns, without those of tools: what a template says of tools is full of things in angle brackets.
absl::Status ChatTemplate::CheckMarkers(const Tokenizer& tokenizer, const Chat& chat, std::string_view bos,
                                        std::string_view eos) const {
  const auto may_have = [](const ChatMessage& message) {
    return message.content.find_first_of("<[") != std::string::npos;
  };
  if (std::none_of(chat.messages.begin(), chat.messages.end(), may_have)) return absl::OkStatus();
  const bool has_system = chat.messages[0].role == "system";
  std::vector<ChatMessage> turns = ProbeTurns();
  if (has_system) turns.insert(turns.begin(), {"system", "S"});
  const absl::StatusOr<SourcedText> text = Run({.messages = turns}, bos, eos);
  if (!text.ok()) return absl::OkStatus();
  const std::string_view bytes = text->bytes();
  for (size_t at = 0; at < bytes.size(); ++at) {
    const std::string marker(MarkerAt(bytes.substr(at)));
    if (marker.empty() || tokenizer.SpecialTokenId(marker) || text->SourceAt(at) != jinja::kTemplate) continue;
    for (size_t i = 0; i < chat.messages.size(); ++i) {
      const ChatMessage& message = chat.messages[i];
      if (message.content.find(marker) == std::string::npos) continue;
      // A model's own thoughts come back with its answers.
      if (message.role == "assistant" && (marker == "<think>" || marker == "</think>")) continue;
      return absl::InvalidArgumentError(absl::StrFormat(
          "messages[%u].content: contains '%s', which this model cannot tell from the chat format's own; remove it", i,
          marker));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> ChatTemplate::RenderTokens(const Tokenizer& tokenizer, const Chat& chat) const {
  const std::string bos = tokenizer.SpecialText(tokenizer.bos_id());
  const std::string eos = tokenizer.SpecialText(tokenizer.eos_id());
  const absl::StatusOr<std::vector<TextSegment>> segments = Render(chat, bos, eos);
  if (!segments.ok()) return segments.status();
  if (absl::Status status = CheckMarkers(tokenizer, chat, bos, eos); !status.ok()) return status;
  // The template writes bos and eos itself.
  return tokenizer.EncodeSegments(*segments, {.add_special = false});
}

}  // namespace updraft::text
