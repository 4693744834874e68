#include "deploy/task/statistics.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace updraft {

Interval WilsonInterval(int64_t k, int64_t n) {
  if (n <= 0) return {0.0, 1.0};
  constexpr double z = 1.959964;  // two-sided 95 %
  const double trials = static_cast<double>(n), p = static_cast<double>(k) / trials;
  const double scale = 1.0 + z * z / trials;
  const double centre = (p + z * z / (2.0 * trials)) / scale;
  const double half = z * std::sqrt(p * (1.0 - p) / trials + z * z / (4.0 * trials * trials)) / scale;
  return {std::max(centre - half, 0.0), std::min(centre + half, 1.0)};
}

double Mean(std::span<const double> values) {
  double sum = 0.0;
  for (const double value : values) sum += value;
  return values.empty() ? 0.0 : sum / static_cast<double>(values.size());
}

double Quantile(std::span<const double> values, double q) {
  if (values.empty()) return 0.0;
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  const double position = std::clamp(q, 0.0, 1.0) * static_cast<double>(sorted.size() - 1);
  const size_t below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (position - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

Interval BootstrapMeanInterval(std::span<const double> values, uint64_t seed) {
  if (values.empty()) return {};
  constexpr int kResamples = 1000;
  std::mt19937_64 rng(seed);
  std::vector<double> means;
  for (int r = 0; r < kResamples; ++r) {
    double sum = 0.0;
    for (size_t i = 0; i < values.size(); ++i) sum += values[rng() % values.size()];
    means.push_back(sum / static_cast<double>(values.size()));
  }
  return {Quantile(means, 0.025), Quantile(means, 0.975)};
}

}  // namespace updraft
