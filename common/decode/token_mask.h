// Which tokens may come next: a grammar's place in the answer, as the generator needs it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace updraft {

// Of one answer, on its thread. Sees the tokens of the answer, chosen here or elsewhere, and not the prompt's.
class TokenMask {
 public:
  virtual ~TokenMask() = default;
  // [ceil(n_vocab / 64)], bit set: may come next; at least one is. Valid until the next call.
  virtual std::span<const uint64_t> Allowed() = 0;
  // Goes on past a token that is allowed.
  virtual void Advance(int32_t token) = 0;
  // Goes back by the last n tokens, at most to where it began: drafts are tried and taken back.
  virtual void Rollback(int n) = 0;
  // Whether nothing that is allowed leads on: the answer is not what it should be, whatever comes. Then some token is
  // allowed all the same, one that ends answers as a rule.
  virtual bool broken() { return false; }
};

inline bool MaskAllows(std::span<const uint64_t> allowed, int32_t token) {
  const auto word = static_cast<size_t>(token) / 64;
  return token >= 0 && word < allowed.size() && ((allowed[word] >> (token % 64)) & 1) != 0;
}

// A mask, or none, that follows a sequence: knows at which positions it went on, so that cutting the sequence takes it
// back to there.
class MaskOfSequence {
 public:
  explicit MaskOfSequence(TokenMask* mask = nullptr) : mask_(mask) {}  // null: every token is allowed

  // For SampleToken: empty when there is no mask.
  std::span<const uint64_t> Allowed() const {
    return mask_ == nullptr ? std::span<const uint64_t>() : mask_->Allowed();
  }
  bool Allows(int32_t token) const { return mask_ == nullptr || MaskAllows(mask_->Allowed(), token); }
  // Of the token at `position`, above all that it saw.
  void Advance(size_t position, int32_t token) {
    if (mask_ == nullptr) return;
    mask_->Advance(token);
    positions_.push_back(position);
  }
  // Forgets tokens at positions >= n_tokens.
  void ShrinkTo(size_t n_tokens) {
    int n = 0;
    for (; !positions_.empty() && positions_.back() >= n_tokens; ++n) positions_.pop_back();
    if (n > 0) mask_->Rollback(n);
  }

 private:
  TokenMask* mask_;
  std::vector<size_t> positions_;  // ascending
};

}  // namespace updraft
