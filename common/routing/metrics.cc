// Measures of a confidence.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "common/routing/confidence.h"

namespace updraft {
namespace {

std::vector<Judged> SortedByConfidence(std::span<const Judged> answers) {
  std::vector<Judged> sorted(answers.begin(), answers.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const Judged& a, const Judged& b) { return a.confidence < b.confidence; });
  return sorted;
}

}  // namespace

double ExpectedCalibrationError(std::span<const Judged> answers, int n_bins) {
  if (answers.empty() || n_bins < 1) return 0.0;
  const std::vector<Judged> sorted = SortedByConfidence(answers);
  const int64_t n = static_cast<int64_t>(sorted.size());
  double error = 0.0;
  for (int64_t bin = 0; bin < n_bins; ++bin) {
    const int64_t begin = bin * n / n_bins, end = (bin + 1) * n / n_bins;
    double gap = 0.0;  // sum of confidence minus number correct
    for (int64_t i = begin; i < end; ++i) gap += sorted[i].confidence - (sorted[i].correct ? 1.0 : 0.0);
    error += std::abs(gap);
  }
  return error / static_cast<double>(n);
}

double AreaUnderRoc(std::span<const Judged> answers) {
  // Mann-Whitney: the share of (correct, wrong) pairs in order. Groups of equal confidence count half.
  const std::vector<Judged> sorted = SortedByConfidence(answers);
  double ordered_pairs = 0.0, wrong_below = 0.0, n_correct = 0.0;
  for (size_t begin = 0; begin < sorted.size();) {
    double correct = 0.0, wrong = 0.0;
    size_t end = begin;
    for (; end < sorted.size() && sorted[end].confidence == sorted[begin].confidence; ++end) {
      (sorted[end].correct ? correct : wrong) += 1.0;
    }
    ordered_pairs += correct * (wrong_below + 0.5 * wrong);
    wrong_below += wrong;
    n_correct += correct;
    begin = end;
  }
  if (n_correct == 0.0 || wrong_below == 0.0) return 0.5;
  return ordered_pairs / (n_correct * wrong_below);
}

}  // namespace updraft
