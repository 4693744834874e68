#include "deploy/router/logistic.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>
#include <vector>

namespace updraft {
namespace {

struct Example {
  SparseRows rows;
  std::vector<uint32_t> chosen;
  std::vector<double> targets;
  LogisticProblem problem(double l2) const { return {&rows, chosen, targets, l2}; }
};

// Random rows, one column twice in some; every third row is not chosen; targets soft in part.
Example RandomExample(uint64_t seed, size_t n_rows = 60, size_t n_columns = 9) {
  std::mt19937_64 rng(seed);
  std::normal_distribution<double> normal;
  Example example;
  example.rows.n_columns = n_columns;
  for (uint32_t row = 0; row < n_rows; ++row) {
    for (int i = 0; i < 5; ++i) example.rows.Add(static_cast<uint32_t>(rng() % n_columns), normal(rng));
    example.rows.EndRow();
    if (row % 3 == 2) continue;
    example.chosen.push_back(row);
    const uint64_t kind = rng() % 4;
    example.targets.push_back(kind == 0 ? 0.3 : kind % 2);
  }
  return example;
}

TEST(LogisticTest, TheGradientIsThatOfTheLoss) {
  const Example example = RandomExample(1);
  const LogisticProblem problem = example.problem(0.7);
  std::mt19937_64 rng(2);
  std::normal_distribution<double> normal;
  std::vector<double> weights(example.rows.n_columns + 1), gradient(weights.size());
  for (double& weight : weights) weight = normal(rng);
  LogisticLoss(problem, weights, gradient);
  for (size_t i = 0; i < weights.size(); ++i) {
    // Central differences: the error is h^2 / 6 times the third derivative (below 60 rows * 3^3 here) and rounding / h.
    constexpr double h = 1e-5;
    std::vector<double> up = weights, down = weights;
    up[i] += h;
    down[i] -= h;
    EXPECT_NEAR(gradient[i], (LogisticLoss(problem, up, {}) - LogisticLoss(problem, down, {})) / (2 * h), 1e-6) << i;
  }
}

// Dense gradient descent with a step below 1 / curvature, by the definition alone.
std::vector<double> SlowFit(const Example& example, double l2) {
  const size_t n = example.rows.n_columns + 1;
  std::vector<std::vector<double>> x;
  double curvature = l2;
  for (const uint32_t row : example.chosen) {
    std::vector<double> dense(n, 0.0);
    for (size_t i = example.rows.begin[row]; i < example.rows.begin[row + 1]; ++i) {
      dense[example.rows.column[i]] += example.rows.value[i];
    }
    dense[n - 1] = 1.0;
    for (const double value : dense) curvature += 0.25 * value * value;
    x.push_back(dense);
  }
  std::vector<double> w(n, 0.0);
  for (int step = 0; step < 20000; ++step) {
    std::vector<double> gradient(n);
    for (size_t i = 0; i < n; ++i) gradient[i] = (i + 1 < n ? l2 : kInterceptL2) * w[i];
    for (size_t k = 0; k < x.size(); ++k) {
      const double p = 1.0 / (1.0 + std::exp(-std::inner_product(w.begin(), w.end(), x[k].begin(), 0.0)));
      for (size_t i = 0; i < n; ++i) gradient[i] += (p - example.targets[k]) * x[k][i];
    }
    for (size_t i = 0; i < n; ++i) w[i] -= gradient[i] / curvature;
  }
  return w;
}

TEST(LogisticTest, TheFitIsTheMinimum) {
  for (const double l2 : {0.05, 1.0, 30.0}) {
    const Example example = RandomExample(3);
    const std::vector<double> fast = FitLogistic(example.problem(l2)), slow = SlowFit(example, l2);
    std::vector<double> gradient(fast.size());
    LogisticLoss(example.problem(l2), fast, gradient);
    for (size_t i = 0; i < fast.size(); ++i) {
      EXPECT_NEAR(fast[i], slow[i], 1e-3) << i << " at " << l2;
      // 1e-5 of a gradient at zero, whose length is below 60 rows * 3.
      EXPECT_NEAR(gradient[i], 0.0, 2e-3) << i << " at " << l2;
    }
  }
}

TEST(LogisticTest, MoreColumnsThanRowsAndOneClassStayFinite) {
  Example example = RandomExample(4, 30, 400);
  for (double& target : example.targets) target = 0.0;
  const std::vector<double> weights = FitLogistic(example.problem(0.5));
  for (const double weight : weights) EXPECT_TRUE(std::isfinite(weight));
  for (const uint32_t row : example.chosen) EXPECT_LT(LogOdds(example.rows, row, weights), -2.0);
}

}  // namespace
}  // namespace updraft
