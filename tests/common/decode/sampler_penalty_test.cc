// Penalties and biases of OpenAI's, against a slow reference written from its formula: with c[j] the number of times
// that token j was sampled before, mu[j] -> mu[j] - c[j] * frequency_penalty - [c[j] > 0] * presence_penalty, and a
// bias is "added to the logits prior to sampling" (platform.openai.com/docs, guide "Advanced usage" and chat's
// logit_bias).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "common/decode/sampler.h"

namespace updraft {
namespace {

struct Case {
  std::vector<float> logits = {};
  std::vector<int32_t> tokens = {};
  size_t n_prompt = 0;
  SamplingOptions options = {};
};

std::vector<double> Reference(const Case& c) {
  std::vector<double> mu(c.logits.begin(), c.logits.end());
  for (size_t j = 0; j < mu.size(); ++j) {
    int n_sampled = 0;
    for (size_t i = c.n_prompt; i < c.tokens.size(); ++i) n_sampled += c.tokens[i] == static_cast<int32_t>(j) ? 1 : 0;
    mu[j] -= static_cast<double>(n_sampled) * c.options.frequency_penalty;
    if (n_sampled > 0) mu[j] -= c.options.presence_penalty;
    for (const LogitBias& bias : c.options.logit_bias) {
      if (bias.token == static_cast<int32_t>(j)) mu[j] += bias.bias;
    }
  }
  return mu;
}

int32_t Chosen(const Case& c, int64_t position = 0) {
  std::vector<float> logits = c.logits;
  return SampleToken(logits, c.options, position, {.tokens = c.tokens, .n_prompt = c.n_prompt});
}

// Everything is a multiple of 1/64 below 2^10, so float adds it exactly.
Case RandomCase(std::mt19937_64& random) {
  const auto sixty_fourths = [&](int low, int high) {
    return static_cast<float>(std::uniform_int_distribution<int>(low * 64, high * 64)(random)) / 64.0f;
  };
  Case c;
  const int n_vocab = std::uniform_int_distribution<int>(1, 40)(random);
  const int spread = std::uniform_int_distribution<int>(1, 8)(random);
  for (int j = 0; j < n_vocab; ++j) c.logits.push_back(sixty_fourths(-spread, spread));
  c.tokens.resize(std::uniform_int_distribution<size_t>(0, 60)(random));
  // Some ids are of another vocabulary.
  for (int32_t& token : c.tokens) token = std::uniform_int_distribution<int32_t>(-1, n_vocab)(random);
  c.n_prompt = std::uniform_int_distribution<size_t>(0, c.tokens.size())(random);
  const auto maybe = [&] { return random() % 2 == 0; };
  if (maybe()) c.options.presence_penalty = sixty_fourths(-2, 2);
  if (maybe()) c.options.frequency_penalty = sixty_fourths(-2, 2);
  for (int32_t j = 0; j < n_vocab && maybe(); ++j) {
    if (maybe()) c.options.logit_bias.push_back({.token = j, .bias = sixty_fourths(-100, 100)});
  }
  c.options.seed = random();
  return c;
}

TEST(PenaltyTest, GreedyIsTheReferencesBest) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  int n_moved = 0;
  for (int i = 0; i < 20000; ++i) {
    const Case c = RandomCase(random);
    const std::vector<double> mu = Reference(c);
    const auto best = static_cast<int32_t>(std::max_element(mu.begin(), mu.end()) - mu.begin());
    ASSERT_EQ(Chosen(c), best) << i;
    const auto raw = std::max_element(c.logits.begin(), c.logits.end()) - c.logits.begin();
    n_moved += best != raw ? 1 : 0;
  }
  EXPECT_GT(n_moved, 2000) << "the cases must be such that the options matter";
}

// A draw is the inverse of the cumulative distribution at a known number. In float each probability is off by at most
// (|x| + 2) * 2^-23 of itself, x the exponent; p * |x| <= 1/e, so that forty are off by less than 40 * 2.4 * 2^-23 of
// the peak, which is at most the whole: 1.2e-5.
TEST(PenaltyTest, DrawsAreTheReferencesQuantiles) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int i = 0; i < 5000; ++i) {
    Case c = RandomCase(random);
    c.options.temperature = 0.25f + static_cast<float>(random() % 8) / 4.0f;
    const std::vector<double> mu = Reference(c);
    const double peak = *std::max_element(mu.begin(), mu.end());
    std::vector<double> p(mu.size());
    double total = 0;
    for (size_t j = 0; j < mu.size(); ++j) total += p[j] = std::exp((mu[j] - peak) / c.options.temperature);
    for (int64_t position = 0; position < 8; ++position) {
      const int32_t token = Chosen(c, position);
      double below = 0;
      for (int32_t j = 0; j < token; ++j) below += p[j];
      const double u = UniformDraw(c.options.seed, static_cast<uint64_t>(position));
      ASSERT_GE(u + 2.4e-5, below / total) << i;
      ASSERT_LE(u - 2.4e-5, (below + p[token]) / total) << i;
    }
  }
}

TEST(PenaltyTest, TheEndsOfABiasForbidAndForce) {
  Case c{.logits = {20, 5, -20, 0}, .options = {.logit_bias = {{.token = 0, .bias = -100}}}};
  EXPECT_EQ(Chosen(c), 1);
  c.options.logit_bias = {{.token = 2, .bias = 100}};
  for (const float temperature : {0.0f, 2.0f}) {
    c.options.temperature = temperature;
    for (int64_t position = 0; position < 1000; ++position) ASSERT_EQ(Chosen(c, position), 2);
  }
}

// The prompt's own tokens are not held against the answer; for the repetition penalty, which is no field of OpenAI's,
// they count.
TEST(PenaltyTest, OnlyTheAnswerCounts) {
  Case c{.logits = {2, 1.5f}, .tokens = {0, 0, 0}, .n_prompt = 3, .options = {.presence_penalty = 1}};
  EXPECT_EQ(Chosen(c), 0);
  c.n_prompt = 2;
  EXPECT_EQ(Chosen(c), 1);
  c.n_prompt = 7;  // more than there are
  EXPECT_EQ(Chosen(c), 0);
  c.options = {.repetition_penalty = 2};
  EXPECT_EQ(Chosen(c), 1);
}

TEST(PenaltyTest, OptionsThatChangeLogitsSaySo) {
  EXPECT_FALSE(LeavesLogitsUnchanged({.presence_penalty = 0.5f}));
  EXPECT_FALSE(LeavesLogitsUnchanged({.frequency_penalty = -0.5f}));
  EXPECT_FALSE(LeavesLogitsUnchanged({.logit_bias = {{.token = 1, .bias = 1}}}));
}

TEST(PenaltyTest, RangesAreChecked) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const SamplingOptions good = {
      .presence_penalty = -2, .frequency_penalty = 2, .logit_bias = {{.token = 1, .bias = -100}, {.token = 0}}};
  EXPECT_TRUE(good.Validate().ok());
  std::vector<LogitBias> many(kMaxLogitBiases);
  for (size_t i = 0; i < many.size(); ++i) many[i].token = static_cast<int32_t>(i);
  EXPECT_TRUE(SamplingOptions{.logit_bias = many}.Validate().ok());
  many.push_back({.token = 1 << 20});
  const std::pair<SamplingOptions, const char*> cases[] = {
      {{.presence_penalty = 2.1f}, "presence_penalty"},
      {{.presence_penalty = kNan}, "presence_penalty"},
      {{.frequency_penalty = -2.1f}, "frequency_penalty"},
      {{.frequency_penalty = kNan}, "frequency_penalty"},
      {{.logit_bias = {{.token = 1, .bias = 101}}}, "logit_bias"},
      {{.logit_bias = {{.token = 1, .bias = kNan}}}, "logit_bias"},
      {{.logit_bias = {{.token = 1}, {.token = 2}, {.token = 1}}}, "logit_bias"},
      {{.logit_bias = many}, "logit_bias"},
  };
  for (const auto& [options, field] : cases) {
    const absl::Status status = options.Validate();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(std::string(status.message()).find(field), std::string::npos) << status;
  }
}

}  // namespace
}  // namespace updraft
