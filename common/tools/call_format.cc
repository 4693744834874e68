#include "common/tools/call_format.h"

#include <algorithm>
#include <iterator>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/tools/call_parser.h"
#include "common/tools/text_parts.h"

namespace updraft::tools {
namespace {

using Form = CallFormat::Form;

// No template writes these words of itself.
constexpr char kName[] = "zq_called", kKey[] = "zq_key", kId[] = "zqcall001", kOtherId[] = "zqcall002";

// In this order: the first whose markers stand there, and that reads the calls.
const std::vector<CallFormat>& Known() {
  static const auto* const known = [] {
    CallFormat hermes, jamba, mistral, mistral_named, phi4, granite, llama3;
    hermes.name = "hermes", hermes.open = "<tool_call>", hermes.close = "</tool_call>";
    jamba.name = "jamba", jamba.open = "<tool_calls>", jamba.close = "</tool_calls>", jamba.form = Form::kList;
    mistral.name = "mistral", mistral.open = "[TOOL_CALLS]", mistral.form = Form::kList;
    mistral_named.name = "mistral-named", mistral_named.open = "[TOOL_CALLS]", mistral_named.form = Form::kNamed;
    mistral_named.before_arguments = "[ARGS]";
    phi4.name = "phi4", phi4.open = "<|tool_call|>", phi4.close = "<|/tool_call|>", phi4.form = Form::kList;
    granite.name = "granite", granite.open = "<|tool_call|>", granite.form = Form::kList;
    llama3.name = "llama3", llama3.open = "<|python_tag|>", llama3.bare = true, llama3.several = false;
    llama3.arguments_key = "parameters";
    return new std::vector<CallFormat>{hermes, jamba, mistral, mistral_named, phi4, granite, llama3};
  }();
  return *known;
}

std::string WithoutSpace(std::string_view text) {
  std::string out;
  std::copy_if(text.begin(), text.end(), std::back_inserter(out), [](char c) { return !IsSpace(c); });
  return out;
}

// What the template writes of an answer of so many calls, from where an answer of text would begin: templates may open
// one otherwise than they write one that was given (with thoughts). Empty: nothing.
std::string Written(const text::ChatTemplate& chat, int n_calls) {
  std::vector<text::ChatMessage> messages = {{"user", "Q"}, {"assistant", "zq_text"}};
  const std::vector<text::ChatTool> tools = {{"zq_other", "D"}};
  const auto render = [&] {
    const auto text = chat.RenderText({.messages = messages, .tools = tools, .ending = text::Chat::Ending::kNothing});
    return text.ok() ? *text : std::string();
  };
  const std::string plain = render();
  messages[1].content.clear();
  for (int i = 0; i < n_calls; ++i) {
    messages[1].tool_calls.push_back({i == 0 ? kId : kOtherId, kName, absl::StrCat("{\"", kKey, "\": \"v", i, "\"}")});
  }
  const std::string whole = render();
  const auto parts = std::mismatch(plain.begin(), plain.end(), whole.begin(), whole.end());
  return plain.find("zq_text") == std::string::npos ? "" : std::string(parts.second, whole.end());
}

// Whether what stands behind the first OPEN is what the form begins with there.
bool BeginsAs(const CallFormat& format, const std::string& written) {
  const size_t open = written.find(format.open);
  if (open == std::string::npos) return format.bare;
  const std::string_view behind = WithoutLeadingSpace(std::string_view(written).substr(open + format.open.size()));
  const char first = behind.empty() ? '\0' : behind[0];
  return format.form == Form::kList ? first == '[' : (first == '{') == (format.form == Form::kObjects);
}

// Whether this format reads all the calls out of it, and leaves nothing of them as text.
bool Reads(const CallFormat& format, const std::string& written, int n_calls) {
  CallParser parser(format);
  std::vector<CallEvent> events;
  parser.Push(written, events);
  parser.Finish(events);
  int n_read = 0;
  std::string arguments, expected;
  for (const CallEvent& event : events) {
    if (event.kind == CallEvent::Kind::kText && event.text.find(kKey) != std::string::npos) return false;
    if (event.kind == CallEvent::Kind::kCall && event.text != kName) return false;
    n_read += event.kind == CallEvent::Kind::kCall ? 1 : 0;
    if (event.kind == CallEvent::Kind::kArguments) arguments += event.text;
  }
  for (int i = 0; i < n_calls; ++i) absl::StrAppend(&expected, "{\"", kKey, "\":\"v", i, "\"}");
  return n_read == n_calls && WithoutSpace(arguments) == expected;
}

// What the template's own calls decide.
void FillIn(const std::string& written, CallFormat& format) {
  const std::string squeezed = WithoutSpace(written);
  const auto has = [&](const std::string& what) { return squeezed.find(what) != std::string::npos; };
  if (format.form == Form::kNamed) {
    format.writes_id = has(absl::StrCat("[CALL_ID]", kId));
    if (!has("[ARGS]{")) format.before_arguments.clear();
    return;
  }
  format.writes_id = has(absl::StrCat("\"},\"id\":\"", kId, "\"}"));
  format.arguments_key = has(absl::StrCat("\"parameters\":{\"", kKey)) ? "parameters" : "arguments";
}

}  // namespace

std::optional<CallFormat> CallFormatOf(const text::ChatTemplate& chat) {
  if (!chat.renders_tools()) return std::nullopt;
  const std::string one = Written(chat, 1), two = Written(chat, 2);
  for (const CallFormat& known : Known()) {
    // Llama 3's is read by what an answer begins with, without its marker, too.
    const bool is_marked = one.find(known.open) != std::string::npos && one.find(known.close) != std::string::npos;
    if ((!is_marked && !known.bare) || !BeginsAs(known, one) || !Reads(known, one, 1)) continue;
    CallFormat format = known;
    FillIn(one, format);
    format.several = known.several && Reads(known, two, 2);
    format.may_think = chat.source().find("</think>") != std::string::npos;
    return format;
  }
  return std::nullopt;
}

std::optional<CallFormat> CallFormatNamed(std::string_view name) {
  for (const CallFormat& known : Known()) {
    if (known.name == name) return known;
  }
  return std::nullopt;
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
