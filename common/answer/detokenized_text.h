// The text stream of a vocabulary.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/answer/assembler.h"
#include "common/text/detokenizer.h"

namespace updraft {

// at_text_start: the answer begins a text (a conversation's) rather than continues one (a raw prompt's). Control tokens
// have no text, but those that are spelled, and neither has a part of a character at the end.
class DetokenizedText final : public TextStream {
 public:
  DetokenizedText(std::shared_ptr<const text::Tokenizer> tokenizer, bool at_text_start,
                  std::vector<int32_t> spelled = {})
      : detokenizer_(std::move(tokenizer),
                     {.render_special = false, .at_text_start = at_text_start, .spelled = std::move(spelled)}) {}
  std::string Push(int32_t token) override { return detokenizer_.Push(token); }
  // An answer that ends within a character ends before it: its reader has no use for a part.
  std::string Flush() override {
    detokenizer_.Flush();
    return "";
  }

 private:
  text::StreamDetokenizer detokenizer_;
};

}  // namespace updraft
