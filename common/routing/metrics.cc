// Measures of a confidence, and the choice of a threshold with a guarantee.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
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

// P(X <= k) for X ~ Binomial(n, p), summed from the largest term's neighbourhood in logarithms.
double BinomialCdf(int64_t k, int64_t n, double p) {
  if (p <= 0.0) return 1.0;
  if (p >= 1.0) return k >= n ? 1.0 : 0.0;
  const double log_p = std::log(p), log_q = std::log1p(-p);
  double sum = 0.0;
  for (int64_t i = 0; i <= k; ++i) {
    const double log_term =
        std::lgamma(n + 1.0) - std::lgamma(i + 1.0) - std::lgamma(n - i + 1.0) + i * log_p + (n - i) * log_q;
    sum += std::exp(log_term);
  }
  return std::min(sum, 1.0);
}

// The z with P(Z > z) = delta for a standard normal Z.
double UpperNormalQuantile(double delta) {
  double low = -10.0, high = 10.0;
  for (int i = 0; i < 80; ++i) {
    const double middle = 0.5 * (low + high);
    (0.5 * std::erfc(middle / std::sqrt(2.0)) > delta ? low : high) = middle;
  }
  return high;
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

double ClopperPearsonUpper(int64_t k, int64_t n, double delta) {
  if (n <= 0 || k >= n) return 1.0;
  if (k < 0) return 0.0;
  double low = static_cast<double>(k) / static_cast<double>(n), high = 1.0;
  for (int i = 0; i < 60; ++i) {
    const double middle = 0.5 * (low + high);
    (BinomialCdf(k, n, middle) > delta ? low : high) = middle;
  }
  return high;
}

double ChooseThreshold(std::span<const Judged> answers, double risk, double delta) {
  std::vector<double> wrong;
  for (const Judged& answer : answers) {
    if (!answer.correct) wrong.push_back(answer.confidence);
  }
  std::sort(wrong.begin(), wrong.end(), std::greater<>());
  const int64_t n = static_cast<int64_t>(answers.size()), n_wrong = static_cast<int64_t>(wrong.size());
  // The most wrong answers that may be kept. The bound rises with the count, so this is a search in a sorted range.
  int64_t low = -1, high = n_wrong + 1;  // low passes (or is nothing), high does not
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (ClopperPearsonUpper(middle, n, delta) <= risk ? low : high) = middle;
  }
  if (low < 0) return 1.0;
  if (low >= n_wrong) return 0.0;
  return std::nextafter(wrong[low], std::numeric_limits<double>::infinity());
}

double ChooseThresholdAgainst(std::span<const Compared> answers, double max_loss, double delta) {
  std::vector<Compared> sorted(answers.begin(), answers.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const Compared& a, const Compared& b) { return a.confidence > b.confidence; });
  const double n = static_cast<double>(sorted.size()), z = UpperNormalQuantile(delta);
  double threshold = 1.0, loss = 0.0, squares = 0.0;  // sums over the answers kept so far
  for (size_t i = 0; i < sorted.size(); ++i) {
    const double d = (sorted[i].upstream_correct ? 1.0 : 0.0) - (sorted[i].correct ? 1.0 : 0.0);
    loss += d;
    squares += d * d;
    const bool last = i + 1 == sorted.size();
    if (!last && sorted[i + 1].confidence == sorted[i].confidence) continue;
    // At least one pair counts as different, or a handful of answers would prove anything.
    const double mean = loss / n, variance = std::max(squares, 1.0) / n - mean * mean;
    if (mean + z * std::sqrt(std::max(variance, 0.0) / n) > max_loss) continue;
    threshold = last ? 0.0 : sorted[i].confidence;
  }
  return threshold;
}

}  // namespace updraft
