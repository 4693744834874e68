// How well a router ranks requests, beside what needs no router.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/routing/router.h"
#include "deploy/router/cost_curve.h"
#include "deploy/router/fit.h"
#include "deploy/router/outcomes.h"
#include "deploy/task/statistics.h"

namespace updraft {

struct RouterEvaluationOptions {
  const Router* router = nullptr;  // measured as it is; null: fitted on the table, each row scored by a fit without it
  RouterFitOptions fit;
  int folds = 10;                                        // 2..100; the same prompt never lies on both sides
  int resamples = 1000;                                  // 100..100,000, of the bootstrap over rows
  uint64_t seed = 1;                                     // of folds, ties, resamples and random rankings
  std::function<void(int done, int total)> on_progress;  // folds; may be empty

  absl::Status Validate() const;
};

struct Estimate {
  double value = 0.0;
  Interval interval;  // bootstrap percentiles, 95 %; of random rankings over 300 of them
};

struct RankingReport {
  std::string name;  // "router", "prompt length", "bag of words", "random"
  Estimate apgr, cpt50, cpt80;
  Estimate lead;  // APGR of the router minus this one's, on the same resamples
};

struct RouterReport {
  struct Point {
    double share = 0.0;
    Estimate right, fixed, broken;  // as in CostCurve
    double stated_gain = 0.0;       // mean over all rows of the gains that the router states for those sent
    double gain = 0.0;              // what it was
  };
  int n = 0;
  double weak = 0.0, strong = 0.0;        // shares right
  double fixable = 0.0, breakable = 0.0;  // rows (or sums of differences) that only the strong one has right; the weak
  std::vector<RankingReport> rankings;    // the router first
  std::vector<Point> curve;               // of the router
  int folds = 0;                          // 0: a router from a file
  bool seen = false;                      // that router was fitted on this very table
  int resamples = 0, without_gap = 0;     // those of them in which the strong one is no better, left out
  uint64_t seed = 0;
  double seconds = 0.0;
};

// Errors of CheckOutcomes and of the fit; a fold must leave something to learn.
absl::StatusOr<RouterReport> EvaluateRouter(const std::vector<RouterOutcome>& rows,
                                            const RouterEvaluationOptions& options);

// Which of `n_folds` each row is left out with: rows of the same prompt together, otherwise as even as can be.
std::vector<int> RouterFolds(std::span<const RouterOutcome> rows, int n_folds, uint64_t seed);

std::string ToText(const RouterReport& report);
std::string ToJson(const RouterReport& report);

}  // namespace updraft
