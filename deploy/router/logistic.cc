#include "deploy/router/logistic.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace updraft {
namespace {

double Sigmoid(double x) { return x >= 0 ? 1.0 / (1.0 + std::exp(-x)) : std::exp(x) / (1.0 + std::exp(x)); }

// log(1 + exp(x)) without overflow.
double SoftPlus(double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }

double Dot(std::span<const double> a, std::span<const double> b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

void AddRow(const SparseRows& rows, size_t row, double factor, std::span<double> to) {
  for (size_t i = rows.begin[row]; i < rows.begin[row + 1]; ++i) to[rows.column[i]] += factor * rows.value[i];
  to[rows.n_columns] += factor;
}

double PenaltyOf(const LogisticProblem& problem, size_t column) {
  return column < problem.rows->n_columns ? problem.l2 : kInterceptL2;
}

// Hessian times `direction`; curvature: p * (1 - p) of each chosen row.
std::vector<double> TimesHessian(const LogisticProblem& problem, std::span<const double> curvature,
                                 std::span<const double> direction) {
  std::vector<double> product(direction.size());
  for (size_t i = 0; i < product.size(); ++i) product[i] = PenaltyOf(problem, i) * direction[i];
  for (size_t k = 0; k < problem.chosen.size(); ++k) {
    const size_t row = problem.chosen[k];
    AddRow(*problem.rows, row, curvature[k] * LogOdds(*problem.rows, row, direction), product);
  }
  return product;
}

// Solves Hessian * step = -gradient to a tenth of the gradient: the outer iterations do the rest.
std::vector<double> NewtonStep(const LogisticProblem& problem, std::span<const double> weights,
                               const std::vector<double>& gradient) {
  std::vector<double> curvature;
  for (const uint32_t row : problem.chosen) {
    const double p = Sigmoid(LogOdds(*problem.rows, row, weights));
    curvature.push_back(p * (1.0 - p));
  }
  std::vector<double> step(gradient.size(), 0.0), residual(gradient.size());
  for (size_t i = 0; i < gradient.size(); ++i) residual[i] = -gradient[i];
  std::vector<double> direction = residual;
  double squares = Dot(residual, residual);
  const double enough = 0.01 * squares;
  for (int iteration = 0; iteration < 200 && squares > enough; ++iteration) {
    const std::vector<double> product = TimesHessian(problem, curvature, direction);
    const double along = squares / Dot(direction, product);
    for (size_t i = 0; i < step.size(); ++i) {
      step[i] += along * direction[i];
      residual[i] -= along * product[i];
    }
    const double next = Dot(residual, residual);
    for (size_t i = 0; i < step.size(); ++i) direction[i] = residual[i] + next / squares * direction[i];
    squares = next;
  }
  return step;
}

}  // namespace

double LogOdds(const SparseRows& rows, size_t row, std::span<const double> weights) {
  double sum = weights[rows.n_columns];
  for (size_t i = rows.begin[row]; i < rows.begin[row + 1]; ++i) sum += weights[rows.column[i]] * rows.value[i];
  return sum;
}

double LogisticLoss(const LogisticProblem& problem, std::span<const double> weights, std::span<double> gradient) {
  double loss = 0.0;
  for (size_t i = 0; i < weights.size(); ++i) {
    loss += 0.5 * PenaltyOf(problem, i) * weights[i] * weights[i];
    if (!gradient.empty()) gradient[i] = PenaltyOf(problem, i) * weights[i];
  }
  for (size_t k = 0; k < problem.chosen.size(); ++k) {
    const double z = LogOdds(*problem.rows, problem.chosen[k], weights);
    loss += SoftPlus(z) - problem.targets[k] * z;
    if (!gradient.empty()) AddRow(*problem.rows, problem.chosen[k], Sigmoid(z) - problem.targets[k], gradient);
  }
  return loss;
}

std::vector<double> FitLogistic(const LogisticProblem& problem) {
  std::vector<double> weights(problem.rows->n_columns + 1, 0.0), gradient(weights.size());
  double loss = LogisticLoss(problem, weights, gradient);
  const double small = 1e-10 * Dot(gradient, gradient);
  for (int iteration = 0; iteration < 100 && Dot(gradient, gradient) > small; ++iteration) {
    const std::vector<double> step = NewtonStep(problem, weights, gradient);
    const double slope = Dot(step, gradient);
    std::vector<double> next(weights.size());
    double size = 1.0, next_loss = loss;
    for (; size > 1e-6; size *= 0.5) {  // a full step overshoots where the curvature grows on the way
      for (size_t i = 0; i < next.size(); ++i) next[i] = weights[i] + size * step[i];
      next_loss = LogisticLoss(problem, next, {});
      if (next_loss <= loss + 1e-4 * size * slope) break;
    }
    if (size <= 1e-6) break;  // as low as doubles can tell
    weights = std::move(next);
    loss = LogisticLoss(problem, weights, gradient);
  }
  return weights;
}

}  // namespace updraft
