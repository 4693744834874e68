#include "common/decode/evidence.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace updraft {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(EvidenceTest, OfAKnownDistribution) {
  // Probabilities 1/2, 1/4, 1/8, 1/8.
  const std::vector<float> logits = {std::log(2.0f), std::log(8.0f), std::log(4.0f), std::log(2.0f)};
  const TokenEvidence evidence = EvidenceOf(logits, 2);
  EXPECT_NEAR(evidence.top_prob, 0.5f, 1e-6f);
  EXPECT_NEAR(evidence.margin, 0.25f, 1e-6f);
  EXPECT_NEAR(evidence.entropy, 1.75 * std::log(2.0), 1e-6);
  EXPECT_NEAR(evidence.logprob, std::log(0.25), 1e-6);
}

TEST(EvidenceTest, MatchesPlainFormulasInLongDouble) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int trial = 0; trial < 200; ++trial) {
    std::normal_distribution<float> normal(static_cast<float>(random() % 2000) - 1000.0f,
                                           static_cast<float>(random() % 12));
    std::vector<float> logits(1 + random() % 3000);
    for (float& x : logits) x = normal(random);
    const int32_t chosen = static_cast<int32_t>(random() % logits.size());
    const long double peak = *std::max_element(logits.begin(), logits.end());
    long double mass = 0;
    for (const float x : logits) mass += std::exp(x - peak);
    long double first = 0, second = 0, entropy = 0;
    for (const float x : logits) {
      const long double p = std::exp(x - peak) / mass;
      entropy -= p > 0 ? p * std::log(p) : 0;
      if (p > first) {
        second = first;
        first = p;
      } else if (p > second) {
        second = p;
      }
    }
    const TokenEvidence evidence = EvidenceOf(logits, chosen);
    // Each exponential is rounded to float: relative 2^-23, and as much again for its argument's rounding at |x| < 128.
    const double bound = 2e-6;
    EXPECT_NEAR(evidence.top_prob, static_cast<double>(first), bound);
    EXPECT_NEAR(evidence.margin, static_cast<double>(first - second), 2 * bound);
    EXPECT_NEAR(evidence.entropy, static_cast<double>(entropy), 10 * bound);
    EXPECT_NEAR(evidence.logprob, static_cast<double>(logits[chosen] - peak - std::log(mass)),
                bound * (1 + std::abs(evidence.logprob)));
    EXPECT_EQ(TopProbability(logits), evidence.top_prob);
  }
}

TEST(EvidenceTest, NonFiniteLogitsAreProbabilityZero) {
  const std::vector<float> logits = {kNan, 1.0f, kInf, 1.0f, -kInf};
  const TokenEvidence evidence = EvidenceOf(logits, 1);
  EXPECT_FLOAT_EQ(evidence.top_prob, 0.5f);
  EXPECT_FLOAT_EQ(evidence.margin, 0.0f);
  EXPECT_NEAR(evidence.logprob, std::log(0.5), 1e-6);
  for (const int chosen : {0, 2, 4}) {
    EXPECT_EQ(EvidenceOf(logits, chosen).logprob, std::numeric_limits<float>::lowest());
  }
  const std::vector<float> none = {kNan, kInf, -kInf};
  EXPECT_EQ(EvidenceOf(none, 0).top_prob, 0.0f);
  EXPECT_EQ(EvidenceOf(none, 0).entropy, 0.0f);
  EXPECT_EQ(TopProbability(none), 0.0f);
}

TEST(EvidenceTest, OneTokenIsCertain) {
  const TokenEvidence evidence = EvidenceOf(std::vector<float>{-3.0f}, 0);
  EXPECT_EQ(evidence.top_prob, 1.0f);
  EXPECT_EQ(evidence.margin, 1.0f);
  EXPECT_EQ(evidence.entropy, 0.0f);
  EXPECT_EQ(evidence.logprob, 0.0f);
}

TEST(TopLogprobsTest, AreTheLikeliestOfASort) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  for (const int n_vocab : {1, 2, 7, 100, 5000}) {
    std::vector<float> logits(n_vocab);
    for (float& logit : logits) logit = std::round(normal(random) * 4.0f) / 4.0f;  // some equal
    if (n_vocab > 6) logits[3] = -std::numeric_limits<float>::infinity();
    if (n_vocab > 6) logits[5] = std::numeric_limits<float>::quiet_NaN();
    std::vector<int32_t> sorted;
    for (int i = 0; i < n_vocab; ++i) {
      if (std::isfinite(logits[i])) sorted.push_back(i);
    }
    std::stable_sort(sorted.begin(), sorted.end(), [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
    for (const int n : {0, 1, 2, 20}) {
      const std::vector<TokenLogprob> top = TopLogprobs(logits, n);
      ASSERT_EQ(top.size(), std::min<size_t>(n, sorted.size()));
      for (size_t i = 0; i < top.size(); ++i) {
        EXPECT_EQ(top[i].token, sorted[i]);
        EXPECT_EQ(top[i].logprob, EvidenceOf(logits, sorted[i]).logprob);
      }
    }
  }
  EXPECT_TRUE(TopLogprobs(std::vector<float>(4, -std::numeric_limits<float>::infinity()), 3).empty());
}

}  // namespace
}  // namespace updraft
