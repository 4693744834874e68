// Logistic regression on sparse rows with soft targets, for heads over many n-grams and few examples.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace updraft {

// Compressed rows. Columns of a row need no order and may repeat, then their values add up.
struct SparseRows {
  size_t n_columns = 0;
  std::vector<size_t> begin = {0};  // [rows + 1]
  std::vector<uint32_t> column;
  std::vector<float> value;

  size_t n_rows() const { return begin.size() - 1; }
  void Add(uint32_t at, double what) {
    column.push_back(at);
    value.push_back(static_cast<float>(what));
  }
  void EndRow() { begin.push_back(column.size()); }
};

// The rows that a fit uses, with what they should give: in [0, 1], one for each.
struct LogisticProblem {
  const SparseRows* rows = nullptr;
  std::span<const uint32_t> chosen;  // indices of rows
  std::span<const double> targets;   // [chosen.size()]
  double l2 = 1.0;  // half of it times the squared weights is added to the loss, the intercept left out
};

// Of the intercept, instead of l2: enough to keep it finite where all targets are 0, of no weight elsewhere.
constexpr double kInterceptL2 = 0.01;

// Negative log likelihood plus penalty at `weights`, [n_columns + 1] with the intercept last. gradient: of the same
// size, overwritten; may be empty: not wanted.
double LogisticLoss(const LogisticProblem& problem, std::span<const double> weights, std::span<double> gradient);

// The minimum, by Newton's method with conjugate gradients, to a gradient of 1e-5 of its length at zero. Deterministic.
std::vector<double> FitLogistic(const LogisticProblem& problem);

// Log odds of a row.
double LogOdds(const SparseRows& rows, size_t row, std::span<const double> weights);

}  // namespace updraft
