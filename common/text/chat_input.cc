#include "common/text/chat_input.h"

#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "common/jinja/json.h"
#include "common/jinja/unicode.h"

namespace updraft::text {
namespace {

using jinja::Dict;
using jinja::None;
using jinja::Source;
using jinja::SourcedText;
using jinja::Value;

constexpr Source kEndOfLast = ~Source{0};
// Ends in a space, which a template that trims contents drops: so one sees whether it did.
constexpr char kEndTag[] = "END_OF_LAST_MESSAGE ";

absl::StatusOr<Value> ParsedObject(const std::string& field, const std::string& json, Source source) {
  absl::StatusOr<Value> value = jinja::ParseJson(json, source);
  if (value.ok() && value->is_dict()) return value;
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: expected a JSON object, found %s", field,
                      value.ok() ? jinja::KindName(*value) : std::string(value.status().message())));
}

Value CallValue(const ChatToolCall& call, bool arguments_as_text, Source source) {
  Dict function;
  function.Set("name", Value(call.name, source));
  // A model may have written what is no JSON; it is given as it stands then.
  absl::StatusOr<Value> arguments = absl::InvalidArgumentError("");
  if (!arguments_as_text) arguments = ParsedObject("", call.arguments.empty() ? "{}" : call.arguments, source);
  function.Set("arguments", arguments.ok() ? *std::move(arguments) : Value(call.arguments, source));
  Dict out;
  out.Set("id", Value(call.id, source));
  out.Set("type", Value("function"));
  out.Set("function", Value(std::move(function)));
  return Value(std::move(out));
}

absl::StatusOr<Value> ToolValue(const ChatTool& tool, size_t index) {
  Dict function;
  function.Set("name", Value(tool.name, ChatInput::kTools));
  function.Set("description", Value(tool.description, ChatInput::kTools));
  const std::string empty = R"({"type": "object", "properties": {}})";
  absl::StatusOr<Value> parameters = ParsedObject(absl::StrFormat("tools[%u].parameters", index),
                                                  tool.parameters.empty() ? empty : tool.parameters, ChatInput::kTools);
  if (!parameters.ok()) return parameters.status();
  function.Set("parameters", *std::move(parameters));
  Dict out;
  out.Set("type", Value("function"));
  out.Set("function", Value(std::move(function)));
  return Value(std::move(out));
}

Value MessageValue(const ChatMessage& message, size_t index, bool arguments_as_text, bool silence_as_none,
                   bool marks_end) {
  Dict out;
  out.Set("role", Value(message.role));
  SourcedText content(message.content, ChatInput::OfContent(index));
  if (marks_end) content.Append(kEndTag, kEndOfLast);
  const bool is_silent = content.empty() && !message.tool_calls.empty();
  out.Set("content", is_silent && silence_as_none ? Value(None{}) : Value(std::move(content)));
  if (!message.tool_calls.empty()) {
    std::vector<Value> calls;
    for (const ChatToolCall& call : message.tool_calls) {
      calls.push_back(CallValue(call, arguments_as_text, ChatInput::OfCalls(index)));
    }
    out.Set("tool_calls", Value::List(std::move(calls)));
  }
  if (!message.tool_call_id.empty()) out.Set("tool_call_id", Value(message.tool_call_id, ChatInput::OfContent(index)));
  if (!message.name.empty()) out.Set("name", Value(message.name, ChatInput::OfContent(index)));
  return Value(std::move(out));
}

}  // namespace

absl::StatusOr<Dict> ChatInput::Variables(const Chat& chat, const ChatTemplate::CallForm& form, std::string_view bos,
                                          std::string_view eos) {
  std::vector<Value> messages, tools;
  for (size_t i = 0; i < chat.messages.size(); ++i) {
    const bool marks_end = chat.ending == Chat::Ending::kContinuesAnswer && i + 1 == chat.messages.size();
    messages.push_back(MessageValue(chat.messages[i], i, form.arguments_as_text, form.silence_as_none, marks_end));
  }
  for (size_t i = 0; i < chat.tools.size(); ++i) {
    absl::StatusOr<Value> tool = ToolValue(chat.tools[i], i);
    if (!tool.ok()) return tool.status();
    tools.push_back(*std::move(tool));
  }
  Dict variables;
  variables.Set("messages", Value::List(std::move(messages)));
  variables.Set("tools", tools.empty() ? Value(None{}) : Value::List(std::move(tools)));
  variables.Set("documents", Value(None{}));
  variables.Set("add_generation_prompt", Value(chat.ending == Chat::Ending::kOpensAnswer));
  variables.Set("bos_token", Value(std::string(bos)));
  variables.Set("eos_token", Value(std::string(eos)));
  if (chat.thinking) {
    variables.Set("enable_thinking", Value(*chat.thinking));
    variables.Set("thinking", Value(*chat.thinking));
  }
  return variables;
}

absl::Status ChatInput::CutBehindLast(SourcedText* text) {
  const SourcedText::Runs& runs = text->runs();
  for (size_t i = runs.size(); i-- > 0;) {
    if (runs[i].source != kEndOfLast) continue;
    const size_t begin = i > 0 ? runs[i - 1].end : 0;
    const bool is_whole = runs[i].end - begin == sizeof(kEndTag) - 1;
    text->Truncate(begin);
    if (!is_whole) text->Truncate(jinja::StripRange(text->bytes(), nullptr, false, true).end);
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      "the chat template leaves out the end of the last message, so that it cannot be continued; end the conversation "
      "with a user message");
}

}  // namespace updraft::text
