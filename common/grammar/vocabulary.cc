#include "common/grammar/vocabulary.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace updraft::grammar {

Vocabulary::Vocabulary(const std::vector<std::string>& texts, std::vector<int32_t> ends, int n_vocab)
    : texts_(texts), ends_(std::move(ends)), n_vocab_(n_vocab) {
  texts_.resize(static_cast<size_t>(n_vocab));
  for (const int32_t end : ends_) texts_[static_cast<size_t>(end)].clear();
  for (int32_t id = 0; id < n_vocab; ++id) {
    if (!texts_[id].empty() && texts_[id].size() <= static_cast<size_t>(kMaxTokenBytes)) tokens_.push_back(id);
  }
  std::sort(tokens_.begin(), tokens_.end(),
            [this](int32_t a, int32_t b) { return texts_[a] != texts_[b] ? texts_[a] < texts_[b] : a < b; });
  std::vector<int32_t> path;  // nodes of the bytes of the token before
  const auto close = [&](size_t depth) {
    for (; path.size() > depth; path.pop_back()) nodes_[path.back()].skip = static_cast<int32_t>(nodes_.size());
  };
  std::string before;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::string& text = texts_[tokens_[i]];
    const size_t shared =
        static_cast<size_t>(std::mismatch(text.begin(), text.end(), before.begin(), before.end()).first - text.begin());
    close(shared);
    for (size_t depth = shared; depth < text.size(); ++depth) {
      path.push_back(static_cast<int32_t>(nodes_.size()));
      nodes_.push_back({.byte = static_cast<uint8_t>(text[depth]),
                        .depth = static_cast<uint8_t>(depth + 1),
                        .first_token = static_cast<int32_t>(i)});
    }
    ++nodes_[path.back()].n_tokens;
    max_depth_ = std::max(max_depth_, static_cast<int>(text.size()));
    before = text;
  }
  close(0);
  for (size_t i = 0; i < nodes_.size(); i = static_cast<size_t>(nodes_[i].skip)) {
    if (nodes_[i].byte == ' ') space_node_ = static_cast<int32_t>(i);
  }
}

std::shared_ptr<const Vocabulary> Vocabulary::Of(const text::Tokenizer& tokenizer, std::vector<int32_t> ends,
                                                 int n_vocab, std::span<const int32_t> spelled) {
  std::vector<std::string> texts;
  for (int32_t id = 0; id < std::min<int32_t>(tokenizer.vocab_size(), n_vocab); ++id) {
    const bool is_spelled = std::find(spelled.begin(), spelled.end(), id) != spelled.end();
    texts.push_back(tokenizer.TokenBytes(id, /*render_special=*/is_spelled));
  }
  return std::make_shared<Vocabulary>(texts, std::move(ends), n_vocab);
}

}  // namespace updraft::grammar
