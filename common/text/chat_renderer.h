#ifndef UPDRAFT_COMMON_TEXT_CHAT_RENDERER_H_
#define UPDRAFT_COMMON_TEXT_CHAT_RENDERER_H_

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "common/text/chat_template.h"

namespace updraft::text {

// One rendering of one conversation by a ChatTemplate.
class ChatRenderer {
 public:
  ChatRenderer(const ChatTemplate& chat, std::span<const ChatMessage> messages, bool add_generation_prompt,
               std::string_view bos, std::string_view eos)
      : chat_(chat), messages_(messages), ask_(add_generation_prompt), bos_(bos), eos_(eos) {}

  // INVALID_ARGUMENT as ChatTemplate::Render.
  absl::Status Check() const;
  // After Check.
  std::vector<TextSegment> Run();

 private:
  absl::Status CheckOrder() const;

  void ChatMl();
  void ChatMlAnswer(size_t index, size_t last_question);
  size_t LastQuestion() const;
  void Llama2();
  void Llama3();
  void Gemma();
  void Phi3();
  void Mistral();

  bool StartsWithSystem() const { return messages_[0].role == "system"; }
  std::string Content(const ChatMessage& message) const;  // trimmed where the template does
  void Special(std::string_view marker);
  void Text(std::string_view text);

  const ChatTemplate& chat_;
  std::span<const ChatMessage> messages_;
  const bool ask_;
  const std::string_view bos_, eos_;
  std::vector<TextSegment> segments_;
};

}  // namespace updraft::text

#endif  // UPDRAFT_COMMON_TEXT_CHAT_RENDERER_H_
