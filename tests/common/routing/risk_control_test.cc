#include "common/routing/risk_control.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace updraft {
namespace {

using ::testing::HasSubstr;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// ---- The exact binomial test --------------------------------------------------------------------------------------

TEST(BinomialTailTest, EqualsTheSumOfItsTerms) {
  for (const int n : {1, 2, 7, 60, 1000}) {
    for (const double p : {1e-6, 0.003, 0.05, 0.5, 0.87, 0.9999}) {
      long double sum = 0.0L;
      for (int k = 0; k <= n; ++k) {
        sum += std::exp(std::lgamma(n + 1.0L) - std::lgamma(k + 1.0L) - std::lgamma(n - k + 1.0L) +
                        k * std::log(static_cast<long double>(p)) + (n - k) * std::log1p(-static_cast<long double>(p)));
        // Logarithms of up to about 6,000 in double precision: 6000 * 2^-53 of a term, and as much again for their sum.
        EXPECT_NEAR(BinomialTail(k, n, p), static_cast<double>(sum), 2e-11) << k << " of " << n << ", " << p;
      }
    }
  }
  EXPECT_EQ(BinomialTail(-1, 10, 0.5), 0.0);
  EXPECT_EQ(BinomialTail(10, 10, 0.5), 1.0);
  EXPECT_EQ(BinomialTail(3, 10, 0.0), 1.0);
  EXPECT_EQ(BinomialTail(3, 10, 1.0), 0.0);
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

// ---- The betting test ---------------------------------------------------------------------------------------------

std::vector<double> SoftLosses(int n, uint64_t seed, double share) {
  std::mt19937_64 rng(seed);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  std::vector<double> losses;
  for (int i = 0; i < n; ++i) {
    losses.push_back(uniform(rng) >= share ? 0.0 : uniform(rng) < 0.3 ? 1.0 : uniform(rng));
  }
  return losses;
}

// As the formulas stand in the paper: each mean and variance from all losses before, each capital as a whole product.
double SlowCapital(std::span<const double> losses, double mean, double delta) {
  const size_t n = losses.size();
  std::vector<long double> means(n + 1), variances(n + 1);
  for (size_t t = 0; t <= n; ++t) {
    long double sum = 0.5L, squares = 0.25L;
    for (size_t i = 1; i <= t; ++i) sum += losses[i - 1];
    means[t] = sum / (t + 1.0L);
    for (size_t i = 1; i <= t; ++i) squares += (losses[i - 1] - means[i]) * (losses[i - 1] - means[i]);
    variances[t] = squares / (t + 1.0L);
  }
  long double most = 1.0L, capital = 1.0L;
  for (size_t t = 1; t <= n; ++t) {
    const long double bet =
        std::min(1.0L, std::sqrt(2.0L * std::log(1.0L / delta) / (static_cast<long double>(n) * variances[t - 1])));
    capital *= 1.0L - bet * (static_cast<long double>(losses[t - 1]) - static_cast<long double>(mean));
    most = std::max(most, capital);
  }
  return static_cast<double>(most);
}

TEST(BettingTest, EqualsTheFormulas) {
  for (uint64_t seed = 0; seed < 30; ++seed) {
    const int n = 1 + static_cast<int>(seed) * 23;
    const auto losses = SoftLosses(n, seed, 0.01 * static_cast<double>(seed));
    for (const double mean : {0.001, 0.02, 0.2, 0.7, 0.999}) {
      const double p = BettingPValue(losses, mean, 0.05);
      // n factors of relative error 2^-52 or so each, with room for the variance's sums.
      EXPECT_NEAR(p * SlowCapital(losses, mean, 0.05), 1.0, 1e-10) << "seed " << seed << ", mean " << mean;
    }
  }
}

TEST(BettingTest, BoundIsWhereTheSlowCapitalReachesItsGoal) {
  for (uint64_t seed = 0; seed < 12; ++seed) {
    const auto losses = SoftLosses(40 + 30 * static_cast<int>(seed), seed, 0.02 * static_cast<double>(seed));
    for (const double delta : {0.01, 0.05, 0.3}) {
      const double upper = BettingUpper(losses, delta);
      ASSERT_LT(upper, 1.0);
      EXPECT_GE(SlowCapital(losses, upper + 1e-9, delta), 1.0 / delta) << "seed " << seed << ", delta " << delta;
      EXPECT_LT(SlowCapital(losses, upper - 1e-9, delta), 1.0 / delta) << "seed " << seed << ", delta " << delta;
    }
  }
}

TEST(BettingTest, Extremes) {
  EXPECT_EQ(BettingUpper({}, 0.05), 1.0);
  EXPECT_EQ(BettingPValue({}, 0.5, 0.05), 1.0);
  const std::vector<double> worst(500, 1.0), best(500, 0.0), one(1, 0.0);
  EXPECT_EQ(BettingUpper(worst, 0.05), 1.0);
  EXPECT_EQ(BettingPValue(worst, 0.99, 0.05), 1.0);
  EXPECT_EQ(BettingUpper(one, 0.05), 1.0) << "one request proves nothing";
  // Nothing lost: the exact bound is 1 - delta^(1/n) = 0.0060; the gambler needs some time to believe it.
  EXPECT_GT(BettingUpper(best, 0.05), ClopperPearsonUpper(0, 500, 0.05));
  EXPECT_LT(BettingUpper(best, 0.05), 2.0 * ClopperPearsonUpper(0, 500, 0.05));
}

TEST(BettingTest, SmallLossesAreWorthMoreThanTheirNumber) {
  // As many losses, all of a tenth: a bound that only counted them would be ten times too high.
  std::mt19937_64 rng(5);
  std::vector<double> losses(4000, 0.0);
  for (int i = 0; i < 200; ++i) losses[i] = 0.1;
  std::shuffle(losses.begin(), losses.end(), rng);
  EXPECT_GT(BettingUpper(losses, 0.05), 0.005);
  EXPECT_LT(BettingUpper(losses, 0.05), 0.010);
  EXPECT_GT(ClopperPearsonUpper(200, 4000, 0.05), 0.05);
}

// ---- The choice ---------------------------------------------------------------------------------------------------

KeepThreshold Choose(std::span<const RiskSample> samples, double max_risk, double delta = 0.05, uint64_t seed = 1) {
  const auto choice = ChooseKeepThreshold(samples, {.max_risk = max_risk, .delta = delta, .seed = seed});
  EXPECT_TRUE(choice.ok()) << choice.status();
  return choice.value_or(KeepThreshold());
}

TEST(ChooseKeepThresholdTest, SmallCases) {
  // All right: everything may be kept once there are enough of them to say so: 0.99^n <= 0.05 from n = 299 on.
  std::vector<RiskSample> all_right(299, {0.4, 0.0});
  EXPECT_EQ(Choose(all_right, 0.01).threshold, 0.0);
  EXPECT_EQ(Choose(all_right, 0.01).estimate.coverage(), 1.0);
  all_right.resize(298);
  EXPECT_EQ(Choose(all_right, 0.01).threshold, kKeepNothing);
  EXPECT_EQ(Choose(all_right, 0.01).estimate.n_kept, 0);
  // 1,000 answers, wrong ones at known places: 0.02 allows 12 of them at delta 0.05 (the bound of 12 is 0.0193, of 13
  // 0.0206).
  std::vector<RiskSample> answers;
  for (int i = 0; i < 1000; ++i) answers.push_back({i / 1000.0, i % 20 == 0 ? 1.0 : 0.0});
  ASSERT_LE(ClopperPearsonUpper(12, 1000, 0.05), 0.02);
  ASSERT_GT(ClopperPearsonUpper(13, 1000, 0.05), 0.02);
  const KeepThreshold choice = Choose(answers, 0.02);
  EXPECT_NEAR(choice.threshold, 0.741, 1e-12);
  EXPECT_EQ(choice.estimate.bound, RiskBound::kClopperPearson);
  EXPECT_EQ(choice.estimate.n, 1000);
  EXPECT_EQ(choice.estimate.n_kept, 259);
  EXPECT_NEAR(choice.estimate.risk, 0.012, 1e-12);
  EXPECT_NEAR(choice.estimate.upper, ClopperPearsonUpper(12, 1000, 0.05), 1e-12);
  // Ties stand or fall together: the thirteenth wrong answer, put among 30 right ones of its confidence, takes them
  // along.
  for (RiskSample& answer : answers) {
    if (answer.confidence >= 0.74 && answer.confidence < 0.77) answer.confidence = 0.75;
  }
  EXPECT_NEAR(Choose(answers, 0.02).threshold, 0.77, 1e-12);
}

// The walk, step by step with the public tests, on requests with ties.
TEST(ChooseKeepThresholdTest, EqualsWalkingThroughEveryThreshold) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    std::mt19937_64 rng(seed);
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    const bool soft = seed % 2 == 1;
    const int n = 300 + static_cast<int>(seed) * 20, levels = 3 + static_cast<int>(seed) * 2;
    std::vector<RiskSample> samples;
    for (int i = 0; i < n; ++i) {
      const double confidence = std::floor(uniform(rng) * levels) / levels;
      const bool wrong = uniform(rng) < 0.3 * (1.0 - confidence);
      samples.push_back({confidence, wrong ? (soft ? uniform(rng) : 1.0) : 0.0});
    }
    const KeepThreshold choice = Choose(samples, 0.05);
    std::vector<double> steps;
    for (const RiskSample& sample : samples) steps.push_back(sample.confidence);
    std::sort(steps.begin(), steps.end(), std::greater<>());
    steps.erase(std::unique(steps.begin(), steps.end()), steps.end());
    double expected = kKeepNothing;
    for (const double step : steps) {
      const auto at = RiskAt(samples, step, {.delta = 0.05});
      ASSERT_TRUE(at.ok()) << at.status();
      EXPECT_EQ(at->bound, soft ? RiskBound::kBetting : RiskBound::kClopperPearson);
      if (at->upper > 0.05) break;
      expected = step == steps.back() ? 0.0 : step;
    }
    EXPECT_EQ(choice.threshold, expected) << "seed " << seed;
    const auto at = RiskAt(samples, choice.threshold, {.delta = 0.05});
    EXPECT_EQ(at->n_kept, choice.estimate.n_kept);
    EXPECT_EQ(at->risk, choice.estimate.risk);
    EXPECT_EQ(at->upper, choice.estimate.upper);
  }
}

std::vector<RiskSample> RandomSamples(int n, uint64_t seed, int levels, bool soft) {
  std::mt19937_64 rng(seed);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  std::vector<RiskSample> samples;
  for (int i = 0; i < n; ++i) {
    const double confidence = std::floor(uniform(rng) * levels) / levels;
    const double loss = uniform(rng) < 0.5 * (1.0 - confidence) ? (soft ? uniform(rng) : 1.0) : 0.0;
    samples.push_back({confidence, loss});
  }
  return samples;
}

TEST(ChooseKeepThresholdTest, StricterLimitsNeverLowerIt) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const bool soft = seed % 2 == 1;
    const auto samples = RandomSamples(900, seed, 50, soft);
    double previous = 1.1;
    for (const double max_risk : {0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5}) {
      const double threshold = Choose(samples, max_risk).threshold;
      EXPECT_LE(threshold, previous) << "seed " << seed << ", risk " << max_risk;
      previous = threshold;
    }
    previous = 1.1;
    // The gambler's bets depend on delta, so that only the goal of a single walk is ordered; the exact test always is.
    for (const double delta : {0.001, 0.01, 0.05, 0.1, 0.3, 0.7}) {
      const double threshold = Choose(samples, 0.05, delta).threshold;
      EXPECT_LE(threshold, previous + (soft ? 0.02 + 1e-9 : 0.0)) << "seed " << seed << ", delta " << delta;
      previous = threshold;
    }
  }
}

TEST(ChooseKeepThresholdTest, TheOrderOfRequestsDoesNotMatterAndTheSeedRepeats) {
  for (const bool soft : {false, true}) {
    auto samples = RandomSamples(1500, 3, 40, soft);
    const KeepThreshold once = Choose(samples, 0.05, 0.05, 7);
    std::mt19937_64 rng(4);
    for (int round = 0; round < 5; ++round) {
      std::shuffle(samples.begin(), samples.end(), rng);
      const KeepThreshold again = Choose(samples, 0.05, 0.05, 7);
      EXPECT_EQ(again.threshold, once.threshold);
      EXPECT_EQ(again.estimate.upper, once.estimate.upper);
    }
    EXPECT_EQ(Choose(samples, 0.05, 0.05, 8).estimate.upper == once.estimate.upper, !soft);
  }
}

TEST(ChooseKeepThresholdTest, Refusals) {
  const std::vector<RiskSample> good(100, {0.5, 0.0});
  const auto refusal = [&](std::vector<RiskSample> samples, RiskLimits limits) {
    const auto choice = ChooseKeepThreshold(samples, limits);
    EXPECT_EQ(choice.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(choice.status().message());
  };
  EXPECT_THAT(refusal({}, {}), HasSubstr("found none"));
  for (const double bad : {kNaN, 0.0, 1.0, -0.1, std::numeric_limits<double>::infinity()}) {
    EXPECT_THAT(refusal(good, {.max_risk = bad}), HasSubstr("max_risk"));
    EXPECT_THAT(refusal(good, {.delta = bad}), HasSubstr("delta"));
    EXPECT_EQ(RiskAt(good, 0.5, {.delta = bad}).status().code(), absl::StatusCode::kInvalidArgument);
  }
  for (const double bad : {kNaN, -0.1, 1.0, 1.5}) {
    auto samples = good;
    samples[17].confidence = bad;
    EXPECT_THAT(refusal(samples, {}), HasSubstr("confidence of request 17"));
    EXPECT_EQ(RiskAt(samples, 0.5, {}).ok(), bad == 1.0);  // as uncalibrated ones are
  }
  for (const double bad : {kNaN, -0.1, 1.1}) {
    auto samples = good;
    samples[18].loss = bad;
    EXPECT_THAT(refusal(samples, {}), HasSubstr("loss of request 18"));
    EXPECT_FALSE(RiskAt(samples, 0.5, {}).ok());
  }
  EXPECT_FALSE(RiskAt(good, kNaN, {}).ok());
  EXPECT_EQ(NameOf(RiskBound::kClopperPearson), "clopper-pearson");
  EXPECT_EQ(NameOf(RiskBound::kBetting), "betting");
}

// ---- The guarantee, where the truth is known ------------------------------------------------------------------------
// Held-out requests are drawn from a fixed pool, with replacement: the pool's risk is the true one.

class Pool {
 public:
  static constexpr int kSize = 10000;

  Pool(std::string name, const std::function<RiskSample(int, std::mt19937_64&)>& make, uint64_t seed)
      : name_(std::move(name)) {
    std::mt19937_64 rng(seed);
    for (int i = 0; i < kSize; ++i) samples_.push_back(make(i, rng));
    std::sort(samples_.begin(), samples_.end(), [](const RiskSample& a, const RiskSample& b) {
      return a.confidence != b.confidence ? a.confidence > b.confidence : a.loss > b.loss;
    });
    loss_up_to_.push_back(0.0);
    for (const RiskSample& sample : samples_) loss_up_to_.push_back(loss_up_to_.back() + sample.loss);
  }

  const std::string& name() const { return name_; }
  int Kept(double threshold) const {
    return static_cast<int>(
        std::partition_point(samples_.begin(), samples_.end(),
                             [&](const RiskSample& sample) { return sample.confidence >= threshold; }) -
        samples_.begin());
  }
  double Coverage(double threshold) const { return Kept(threshold) / static_cast<double>(kSize); }
  double Risk(double threshold) const { return loss_up_to_[Kept(threshold)] / kSize; }
  // Of the loosest threshold within the limit.
  double BestCoverage(double max_risk) const {
    int best = 0;
    for (int kept = 1; kept <= kSize; ++kept) {
      if (kept < kSize && samples_[kept].confidence == samples_[kept - 1].confidence) continue;
      if (loss_up_to_[kept] / kSize <= max_risk) best = kept;
    }
    return best / static_cast<double>(kSize);
  }
  // n draws, sorted: sorting them again would be most of the time.
  void Draw(int n, std::mt19937_64& rng, std::vector<RiskSample>* drawn) {
    counts_.assign(kSize, 0);
    for (int i = 0; i < n; ++i) ++counts_[rng() % kSize];
    drawn->clear();
    for (int i = 0; i < kSize; ++i) {
      for (uint8_t j = 0; j < counts_[i]; ++j) drawn->push_back(samples_[i]);
    }
  }

 private:
  std::string name_;
  std::vector<RiskSample> samples_;  // surest first
  std::vector<double> loss_up_to_;
  std::vector<uint8_t> counts_;
};

double Uniform(std::mt19937_64& rng) { return static_cast<double>(rng() >> 11) * 0x1p-53; }

// What a model like the shipped ones does: few answers are hopeless, most are near certain. P(right) = 1 - u^2 / 1.2.
RiskSample Calibrated(std::mt19937_64& rng) {
  const double u = Uniform(rng), right = 1.0 - u * u / 1.2;
  return {std::min(right, 0.999999), Uniform(rng) < right ? 0.0 : 1.0};
}

// The same answers by a model that is surer of them all: a fifth of what it keeps at 0.97 is wrong.
RiskSample Overconfident(std::mt19937_64& rng) {
  const RiskSample sample = Calibrated(rng);
  return {1.0 - 0.15 * (1.0 - sample.confidence), sample.loss};
}

std::vector<Pool> PoolsOfShapes() {
  std::vector<Pool> pools;
  pools.emplace_back(
      "calibrated", [](int, auto& rng) { return Calibrated(rng); }, 11);
  pools.emplace_back(
      "overconfident", [](int, auto& rng) { return Overconfident(rng); }, 12);
  pools.emplace_back(
      "ties",
      [](int, auto& rng) {
        RiskSample sample = Calibrated(rng);
        sample.confidence = std::floor(sample.confidence * 25.0) / 25.0;
        return sample;
      },
      13);
  pools.emplace_back(
      "three values",
      [](int i, auto& rng) {
        const double wrong[] = {0.002, 0.05, 0.3};
        return RiskSample{0.9 - 0.2 * (i % 3), Uniform(rng) < wrong[i % 3] ? 1.0 : 0.0};
      },
      14);
  // The surest are wrong most often: the risk of few is high at once.
  pools.emplace_back(
      "upside down",
      [](int, auto& rng) {
        const RiskSample sample = Calibrated(rng);
        return RiskSample{1.0 - sample.confidence, sample.loss};
      },
      15);
  pools.emplace_back(
      "all right",
      [](int, auto& rng) {
        return RiskSample{Uniform(rng), 0.0};
      },
      16);
  pools.emplace_back(
      "all wrong",
      [](int, auto& rng) {
        return RiskSample{Uniform(rng), 1.0};
      },
      17);
  return pools;
}

// One confidence for all, with a risk just above the limit: the case in which the promise is hardest to keep, since
// every choice to keep is a violation.
Pool JustAbove(double max_risk, double loss) {
  const int n_losses = static_cast<int>(max_risk * Pool::kSize / loss) + 1;
  return Pool(
      "just above",
      [=](int i, std::mt19937_64&) {
        return RiskSample{0.8, i < n_losses ? loss : 0.0};
      },
      18);
}

struct Outcome {
  double violations = 0.0, coverage = 0.0;  // shares of the resamples, mean
};

constexpr int kResamples = 1000;
constexpr double kDelta = 0.05;

std::vector<Outcome> Resample(Pool& pool, int n, std::span<const double> limits, uint64_t seed) {
  std::vector<Outcome> outcomes(limits.size());
  std::mt19937_64 rng(seed);
  std::vector<RiskSample> drawn;
  for (int r = 0; r < kResamples; ++r) {
    pool.Draw(n, rng, &drawn);
    for (size_t i = 0; i < limits.size(); ++i) {
      const KeepThreshold choice = Choose(drawn, limits[i], kDelta, static_cast<uint64_t>(r));
      outcomes[i].violations += pool.Risk(choice.threshold) > limits[i] ? 1.0 / kResamples : 0.0;
      outcomes[i].coverage += pool.Coverage(choice.threshold) / kResamples;
    }
  }
  return outcomes;
}

const double kMostViolations = kDelta + 2.0 * std::sqrt(kDelta * (1.0 - kDelta) / kResamples);

void ExpectTheGuarantee(Pool& pool, int n, std::span<const double> limits, uint64_t seed, bool near_the_best) {
  const std::vector<Outcome> outcomes = Resample(pool, n, limits, seed);
  for (size_t i = 0; i < limits.size(); ++i) {
    const double best = pool.BestCoverage(limits[i]);
    std::printf("%-14s n %5d, limit %.1f %%: violated %4.1f %%, kept %5.1f %% of at best %5.1f %% (seed %d)\n",
                pool.name().c_str(), n, 100 * limits[i], 100 * outcomes[i].violations, 100 * outcomes[i].coverage,
                100 * best, static_cast<int>(seed));
    EXPECT_LE(outcomes[i].violations, kMostViolations) << pool.name() << ", limit " << limits[i];
    if (!near_the_best) continue;
    EXPECT_GE(outcomes[i].violations, 0.3 * kDelta) << "the promise is kept at more than its price";
    if (limits[i] >= 0.02) {
      EXPECT_GE(outcomes[i].coverage, best - 0.03) << pool.name() << ", limit " << limits[i];
    }
  }
}

TEST(GuaranteeTest, HoldsForPoolsOfManyShapes) {
  for (Pool& pool : PoolsOfShapes()) {
    // The count of mistakes is uncertain by 1.6 * sqrt(limit / n) for any bound; three points of coverage are more than
    // that where an eighth of the answers at the threshold or more are wrong, and there are no steps.
    const bool near_the_best = pool.name() == "calibrated" || pool.name() == "overconfident";
    ExpectTheGuarantee(pool, 4000, std::vector<double>{0.01, 0.02, 0.05}, 21, near_the_best);
    ExpectTheGuarantee(pool, 10000, std::vector<double>{0.005}, 22, near_the_best);
  }
}

TEST(GuaranteeTest, HoldsWhereEveryKeptAnswerIsAViolation) {
  for (const double limit : {0.01, 0.02, 0.05}) {
    Pool pool = JustAbove(limit, 1.0);
    ASSERT_GT(pool.Risk(0.0), limit);
    ExpectTheGuarantee(pool, 4000, std::vector<double>{limit}, 23, false);
  }
  Pool pool = JustAbove(0.005, 1.0);
  ExpectTheGuarantee(pool, 10000, std::vector<double>{0.005}, 24, false);
}

TEST(GuaranteeTest, HoldsForLossesInBetween) {
  Pool pool(
      "soft",
      [](int, std::mt19937_64& rng) {
        RiskSample sample = Calibrated(rng);
        sample.confidence = std::floor(sample.confidence * 16.0) / 16.0;
        sample.loss *= std::ceil(4.0 * Uniform(rng)) / 4.0;
        return sample;
      },
      25);
  ExpectTheGuarantee(pool, 4000, std::vector<double>{0.01, 0.02, 0.05}, 26, false);
  for (const double limit : {0.01, 0.02, 0.05}) {
    Pool above = JustAbove(limit, 0.3);
    ASSERT_GT(above.Risk(0.0), limit);
    ExpectTheGuarantee(above, 4000, std::vector<double>{limit}, 27, false);
  }
  Pool above = JustAbove(0.005, 0.3);
  ExpectTheGuarantee(above, 10000, std::vector<double>{0.005}, 28, false);
}

}  // namespace
}  // namespace updraft
