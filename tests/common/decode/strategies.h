// Drafters and masks for tests of the generator.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "common/decode/drafter.h"
#include "common/decode/token_mask.h"

namespace updraft::testing {

// What may come next is a hash of all that came, so that a mask which lost or kept a token too many allows others.
class HashMask : public TokenMask {
 public:
  HashMask(int n_vocab, uint64_t seed) : n_vocab_(n_vocab), seed_(seed), allowed_((n_vocab + 63) / 64) {}

  std::span<const uint64_t> Allowed() override {
    uint64_t hash = seed_;
    for (const int32_t token : seen) hash = (hash ^ static_cast<uint64_t>(token + 1)) * 0x9e3779b97f4a7c15ull + 1;
    std::mt19937_64 random(hash);
    // A few tokens, half of them, or all.
    const uint64_t kind = random() % 4;
    for (uint64_t& word : allowed_) word = kind == 0 ? random() & random() & random() : kind == 3 ? ~0ull : random();
    allowed_[0] |= 1;
    const int rest = n_vocab_ % 64;
    if (rest != 0) allowed_.back() &= (1ull << rest) - 1;
    return allowed_;
  }
  void Advance(int32_t token) override {
    ASSERT_TRUE(MaskAllows(Allowed(), token)) << token << " after " << seen.size();
    seen.push_back(token);
  }
  void Rollback(int n) override {
    ASSERT_GT(n, 0);
    ASSERT_LE(static_cast<size_t>(n), seen.size());
    seen.resize(seen.size() - n);
    ++n_rollbacks;
  }

  std::vector<int32_t> seen;
  int n_rollbacks = 0;

 private:
  int n_vocab_;
  uint64_t seed_;
  std::vector<uint64_t> allowed_;
};

// Knows the whole text and says so, with errors: ids that are wrong, not of the vocabulary, too many or none.
class HostileDrafter : public Drafter {
 public:
  HostileDrafter(std::vector<int32_t> text, int n_vocab, double wrong, uint64_t seed)
      : text_(std::move(text)), n_vocab_(n_vocab), wrong_(wrong), random_(seed) {}

  void Draft(std::span<const int32_t> context, int n, std::vector<int32_t>& drafts) override {
    ++n_calls;
    EXPECT_TRUE(std::equal(context.begin(), context.end(), text_.begin(),
                           text_.begin() + std::min(context.size(), text_.size())));
    const int n_drafts = static_cast<int>(random_() % (2 * n + 1));
    for (int i = 0; i < n_drafts; ++i) {
      const size_t at = context.size() + i;
      const bool right = at < text_.size() && std::uniform_real_distribution<double>()(random_) >= wrong_;
      drafts.push_back(right ? text_[at] : Garbage());
    }
  }

  int n_calls = 0;

 private:
  int32_t Garbage() {
    constexpr int32_t kMost = std::numeric_limits<int32_t>::max(), kLeast = std::numeric_limits<int32_t>::min();
    const int32_t ids[] = {-1, n_vocab_, n_vocab_ + 63, kMost, kLeast, 0};
    const uint64_t which = random_() % 12;
    return which < 6 ? ids[which] : static_cast<int32_t>(random_() % n_vocab_);
  }

  std::vector<int32_t> text_;
  int n_vocab_;
  double wrong_;
  std::mt19937_64 random_;
};

}  // namespace updraft::testing
