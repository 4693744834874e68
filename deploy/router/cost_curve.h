// What a ranking of requests buys: the more of them go up, the more answers are right.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "deploy/router/outcomes.h"

namespace updraft {

// As RouteLLM draws it (arXiv 2406.18665; its evaluation's thresholds at the deciles of the scores): eleven shares of
// requests sent to the strong model, straight lines between them.
struct CostCurve {
  static constexpr int kPoints = 11;
  struct Point {
    double share = 0.0;   // sent to the strong model
    double right = 0.0;   // share of all requests that are answered rightly
    double fixed = 0.0;   // of those sent, how many the strong one alone has right (sums of differences, where
    double broken = 0.0;  // rightness is no 0 or 1), and how many the weak one alone
  };
  std::array<Point, kPoints> points;  // share ascends from 0 to 1
  double n = 0.0;                     // requests

  double weak() const { return points.front().right; }
  double strong() const { return points.back().right; }
  // Average performance gap recovered: area between the curve and the weak model's accuracy over the gap; 0.5 for a
  // random ranking. Needs strong() > weak(), as do all below.
  double Apgr() const;
  // Call performance threshold: the least share at which `part` of the gap is recovered, by the first crossing.
  double Cpt(double part) const;
};

// Rows by descending score; of equal scores in an order that depends on the prompt and `seed` alone.
std::vector<uint32_t> RankByScore(std::span<const RouterOutcome> rows, std::span<const double> scores, uint64_t seed);

// order: all rows, those to be sent first in front. times: how often each row counts, as a bootstrap draws them; empty:
// once.
CostCurve CurveOf(std::span<const RouterOutcome> rows, std::span<const uint32_t> order,
                  std::span<const uint32_t> times = {});

}  // namespace updraft
