#ifndef UPDRAFT_COMMON_TEXT_CHAT_TEMPLATE_H_
#define UPDRAFT_COMMON_TEXT_CHAT_TEMPLATE_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/text/tokenizer.h"

namespace updraft::text {

// A call of a tool, as a model asked for it.
struct ChatToolCall {
  std::string id;
  std::string name;
  std::string arguments;  // JSON
};

struct ChatMessage {
  std::string role;  // "system", "user" or "assistant"; "tool" where the format has tools
  std::string content;
  std::vector<ChatToolCall> tool_calls = {};  // of an assistant
  std::string tool_call_id = {};              // of a tool: the call that `content` is the result of
  std::string name = {};                      // of a tool
};

enum class ChatFormat {
  kChatMl,   // <|im_start|>user\n...<|im_end|>\n
  kLlama2,   // [INST] <<SYS>>\n...\n<</SYS>>\n\n ... [/INST]
  kLlama3,   // <|start_header_id|>user<|end_header_id|>\n\n...<|eot_id|>
  kGemma,    // <start_of_turn>user\n...<end_of_turn>\n
  kPhi3,     // <|user|>\n...<|end|>\n
  kMistral,  // [INST] ... [/INST] ...</s>
};

// How a model was taught to see a conversation. Files carry a Jinja program for it; the published ones are a handful of
// formats with small differences, which are recognised by their features and rendered here. Rendering gives the same
// text as the program, and keeps apart what the template wrote from what people wrote: control tokens come from the
// template alone. Immutable but for its two settings; concurrent rendering is fine.
class ChatTemplate {
 public:
  // From `tokenizer.chat_template`. NOT_FOUND when the file has none, UNIMPLEMENTED when its format is not known; both
  // say how to choose one by name.
  static absl::StatusOr<ChatTemplate> FromGguf(const gguf::File& file);

  // From the program itself.
  static absl::StatusOr<ChatTemplate> FromJinja(std::string_view source);

  // "chatml", "llama2", "llama3", "gemma", "phi3", "mistral" (the format of its third tokenizer), "mistral-v1",
  // "mistral-v7". INVALID_ARGUMENT lists them.
  static absl::StatusOr<ChatTemplate> ByName(std::string_view name);
  static const std::vector<std::string>& Names();

  ChatFormat format() const { return format_; }
  const std::string& name() const { return name_; }

  // What the template says when a conversation has no system message; empty: nothing.
  const std::string& default_system() const { return default_system_; }

  // The date that templates of Llama 3.1 and later tell the model, as "26 Jul 2024" (their own default).
  void set_date(std::string date) { date_ = std::move(date); }

  // Qwen3: false opens the answer with an empty thought, so that the model answers at once. No effect on formats that
  // have no such switch.
  bool can_skip_thought() const { return can_skip_thought_; }
  void set_thinking(bool thinking) { thinking_ = thinking; }

  // The prompt, with `bos` and `eos` for the tokens of these names (empty: none). `add_generation_prompt`: end with the
  // opening of an assistant's message. INVALID_ARGUMENT for an empty conversation, a role that is not known or that the
  // format has not, an order that it does not allow, each with what to do.
  absl::StatusOr<std::vector<TextSegment>> Render(std::span<const ChatMessage> messages, bool add_generation_prompt,
                                                  std::string_view bos, std::string_view eos) const;

  // The prompt as tokens. Where a marker of the format is no token of the vocabulary it is written as plain text; then
  // a message that contains it is refused, since the model could not tell the two apart.
  absl::StatusOr<std::vector<int32_t>> RenderTokens(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                                                    bool add_generation_prompt) const;

  // The prompt for people to look at. Never tokenize it: the difference between markers and contents is lost.
  absl::StatusOr<std::string> RenderText(std::span<const ChatMessage> messages, bool add_generation_prompt,
                                         std::string_view bos = "<s>", std::string_view eos = "</s>") const;

  // Whether calls and results of tools can be rendered. No format that is known here has them yet: such messages are
  // refused by name.
  bool renders_tools() const { return false; }

  // What ends an answer: tokens of this vocabulary (end of generation in general, and of this format), and texts to
  // stop at where they are not tokens.
  std::vector<int32_t> StopTokenIds(const Tokenizer& tokenizer) const;
  std::vector<std::string> StopStrings() const;

 private:
  friend class ChatRenderer;
  ChatTemplate(ChatFormat format, std::string name) : format_(format), name_(std::move(name)) {}

  // Set the differences below from a program's (normalized) source.
  void ReadChatMl(std::string_view source);
  void ReadMistral(std::string_view source);

  ChatFormat format_;
  std::string name_;
  std::string date_ = "26 Jul 2024";
  bool thinking_ = true;

  // The differences among files of one format.
  bool bos_ = false;                 // begins with bos
  bool system_ = true;               // knows a system message
  bool trim_ = false;                // white space around contents is dropped
  bool alternate_ = false;           // user and assistant must take turns
  std::string default_system_;       // kChatMl
  bool drops_thoughts_ = false;      // kChatMl: <think>...</think> of earlier answers is left out
  bool keeps_last_thought_ = false;  // kChatMl (Qwen3): but not of answers after the last question
  bool opens_thought_ = false;       // kChatMl (QwQ): the generation prompt opens a thought
  bool can_skip_thought_ = false;    // kChatMl (Qwen3): knows enable_thinking
  bool dates_ = false;               // kLlama3: tells the model the date
  bool system_in_user_ = false;      // kGemma: the system message opens the first user message
  bool eos_at_end_ = false;          // kPhi3: eos where no answer is asked for
  // kMistral: the spaces around markers and answers, and where the system message goes.
  bool space_before_inst_ = false, space_after_inst_ = true, space_before_inst_end_ = false;
  bool space_before_answer_ = true;
  bool system_prompt_ = false;        // in [SYSTEM_PROMPT]...[/SYSTEM_PROMPT]
  bool system_in_last_user_ = false;  // else before the first user message
};

}  // namespace updraft::text

#endif  // UPDRAFT_COMMON_TEXT_CHAT_TEMPLATE_H_
