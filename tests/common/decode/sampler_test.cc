#include "common/decode/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "common/decode/philox.h"

namespace updraft {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

int32_t Sample(std::vector<float> logits, const SamplingOptions& options, int64_t position = 0,
               const std::vector<int32_t>& context = {}, const std::vector<uint64_t>& mask = {}) {
  return SampleToken(logits, options, position, {.tokens = context}, mask);
}

// The known answers that the authors publish with Random123.
TEST(PhiloxTest, KnownAnswers) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint32_t ones = 0xffffffff;
  EXPECT_EQ(Philox4x32({ones, ones, ones, ones}, {ones, ones}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(UniformDrawTest, DependsOnSeedAndPositionAndStaysBelowOne) {
  std::set<double> seen;
  for (uint64_t seed : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 40}) {
    for (uint64_t position : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 40}) {
      const double u = UniformDraw(seed, position);
      EXPECT_GE(u, 0.0);
      EXPECT_LT(u, 1.0);
      EXPECT_EQ(u, UniformDraw(seed, position));
      seen.insert(u);
    }
  }
  EXPECT_EQ(seen.size(), 9u);
}

TEST(SampleTokenTest, GreedyTakesTheLowestOfTheBest) {
  EXPECT_EQ(Sample({1, 3, 2, 3}, {}), 1);
  EXPECT_EQ(Sample({-kInf, -5, -kInf}, {}), 1);
  EXPECT_EQ(Sample({kNan, -5, 7, kNan}, {}), 2);
  EXPECT_EQ(Sample({kNan, kNan}, {}), 0);
  EXPECT_EQ(Sample({-kInf, -kInf}, {}), 0);
  EXPECT_EQ(Sample({1, kInf, kInf}, {}), 1);
}

TEST(SampleTokenTest, GreedyLeavesLogitsAlone) {
  const std::vector<float> logits = {1, 3, kNan, 2};
  std::vector<float> copy = logits;
  SampleToken(copy, {}, 5, {.tokens = std::vector<int32_t>{1, 1}});
  EXPECT_EQ(copy[0], 1);
  EXPECT_EQ(copy[1], 3);
  EXPECT_EQ(copy[3], 2);
  EXPECT_TRUE(LeavesLogitsUnchanged({}));
  EXPECT_FALSE(LeavesLogitsUnchanged({.temperature = 1.0f}));
  EXPECT_FALSE(LeavesLogitsUnchanged({.repetition_penalty = 1.1f}));
}

TEST(SampleTokenTest, StrangeLogitsNeverCrashOrWinByAccident) {
  const SamplingOptions hot = {.temperature = 1.0f, .top_k = 2, .top_p = 0.9f, .min_p = 0.1f};
  for (int position = 0; position < 200; ++position) {
    EXPECT_EQ(Sample({kNan, 2, kNan}, hot, position), 1);
    EXPECT_EQ(Sample({-kInf, -kInf, 0}, hot, position), 2);
    EXPECT_EQ(Sample({5, kInf, 0}, hot, position), 1);
    EXPECT_EQ(Sample({kNan, kNan}, hot, position), 0);
    EXPECT_EQ(Sample({1e38f, -1e38f}, hot, position), 0);
    EXPECT_EQ(Sample({7}, hot, position), 0);
  }
}

TEST(SampleTokenTest, TheMaskIsObeyed) {
  std::vector<float> logits(130);
  std::iota(logits.begin(), logits.end(), 0.0f);
  const std::vector<uint64_t> mask = {uint64_t{1} << 3, uint64_t{1} << 63, 0};  // tokens 3 and 127
  EXPECT_EQ(Sample(logits, {}, 0, {}, mask), 127);
  logits[127] = kNan;
  EXPECT_EQ(Sample(logits, {}, 0, {}, mask), 3);
  EXPECT_EQ(Sample(std::vector<float>(130, kNan), {}, 0, {}, mask), 3);
  logits.assign(130, 1.0f);
  for (int position = 0; position < 100; ++position) {
    const int32_t token = Sample(logits, {.temperature = 1.0f}, position, {}, mask);
    EXPECT_TRUE(token == 3 || token == 127);
  }
}

TEST(SampleTokenTest, ThePenaltyDividesPositiveAndMultipliesNegativeOncePerToken) {
  const SamplingOptions options = {.repetition_penalty = 2.0f};
  EXPECT_EQ(Sample({3.0f, 2.0f, -1.0f}, options, 0, {0, 0, 0}), 1);  // 3 / 2 < 2
  EXPECT_EQ(Sample({3.0f, 1.4f, -1.0f}, options, 0, {0, 0, 0}), 0);  // not 3 / 8
  EXPECT_EQ(Sample({-1.0f, -1.5f, -3.0f}, options, 0, {0}), 1);      // -2 < -1.5
  EXPECT_EQ(Sample({3.0f, 2.0f}, options, 0, {-1, 2, 1 << 30}), 0);  // foreign ids are ignored
}

TEST(SampleTokenTest, DependsOnPositionAndSeedAlone) {
  const std::vector<float> logits(1000, 0.0f);
  const SamplingOptions options = {.temperature = 1.0f, .seed = 7};
  std::set<int32_t> tokens;
  for (int position = 0; position < 50; ++position) {
    const int32_t token = Sample(logits, options, position);
    EXPECT_EQ(Sample(logits, options, position), token);
    tokens.insert(token);
  }
  EXPECT_GT(tokens.size(), 40u);
  EXPECT_NE(Sample(logits, options, 0), Sample(logits, {.temperature = 1.0f, .seed = 8}, 0));
}

// The distribution that the options describe, from their definitions, in double.
std::vector<double> Expected(const std::vector<float>& logits, const SamplingOptions& o) {
  const size_t n = logits.size();
  std::vector<double> p(n);
  for (size_t i = 0; i < n; ++i) p[i] = std::exp(static_cast<double>(logits[i]) / o.temperature);
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] != p[b] ? p[a] > p[b] : a < b; });
  const auto sum = [&] { return std::accumulate(p.begin(), p.end(), 0.0); };
  if (o.top_k > 0) {
    for (size_t i = o.top_k; i < n; ++i) p[order[i]] = 0;
  }
  const double target = o.top_p * sum();
  double mass = 0;
  for (const size_t i : order) {
    if (mass >= target) p[i] = 0;
    mass += p[i];
  }
  const double cut = o.min_p * p[order[0]];
  for (double& x : p) {
    if (x < cut) x = 0;
  }
  const double total = sum();
  for (double& x : p) x /= total;
  return p;
}

// Upper 10^-6 quantile of chi-square with k degrees of freedom, after Wilson and Hilferty (1931).
double ChiSquareLimit(int k) {
  const double z = 4.753;
  const double a = 2.0 / (9.0 * k);
  return k * std::pow(1.0 - a + z * std::sqrt(a), 3);
}

TEST(SampleTokenTest, DrawsFollowTheStatedDistribution) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const std::vector<SamplingOptions> all_options = {{.temperature = 1.0f},
                                                    {.temperature = 0.5f},
                                                    {.temperature = 3.0f},
                                                    {.temperature = 1.0f, .top_k = 5},
                                                    {.temperature = 1.0f, .top_p = 0.7f},
                                                    {.temperature = 1.0f, .min_p = 0.1f},
                                                    {.temperature = 1.5f, .top_k = 20, .top_p = 0.8f, .min_p = 0.05f}};
  for (SamplingOptions options : all_options) {
    options.seed = random();
    std::normal_distribution<float> normal(0.0f, 1.5f);
    std::vector<float> logits(40);
    for (float& x : logits) x = normal(random);
    const std::vector<double> expected = Expected(logits, options);
    constexpr int kDraws = 200000;
    std::vector<int> counts(logits.size());
    for (int position = 0; position < kDraws; ++position) ++counts[Sample(logits, options, position)];
    double chi_square = 0;
    int degrees = -1;
    for (size_t i = 0; i < counts.size(); ++i) {
      if (expected[i] == 0) {
        EXPECT_EQ(counts[i], 0) << "token " << i << " was cut";
        continue;
      }
      const double mean = expected[i] * kDraws;
      chi_square += (counts[i] - mean) * (counts[i] - mean) / mean;
      ++degrees;
    }
    EXPECT_LT(chi_square, degrees == 0 ? 1e-9 : ChiSquareLimit(degrees))
        << "temperature " << options.temperature << " top_k " << options.top_k << " top_p " << options.top_p;
  }
}

TEST(SampleTokenTest, TheNucleusOfALargeFlatVocabularyIsExact) {
  // Wider than what is sorted at first, so the search has to grow.
  const std::vector<float> logits(5000, 0.25f);
  for (int position = 0; position < 2000; ++position) {
    EXPECT_LT(Sample(logits, {.temperature = 1.0f, .top_p = 0.5f}, position), 2500);  // ties go to low ids
  }
}

TEST(SamplingOptionsTest, RefusesValuesOutsideTheirRanges) {
  EXPECT_TRUE(SamplingOptions{}.Validate().ok());
  EXPECT_TRUE((SamplingOptions{.temperature = 10.0f, .top_k = 1, .top_p = 0.1f, .min_p = 0.99f}).Validate().ok());
  for (const float bad : {-0.1f, 10.5f, kNan, kInf}) EXPECT_FALSE(SamplingOptions{.temperature = bad}.Validate().ok());
  for (const float bad : {0.0f, -1.0f, 1.1f, kNan}) EXPECT_FALSE(SamplingOptions{.top_p = bad}.Validate().ok());
  for (const float bad : {-0.1f, 1.0f, kNan}) EXPECT_FALSE(SamplingOptions{.min_p = bad}.Validate().ok());
  for (const float bad : {0.0f, -2.0f, 101.0f, kNan}) {
    const absl::Status status = SamplingOptions{.repetition_penalty = bad}.Validate();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(std::string(status.message()).find("repetition_penalty"), std::string::npos);
  }
  EXPECT_FALSE(SamplingOptions{.top_k = -1}.Validate().ok());
}

}  // namespace
}  // namespace updraft
