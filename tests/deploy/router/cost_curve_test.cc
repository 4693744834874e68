#include "deploy/router/cost_curve.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

namespace updraft {
namespace {

std::vector<RouterOutcome> Rows(const std::vector<std::pair<int, int>>& weak_strong) {
  std::vector<RouterOutcome> rows;
  for (const auto& [weak, strong] : weak_strong) {
    rows.push_back({"prompt " + std::to_string(rows.size()), static_cast<double>(weak), static_cast<double>(strong)});
  }
  return rows;
}

std::vector<uint32_t> InOrder(size_t n) {
  std::vector<uint32_t> order;
  for (uint32_t i = 0; i < n; ++i) order.push_back(i);
  return order;
}

// Eleven rows: the deciles are the ten steps between them, so the curve has 0, 2, 3, ..., 11 rows sent. In this order
// the strong one fixes rows 0, 1, 4 and 9 and breaks row 6; the weak one is right on 3, 6 and 10.
TEST(CostCurveTest, ByHand) {
  const auto rows = Rows({{0, 1}, {0, 1}, {0, 0}, {1, 1}, {0, 1}, {0, 0}, {1, 0}, {0, 0}, {0, 0}, {0, 1}, {1, 1}});
  const CostCurve curve = CurveOf(rows, InOrder(11));
  const int right[] = {3, 5, 5, 5, 6, 6, 5, 5, 5, 6, 6}, fixed[] = {0, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4},
            broken[] = {0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1};
  for (int i = 0; i < CostCurve::kPoints; ++i) {
    EXPECT_NEAR(curve.points[i].share, (i == 0 ? 0 : i + 1) / 11.0, 1e-12);
    EXPECT_NEAR(curve.points[i].right, right[i] / 11.0, 1e-12) << i;
    EXPECT_NEAR(curve.points[i].fixed, fixed[i], 1e-12) << i;
    EXPECT_NEAR(curve.points[i].broken, broken[i], 1e-12) << i;
  }
  // Trapezoids above 3, in units of rows: 2 * 1 for the first two, then 2, 2, 2.5, 3, 2.5, 2, 2, 2.5, 3 = 23.5 of 11
  // * 3.
  EXPECT_NEAR(curve.Apgr(), 23.5 / 33.0, 1e-12);
  EXPECT_NEAR(curve.Cpt(0.5), 1.5 / 11.0, 1e-12);  // 4.5 right: three quarters of the way to the first point
  EXPECT_NEAR(curve.Cpt(0.8), 4.4 / 11.0, 1e-12);  // 5.4 right: 0.4 of the way from 4 to 5 rows
  EXPECT_NEAR(curve.Cpt(1.0), 5.0 / 11.0, 1e-12);  // the first crossing, though it falls below again
}

double QuantileByPosition(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  const double at = q * (values.size() - 1);
  const size_t low = static_cast<size_t>(std::floor(at + 1e-9));
  const double part = std::max(0.0, at - low);
  return part < 1e-9 ? values[low] : values[low] + part * (values[low + 1] - values[low]);
}

// The definition of RouteLLM's evaluation, word by word.
TEST(CostCurveTest, ThresholdsAtTheDecilesOfTheScores) {
  std::mt19937_64 rng(1);
  for (const size_t n : {50u, 53u, 60u, 101u, 397u}) {
    std::vector<std::pair<int, int>> outcomes;
    std::vector<double> scores;
    for (size_t i = 0; i < n; ++i) {
      outcomes.emplace_back(rng() % 2, rng() % 3 > 0);
      scores.push_back(std::uniform_real_distribution<double>()(rng));
    }
    const auto rows = Rows(outcomes);
    const CostCurve curve = CurveOf(rows, RankByScore(rows, scores, 1));
    for (int decile = 0; decile <= 10; ++decile) {
      const double threshold = QuantileByPosition(scores, decile / 10.0);
      double sent = 0, right = 0;
      for (size_t i = 0; i < n; ++i) {
        const bool up = decile < 10 ? scores[i] >= threshold : scores[i] > threshold;
        sent += up;
        right += up ? rows[i].strong : rows[i].weak;
      }
      const CostCurve::Point& point = curve.points[10 - decile];
      EXPECT_NEAR(point.share, sent / n, 1e-12) << n << " decile " << decile;
      EXPECT_NEAR(point.right, right / n, 1e-12) << n << " decile " << decile;
    }
  }
}

TEST(CostCurveTest, RowsThatCountSeveralTimesAreRowsWrittenSeveralTimes) {
  std::mt19937_64 rng(2);
  std::vector<std::pair<int, int>> once, written;
  std::vector<uint32_t> times;
  for (int i = 0; i < 80; ++i) {
    once.emplace_back(rng() % 2, rng() % 2);
    times.push_back(rng() % 4);
    for (uint32_t k = 0; k < times.back(); ++k) written.push_back(once.back());
  }
  const CostCurve weighted = CurveOf(Rows(once), InOrder(80), times);
  const CostCurve expanded = CurveOf(Rows(written), InOrder(written.size()));
  for (int i = 0; i < CostCurve::kPoints; ++i) {
    EXPECT_NEAR(weighted.points[i].share, expanded.points[i].share, 1e-12);
    EXPECT_NEAR(weighted.points[i].right, expanded.points[i].right, 1e-12);
  }
}

TEST(CostCurveTest, EqualScoresAreOrderedByPromptAndSeedAlone) {
  const auto rows = Rows(std::vector<std::pair<int, int>>(100, {0, 1}));
  const std::vector<double> equal(100, 0.25);
  auto reversed = rows;
  std::reverse(reversed.begin(), reversed.end());
  const auto order = RankByScore(rows, equal, 1), other = RankByScore(reversed, equal, 1);
  for (size_t i = 0; i < order.size(); ++i) EXPECT_EQ(rows[order[i]].prompt, reversed[other[i]].prompt);
  EXPECT_NE(order, RankByScore(rows, equal, 2));
  EXPECT_NE(order, InOrder(100));
}

}  // namespace
}  // namespace updraft
