#include "common/text/detokenizer.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "common/text/utf8.h"

namespace updraft::text {

StreamDetokenizer::StreamDetokenizer(std::shared_ptr<const Tokenizer> tokenizer, DetokenizerOptions options)
    : tokenizer_(std::move(tokenizer)),
      options_(std::move(options)),
      at_start_(options_.at_text_start && tokenizer_->adds_space_prefix()) {}

std::string StreamDetokenizer::Push(int32_t id) {
  const bool is_spelled = std::find(options_.spelled.begin(), options_.spelled.end(), id) != options_.spelled.end();
  std::string bytes = tokenizer_->TokenBytes(id, options_.render_special || is_spelled);
  if (bytes.empty()) return {};
  if (at_start_ && bytes[0] == ' ' && tokenizer_->type(id) == TokenType::kNormal) bytes.erase(0, 1);
  at_start_ = false;
  pending_ += bytes;

  std::string text;
  size_t pos = 0;
  while (pos < pending_.size()) {
    const Utf8Char c = DecodeUtf8(pending_, pos);
    if (c.status == Utf8Status::kCutOff) break;
    text += c.status == Utf8Status::kCharacter ? std::string_view(pending_).substr(pos, c.bytes)
                                               : std::string_view("\uFFFD");
    pos += c.bytes;
  }
  pending_.erase(0, pos);
  return text;
}

std::string StreamDetokenizer::Flush() {
  std::string text = LossyUtf8(pending_);
  pending_.clear();
  at_start_ = options_.at_text_start && tokenizer_->adds_space_prefix();
  return text;
}

}  // namespace updraft::text
