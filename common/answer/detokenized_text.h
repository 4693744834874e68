// The text stream of a vocabulary.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "common/answer/assembler.h"
#include "common/text/detokenizer.h"

namespace updraft {

// at_text_start: the answer begins a text (a conversation's) rather than continues one (a raw prompt's). Control tokens
// have no text.
class DetokenizedText final : public TextStream {
 public:
  DetokenizedText(std::shared_ptr<const text::Tokenizer> tokenizer, bool at_text_start)
      : detokenizer_(std::move(tokenizer), {.render_special = false, .at_text_start = at_text_start}) {}
  std::string Push(int32_t token) override { return detokenizer_.Push(token); }
  std::string Flush() override { return detokenizer_.Flush(); }

 private:
  text::StreamDetokenizer detokenizer_;
};

}  // namespace updraft
