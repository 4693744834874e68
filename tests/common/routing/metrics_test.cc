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

TEST(ClopperPearsonTest, KnownValues) {
  // k = 0 has the closed form 1 - delta^(1/n).
  for (const int n : {1, 10, 100, 2000}) {
    EXPECT_NEAR(ClopperPearsonUpper(0, n, 0.05), 1.0 - std::pow(0.05, 1.0 / n), 1e-9) << n;
  }
  // k = n - 1 has (1 - delta)^(1/n).
  EXPECT_NEAR(ClopperPearsonUpper(9, 10, 0.05), std::pow(0.95, 0.1), 1e-9);
  EXPECT_EQ(ClopperPearsonUpper(10, 10, 0.05), 1.0);
  EXPECT_EQ(ClopperPearsonUpper(0, 0, 0.05), 1.0);
  double previous = 0.0;
  for (int k = 0; k < 50; ++k) {
    const double bound = ClopperPearsonUpper(k, 50, 0.1);
    EXPECT_GT(bound, previous);
    previous = bound;
  }
}

TEST(ChooseThresholdTest, SmallCases) {
  EXPECT_EQ(ChooseThreshold({}, 0.1, 0.1), 1.0);
  // All right: everything may be kept once there are enough of them to say so.
  std::vector<Judged> all_right(500, {0.4, true});
  EXPECT_EQ(ChooseThreshold(all_right, 0.01, 0.05), 0.0);
  all_right.resize(50);
  EXPECT_EQ(ChooseThreshold(all_right, 0.01, 0.05), 1.0);
  // 1,000 answers, wrong ones at known places: 0.02 allows 12 of them at delta 0.05 (the bound of 12 is 0.0193, of 13
  // 0.0206).
  std::vector<Judged> answers;
  for (int i = 0; i < 1000; ++i) answers.push_back({i / 1000.0, i % 20 != 0});
  ASSERT_LE(ClopperPearsonUpper(12, 1000, 0.05), 0.02);
  ASSERT_GT(ClopperPearsonUpper(13, 1000, 0.05), 0.02);
  const double threshold = ChooseThreshold(answers, 0.02, 0.05);
  const auto wrong_kept = std::count_if(answers.begin(), answers.end(),
                                        [&](const Judged& a) { return !a.correct && a.confidence >= threshold; });
  EXPECT_EQ(wrong_kept, 12);
  EXPECT_NEAR(threshold, 0.74, 1e-9);
}

TEST(ChooseThresholdTest, StricterRiskNeverLowersIt) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const auto answers = RandomAnswers(700, seed, 50);
    double previous = 1.1;
    for (const double risk : {0.01, 0.02, 0.05, 0.1, 0.2, 0.5}) {
      const double threshold = ChooseThreshold(answers, risk, 0.05);
      EXPECT_LE(threshold, previous) << "seed " << seed << ", risk " << risk;
      previous = threshold;
    }
  }
}

// The guarantee itself, where the truth is known: P(right | confidence c) = c, c uniform, so that
// P(wrong and kept at t) = (1 - t)^2 / 2.
TEST(ChooseThresholdTest, ViolatesTheRiskNoMoreOftenThanPromised) {
  constexpr int kResamples = 500, kAnswers = 800;
  constexpr double kRisk = 0.05, kDelta = 0.1;
  std::mt19937_64 rng(20240601);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  int violations = 0;
  double mean_risk = 0.0;
  for (int r = 0; r < kResamples; ++r) {
    std::vector<Judged> answers;
    for (int i = 0; i < kAnswers; ++i) {
      const double confidence = uniform(rng);
      answers.push_back({confidence, uniform(rng) < confidence});
    }
    const double threshold = ChooseThreshold(answers, kRisk, kDelta);
    const double true_risk = 0.5 * (1.0 - threshold) * (1.0 - threshold);
    violations += true_risk > kRisk ? 1 : 0;
    mean_risk += true_risk / kResamples;
  }
  const double rate = violations / static_cast<double>(kResamples);
  EXPECT_LE(rate, kDelta + 2.0 * std::sqrt(kDelta * (1.0 - kDelta) / kResamples));
  EXPECT_GT(mean_risk, 0.6 * kRisk) << "the bound is so loose that it is of no use";
}

// An imagined pair of tiers: this one is right with probability c, the upstream with 0.95, independently.
std::vector<Compared> ComparedAnswers(int n, std::mt19937_64& rng) {
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  std::vector<Compared> answers;
  for (int i = 0; i < n; ++i) {
    const double confidence = uniform(rng);
    answers.push_back({confidence, uniform(rng) < confidence, uniform(rng) < 0.95});
  }
  return answers;
}

TEST(ChooseThresholdAgainstTest, EqualsTryingEveryThreshold) {
  constexpr double kZ = 1.6448536;
  std::mt19937_64 rng(77);
  for (int round = 0; round < 20; ++round) {
    auto answers = ComparedAnswers(120, rng);
    for (Compared& answer : answers) answer.confidence = std::floor(answer.confidence * 25) / 25;  // ties
    const double n = static_cast<double>(answers.size());
    double best = 1.0;
    for (int level = 0; level <= 25; ++level) {
      const double t = level / 25.0;
      double mean = 0.0, squares = 0.0;
      for (const Compared& a : answers) {
        const double d = a.confidence >= t ? (a.upstream_correct ? 1.0 : 0.0) - (a.correct ? 1.0 : 0.0) : 0.0;
        mean += d / n;
        squares += d * d;
      }
      const double bound = mean + kZ * std::sqrt((std::max(squares, 1.0) / n - mean * mean) / n);
      if (bound <= 0.05) {
        best = t;
        break;
      }
    }
    const double got = ChooseThresholdAgainst(answers, 0.05, 0.05);
    // Thresholds between two confidences mean the same: compare what they keep.
    const auto kept = [&](double t) {
      return std::count_if(answers.begin(), answers.end(), [&](const Compared& a) { return a.confidence >= t; });
    };
    EXPECT_EQ(kept(got), kept(best)) << "round " << round << ": " << got << " and " << best;
  }
}

TEST(ChooseThresholdAgainstTest, LossOnFreshAnswersStaysWithinTheLimit) {
  std::mt19937_64 rng(78);
  constexpr int kResamples = 200;
  constexpr double kMaxLoss = 0.02, kDelta = 0.05;
  int violations = 0;
  double mean_loss = 0.0;
  for (int r = 0; r < kResamples; ++r) {
    const double t = ChooseThresholdAgainst(ComparedAnswers(1500, rng), kMaxLoss, kDelta);
    // The true loss: integral over c in [t, 1] of (0.95 - c).
    const double loss = 0.95 * (1.0 - t) - 0.5 * (1.0 - t * t);
    violations += loss > kMaxLoss ? 1 : 0;
    mean_loss += loss / kResamples;
  }
  EXPECT_LE(violations / static_cast<double>(kResamples),
            kDelta + 2.0 * std::sqrt(kDelta * (1.0 - kDelta) / kResamples));
  EXPECT_GT(mean_loss, 0.3 * kMaxLoss) << "the bound is so loose that it is of no use";
}

TEST(ChooseThresholdAgainstTest, Extremes) {
  EXPECT_EQ(ChooseThresholdAgainst({}, 0.01, 0.05), 1.0);
  std::vector<Compared> better_here(400, {0.6, true, false});
  EXPECT_EQ(ChooseThresholdAgainst(better_here, 0.01, 0.05), 0.0);
  std::vector<Compared> worse_here(400, {0.6, false, true});
  EXPECT_EQ(ChooseThresholdAgainst(worse_here, 0.01, 0.05), 1.0);
  worse_here.resize(3, {0.6, true, true});
  for (Compared& answer : worse_here) answer.correct = true;
  EXPECT_EQ(ChooseThresholdAgainst(worse_here, 0.01, 0.05), 1.0) << "three answers prove nothing";
}

}  // namespace
}  // namespace updraft
