#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "common/routing/confidence.h"
#include "gtest/gtest.h"

namespace updraft {
namespace {

std::vector<Judged> RandomAnswers(int n, uint64_t seed, int levels) {
  std::mt19937_64 rng(seed);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  std::vector<Judged> answers;
  for (int i = 0; i < n; ++i) {
    const double confidence = std::floor(uniform(rng) * levels) / levels;  // few levels: many ties
    answers.push_back({confidence, uniform(rng) < 0.2 + 0.7 * confidence});
  }
  return answers;
}

TEST(AreaUnderRocTest, EqualsCountingAllPairs) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const auto answers = RandomAnswers(5 + static_cast<int>(seed) * 5, seed, seed % 2 == 0 ? 7 : 100000);
    double ordered = 0.0, pairs = 0.0;
    for (const auto& a : answers) {
      for (const auto& b : answers) {
        if (!a.correct || b.correct) continue;
        pairs += 1.0;
        ordered += a.confidence > b.confidence ? 1.0 : a.confidence == b.confidence ? 0.5 : 0.0;
      }
    }
    EXPECT_NEAR(AreaUnderRoc(answers), pairs == 0.0 ? 0.5 : ordered / pairs, 1e-12) << "seed " << seed;
  }
}

TEST(AreaUnderRocTest, Extremes) {
  const Judged perfect[] = {{0.9, true}, {0.8, true}, {0.2, false}};
  EXPECT_EQ(AreaUnderRoc(perfect), 1.0);
  const Judged inverted[] = {{0.1, true}, {0.8, false}};
  EXPECT_EQ(AreaUnderRoc(inverted), 0.0);
  const Judged one_class[] = {{0.1, true}, {0.8, true}};
  EXPECT_EQ(AreaUnderRoc(one_class), 0.5);
  EXPECT_EQ(AreaUnderRoc({}), 0.5);
}

TEST(ExpectedCalibrationErrorTest, EqualsBinningByRank) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const int n_bins = 10;
    auto answers = RandomAnswers(10 * (3 + static_cast<int>(seed)), seed, 1000000);
    // Brute force: an answer's bin is the share of answers below it.
    double error = 0.0;
    for (int bin = 0; bin < n_bins; ++bin) {
      double confidence = 0.0, correct = 0.0, count = 0.0;
      for (const auto& a : answers) {
        const auto below =
            std::count_if(answers.begin(), answers.end(), [&](const Judged& b) { return b.confidence < a.confidence; });
        if (below * n_bins / static_cast<int64_t>(answers.size()) != bin) continue;
        confidence += a.confidence;
        correct += a.correct ? 1.0 : 0.0;
        count += 1.0;
      }
      error += count / static_cast<double>(answers.size()) * std::abs(confidence / count - correct / count);
    }
    EXPECT_NEAR(ExpectedCalibrationError(answers, n_bins), error, 1e-9) << "seed " << seed;
  }
}

TEST(ExpectedCalibrationErrorTest, Extremes) {
  EXPECT_EQ(ExpectedCalibrationError({}), 0.0);
  std::vector<Judged> sure_and_wrong(30, {1.0, false});
  EXPECT_DOUBLE_EQ(ExpectedCalibrationError(sure_and_wrong), 1.0);
  std::vector<Judged> honest;
  for (int i = 0; i < 100; ++i) honest.push_back({0.5, i % 2 == 0});
  EXPECT_NEAR(ExpectedCalibrationError(honest), 0.0, 1e-12);
  const Judged few[] = {{0.5, true}, {0.6, false}};  // fewer answers than bins: empty bins count nothing
  EXPECT_NEAR(ExpectedCalibrationError(few, 10), 0.5 * (0.5 + 0.6), 1e-12);
}

}  // namespace
}  // namespace updraft
