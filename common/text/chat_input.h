// A conversation as a template's variables, and who wrote which part of what comes out.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "common/jinja/sourced_text.h"
#include "common/jinja/value.h"
#include "common/text/chat_template.h"

namespace updraft::text {

class ChatInput {
 public:
  // Sources of what people wrote. Roles, which are one of four words, pass for the template's.
  static jinja::Source OfContent(size_t message) { return static_cast<jinja::Source>(2 * message + 1); }
  static jinja::Source OfCalls(size_t message) { return static_cast<jinja::Source>(2 * message + 2); }
  static constexpr jinja::Source kTools = ~jinja::Source{0} - 1;

  // What Hugging Face's apply_chat_template gives a template: messages, tools, documents, add_generation_prompt and the
  // names of special tokens. INVALID_ARGUMENT for a tool's parameters that are no JSON object.
  static absl::StatusOr<jinja::Dict> Variables(const Chat& chat, const ChatTemplate::CallForm& form,
                                               std::string_view bos, std::string_view eos);

  // Cuts what the template wrote behind the last message, whose end Variables has marked for kContinuesAnswer, as
  // continue_final_message does: with the white space before it where the template trimmed the message.
  // INVALID_ARGUMENT when the template left the end of the message out.
  static absl::Status CutBehindLast(jinja::SourcedText* text);
};

}  // namespace updraft::text
