#include "common/tools/call_format.h"

#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace updraft::tools {
namespace {

using Form = CallFormat::Form;

// No template writes these words of itself.
constexpr char kName[] = "zq_called", kKey[] = "zq_key", kId[] = "zqcall001";

struct Known {
  const char* name;
  const char* open;
  const char* close;
  Form form;
};

// In this order: the first whose marker stands before the call.
constexpr Known kKnown[] = {
    {"hermes", "<tool_call>", "</tool_call>", Form::kObjects},
    {"jamba", "<tool_calls>", "</tool_calls>", Form::kList},
    {"mistral", "[TOOL_CALLS]", "", Form::kList},
    {"granite", "<|tool_call|>", "", Form::kList},
};

std::string Rendered(const text::ChatTemplate& chat, const std::string& arguments) {
  const std::vector<text::ChatMessage> messages = {
      {"user", "Q"},
      {"assistant", "", {{kId, kName, arguments}}},
      {.role = "tool", .content = "R", .tool_call_id = kId, .name = kName}};
  const std::vector<text::ChatTool> tools = {{"zq_other", "D"}};
  auto text = chat.RenderText({.messages = messages, .tools = tools, .ending = text::Chat::Ending::kNothing});
  return text.ok() ? *std::move(text) : "";
}

bool ConsumePrefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

// JSON's white space left out where it is between values: names here have none.
std::string Squeezed(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (!absl::ascii_isspace(static_cast<unsigned char>(c))) out += c;
  }
  return out;
}

// Of an object that holds the name: the key of its arguments; empty: it is none of a call.
std::string ArgumentsKey(const std::string& object) {
  for (const char* key : {"arguments", "parameters"}) {
    if (object.find(absl::StrCat("\"", key, "\":{\"", kKey, "\"")) != std::string::npos) return key;
  }
  return "";
}

// `between`: from the marker to the name; `after`: from the name on.
bool ReadForm(std::string_view between, std::string_view after, CallFormat& format) {
  const std::string before = Squeezed(between), behind = Squeezed(after);
  if (before.empty()) {  // NAME [CALL_ID] ID [ARGS] {...}
    std::string_view rest = std::string_view(behind).substr(sizeof(kName) - 1);
    format.form = Form::kNamed;
    format.writes_id = ConsumePrefix(rest, absl::StrCat("[CALL_ID]", kId));
    if (ConsumePrefix(rest, "[ARGS]")) format.before_arguments = "[ARGS]";
    return rest.starts_with(absl::StrCat("{\"", kKey, "\""));
  }
  const bool in_list = before.starts_with("[{");
  if (!in_list && !before.starts_with("{")) return false;
  if (in_list != (format.form == Form::kList)) return false;
  const std::string object = absl::StrCat(before, behind);
  if (object.find(absl::StrCat("\"name\":\"", kName, "\"")) == std::string::npos) return false;
  format.arguments_key = ArgumentsKey(object);
  const size_t end = object.find('}', before.size());
  format.writes_id =
      end != std::string::npos && object.substr(end).starts_with(absl::StrCat("},\"id\":\"", kId, "\"}"));
  return !format.arguments_key.empty();
}

}  // namespace

std::optional<CallFormat> CallFormatOf(const text::ChatTemplate& chat) {
  if (!chat.renders_tools()) return std::nullopt;
  const std::string text = Rendered(chat, absl::StrCat("{\"", kKey, "\": \"v\"}"));
  const size_t name = text.find(kName);
  if (name == std::string::npos) return std::nullopt;
  CallFormat format;
  format.may_think = chat.source().find("</think>") != std::string::npos;
  const std::string_view before = std::string_view(text).substr(0, name), after = std::string_view(text).substr(name);
  for (const Known& known : kKnown) {
    const size_t open = before.rfind(known.open);
    if (open == std::string_view::npos) continue;
    format.name = known.name;
    format.form = known.form;
    format.open = known.open;
    format.close = known.close;
    if (!ReadForm(before.substr(open + format.open.size()), after, format)) continue;
    // Phi-4-mini closes the marker that Granite leaves open.
    if (format.open == "<|tool_call|>" && after.find("<|/tool_call|>") != std::string_view::npos) {
      format.close = "<|/tool_call|>";
    }
    return format;
  }
  // An object that the answer begins with.
  const std::vector<text::ChatMessage> question = {{"user", "Q"}};
  const std::vector<text::ChatTool> tools = {{"zq_other", "D"}};
  const auto opened = chat.RenderText({.messages = question, .tools = tools});
  if (!opened.ok()) return std::nullopt;
  std::string header = *opened;
  absl::StripTrailingAsciiWhitespace(&header);
  if (!before.starts_with(header)) return std::nullopt;
  format.form = Form::kObjects;
  if (!ReadForm(before.substr(header.size()), after, format) || format.form != Form::kObjects) return std::nullopt;
  format.name = "llama3";
  format.open = "<|python_tag|>";
  format.bare = true;
  format.several = false;
  return format;
}

std::vector<int32_t> MarkerTokens(const CallFormat& format, const text::Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  for (const std::string& marker : {format.open, format.close, format.before_arguments,
                                    std::string(format.form == Form::kNamed && format.writes_id ? "[CALL_ID]" : "")}) {
    if (marker.empty()) continue;
    const std::optional<int32_t> id = tokenizer.SpecialTokenId(marker);
    if (id && tokenizer.TokenBytes(*id).empty()) ids.push_back(*id);
  }
  return ids;
}

std::string CallId(const CallFormat& format, uint64_t seed) {
  constexpr std::string_view kAlphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  const bool is_short = format.open == "[TOOL_CALLS]";
  std::string id = is_short ? "" : "call_";
  for (const size_t size = id.size() + (is_short ? 9 : 24); id.size() < size;) {
    // SplitMix64 (Steele, Lea and Flood 2014).
    seed += 0x9E3779B97F4A7C15u;
    uint64_t mixed = (seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBu;
    id += kAlphabet[(mixed ^ (mixed >> 31)) % kAlphabet.size()];
  }
  return id;
}

}  // namespace updraft::tools
