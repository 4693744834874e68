#ifndef UPDRAFT_COMMON_TEXT_CHAT_TEMPLATE_H_
#define UPDRAFT_COMMON_TEXT_CHAT_TEMPLATE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/jinja/template.h"
#include "common/text/tokenizer.h"

namespace updraft::text {

// A call of a tool, as a model asked for it.
struct ChatToolCall {
  std::string id;
  std::string name;
  std::string arguments;  // JSON
};

struct ChatMessage {
  std::string role;  // "system", "user" or "assistant"; "tool" where the template writes tools
  std::string content;
  std::vector<ChatToolCall> tool_calls = {};  // of an assistant
  std::string tool_call_id = {};              // of a tool: the call that `content` is the result of
  std::string name = {};                      // of a tool
};

struct ChatTool {
  std::string name;
  std::string description = {};
  std::string parameters = {};  // JSON schema, an object; empty: none
};

// What is rendered.
struct Chat {
  enum class Ending {
    kOpensAnswer,      // the opening of an assistant's message (add_generation_prompt)
    kContinuesAnswer,  // the last message, an assistant's, without what closes it (continue_final_message)
    kNothing,
  };
  std::span<const ChatMessage> messages;
  std::span<const ChatTool> tools = {};
  Ending ending = Ending::kOpensAnswer;
  std::optional<bool> thinking = {};  // for templates that ask (enable_thinking, thinking); nullopt: as they like
};

// How a model was taught to see a conversation: a Jinja program, most often from the model's own file, which is run for
// each conversation. Rendering keeps apart what the template wrote from what people wrote, whatever the program does
// with it: control tokens come from the template alone. Immutable but for the date; concurrent rendering is fine.
class ChatTemplate {
 public:
  // `choice` is what a person chose: a name (ByName) or the path of a file with a template. Empty:
  // tokenizer.chat_template of the model file, with tokenizer.chat_template.tool_use beside it where it has one.
  // NOT_FOUND when it has none and nothing was chosen: says what to choose. INVALID_ARGUMENT for a program that does
  // not parse, with its line.
  static absl::StatusOr<ChatTemplate> Choose(const gguf::File& file, const std::string& choice);

  // From the program itself.
  static absl::StatusOr<ChatTemplate> FromJinja(std::string_view source);

  // One of NamedTemplates(). INVALID_ARGUMENT lists them.
  static absl::StatusOr<ChatTemplate> ByName(std::string_view name);

  const std::string& name() const { return name_; }  // "chatml", "tokenizer.chat_template", a file's path, ...
  const std::string& why() const { return why_; }    // one line for a person: where it comes from
  const std::string& source() const { return source_; }
  // That of the template for conversations with tools, where it is another; else empty.
  const std::string& tool_source() const { return tool_source_; }

  // What the template does, found out by rendering small conversations.
  bool renders_tools() const { return renders_tools_; }        // tools, calls and results
  bool can_skip_thought() const { return can_skip_thought_; }  // Chat::thinking makes a difference

  // What strftime_now of the template says; by default the time of each rendering.
  void set_now(absl::Time now) { now_ = now; }

  // The prompt, with `bos` and `eos` for the tokens of these names (empty: none). INVALID_ARGUMENT names the message:
  // an empty conversation, a role that is not known, what the template refuses, and what it would leave out without a
  // word (a system message, tools).
  absl::StatusOr<std::vector<TextSegment>> Render(const Chat& chat, std::string_view bos, std::string_view eos) const;

  // The prompt as tokens. Where a marker of the template (<|user|>, [INST]) is no token of the vocabulary it is written
  // as plain text; then a message that contains it is refused, since the model could not tell the two apart.
  absl::StatusOr<std::vector<int32_t>> RenderTokens(const Tokenizer& tokenizer, const Chat& chat) const;

  // The prompt for people to look at. Never tokenize it: the difference between markers and contents is lost.
  absl::StatusOr<std::string> RenderText(const Chat& chat, std::string_view bos = "<s>",
                                         std::string_view eos = "</s>") const;

  // What ends an answer: the text that the template writes behind one (<|im_end|>, or the next turn's heading), and
  // tokens of this vocabulary (end of generation in general, and that text where it is one).
  std::vector<std::string> StopStrings(const Tokenizer& tokenizer) const;
  std::vector<int32_t> StopTokenIds(const Tokenizer& tokenizer) const;

 private:
  // How calls are given to a template: published ones disagree.
  struct CallForm {
    bool arguments_as_text = false;  // JSON text rather than an object
    bool silence_as_none = false;    // the content of a message that only calls: none rather than ""
  };
  friend class ChatInput;

  ChatTemplate(std::string name, std::string source, jinja::Template program)
      : name_(std::move(name)), source_(std::move(source)), program_(std::move(program)) {}
  static absl::StatusOr<ChatTemplate> Make(std::string name, std::string_view source);

  absl::Status CheckUse() const;  // REQUIRES: before FindOut
  void FindOut();
  bool RendersCalls(const CallForm& form) const;
  absl::StatusOr<jinja::SourcedText> Run(const Chat& chat, std::string_view bos, std::string_view eos) const;
  std::string AfterAnswer(std::string_view bos, std::string_view eos) const;
  absl::Status CheckMessages(const Chat& chat) const;
  absl::Status CheckNothingLost(const Chat& chat, const jinja::SourcedText& text) const;
  absl::Status CheckMarkers(const Tokenizer& tokenizer, const Chat& chat, std::string_view bos,
                            std::string_view eos) const;

  std::string name_, why_, source_, tool_source_;
  jinja::Template program_;
  std::optional<jinja::Template> tool_program_;  // for conversations with tools
  std::optional<absl::Time> now_;
  CallForm call_form_;
  bool renders_tools_ = false, can_skip_thought_ = false;
};

// What two tiers compare before they exchange token ids: SHA-256 (hexadecimal) over the tokenizer's fingerprint and the
// template's. A template that is missing counts as an empty one.
absl::StatusOr<std::string> ChatFingerprint(const Tokenizer& tokenizer, const absl::StatusOr<ChatTemplate>& chat);

}  // namespace updraft::text

#endif  // UPDRAFT_COMMON_TEXT_CHAT_TEMPLATE_H_
