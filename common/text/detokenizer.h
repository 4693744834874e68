#ifndef UPDRAFT_COMMON_TEXT_DETOKENIZER_H_
#define UPDRAFT_COMMON_TEXT_DETOKENIZER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/text/tokenizer.h"

namespace updraft::text {

struct DetokenizerOptions {
  bool render_special = false;  // control tokens as they are written, instead of as nothing
  // The tokens begin a text (an answer), rather than continue one: the space that the vocabulary puts before the first
  // word is dropped. No effect for vocabularies that put none.
  bool at_text_start = false;
  std::vector<int32_t> spelled = {};  // control tokens that are written nevertheless; few
};

// Turns a stream of tokens into text, of which every part is whole UTF-8 characters: bytes that may still become a
// character are kept back, bytes that cannot are replaced by U+FFFD. However the stream is cut, the parts, joined, are
// LossyUtf8 of all the bytes. One stream, one thread.
class StreamDetokenizer {
 public:
  explicit StreamDetokenizer(std::shared_ptr<const Tokenizer> tokenizer, DetokenizerOptions options = {});

  // What the token completes; often nothing, for a token that ends within a character.
  std::string Push(int32_t id);

  // The end of the stream: U+FFFD for a character that was cut off, or nothing. A new text may follow.
  std::string Flush();

  // Bytes kept back by now: 0..3.
  size_t pending_bytes() const { return pending_.size(); }

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  DetokenizerOptions options_;
  bool at_start_;
  std::string pending_;
};

}  // namespace updraft::text

#endif  // UPDRAFT_COMMON_TEXT_DETOKENIZER_H_
