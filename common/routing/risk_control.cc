#include "common/routing/risk_control.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"

namespace updraft {
namespace {

absl::Status CheckOpenUnit(const char* field, double value) {
  if (value > 0.0 && value < 1.0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("risk limits: %s: expected a number above 0 and below 1, found %g", field, value));
}

absl::Status CheckSamples(std::span<const RiskSample> samples, bool below_one) {
  if (samples.empty()) {
    return absl::InvalidArgumentError("risk control: expected held-out requests, found none; give some");
  }
  for (size_t i = 0; i < samples.size(); ++i) {
    const auto& [confidence, loss] = samples[i];
    if (!(confidence >= 0.0 && confidence <= 1.0) || (below_one && confidence >= 1.0)) {
      return absl::InvalidArgumentError(
          absl::StrFormat("risk control: confidence of request %d: expected a number of at least 0 and %s 1, found %g",
                          i, below_one ? "below" : "at most", confidence));
    }
    if (!(loss >= 0.0 && loss <= 1.0)) {
      return absl::InvalidArgumentError(
          absl::StrFormat("risk control: loss of request %d: expected a number in [0, 1], found %g", i, loss));
    }
  }
  return absl::OkStatus();
}

bool AllZeroOrOne(std::span<const RiskSample> samples) {
  return std::all_of(samples.begin(), samples.end(),
                     [](const RiskSample& sample) { return sample.loss == 0.0 || sample.loss == 1.0; });
}

// Surest first; the losses too, so that nothing depends on the order in which requests were given.
std::vector<RiskSample> Sorted(std::span<const RiskSample> samples) {
  const auto before = [](const RiskSample& a, const RiskSample& b) {
    return a.confidence != b.confidence ? a.confidence > b.confidence : a.loss > b.loss;
  };
  std::vector<RiskSample> sorted(samples.begin(), samples.end());
  if (!std::is_sorted(sorted.begin(), sorted.end(), before)) std::sort(sorted.begin(), sorted.end(), before);
  return sorted;
}

// The most events in n trials that still speak for a probability below p at level delta; -1: even none does not.
int64_t MostEvents(int64_t n, double p, double delta) {
  const double log_odds = std::log(p) - std::log1p(-p);
  double log_term = static_cast<double>(n) * std::log1p(-p), tail = std::exp(log_term);
  int64_t k = 0;
  while (tail <= delta && k < n) {
    ++k;
    log_term += std::log(static_cast<double>(n - k + 1) / static_cast<double>(k)) + log_odds;
    tail += std::exp(log_term);
  }
  return tail <= delta ? k : k - 1;
}

// Predictable plug-in bets for one side and a sample of known size: what is staked on the next loss being below the
// mean under test, from the losses before it. At most 1, so that no loss costs more than the capital.
class PlugInBets {
 public:
  PlugInBets(size_t n, double delta) : scale_(-2.0 * std::log(delta) / static_cast<double>(n)) {}

  double Next() const { return std::min(1.0, std::sqrt(scale_ * count_ / squares_)); }
  void See(double loss) {
    count_ += 1.0;
    sum_ += loss;
    const double distance = loss - sum_ / count_;
    squares_ += distance * distance;
  }

 private:
  double scale_;  // 2 log(1 / delta) / n
  // A loss of 1/2 with variance 1/4 is taken for seen before the first.
  double count_ = 1.0, sum_ = 0.5, squares_ = 0.25;
};

// Whether the capital reaches 1 / delta on the way. One that underflows stays at 0, which can only keep back a
// rejection.
bool RejectedByBetting(std::span<const double> losses, double mean, double delta) {
  PlugInBets bets(losses.size(), delta);
  double capital = 1.0;
  for (const double loss : losses) {
    capital *= 1.0 - bets.Next() * (loss - mean);
    if (capital * delta >= 1.0) return true;
    bets.See(loss);
  }
  return false;
}

// places[i]: when the gambler sees the i-th of n requests.
std::vector<size_t> SeededOrder(size_t n, uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::vector<size_t> places(n);
  for (size_t i = 0; i < n; ++i) places[i] = i;
  for (size_t i = n; i > 1; --i) std::swap(places[i - 1], places[rng() % i]);
  return places;
}

// One end of a group of equal confidence to the next.
size_t GroupEnd(std::span<const RiskSample> sorted, size_t begin) {
  size_t end = begin;
  while (end < sorted.size() && sorted[end].confidence == sorted[begin].confidence) ++end;
  return end;
}

size_t WalkByCounting(std::span<const RiskSample> sorted, const RiskLimits& limits) {
  const int64_t most = MostEvents(static_cast<int64_t>(sorted.size()), limits.max_risk, limits.delta);
  if (most < 0) return 0;
  int64_t events = 0;
  size_t kept = 0;
  while (kept < sorted.size()) {
    const size_t end = GroupEnd(sorted, kept);
    for (size_t i = kept; i < end; ++i) events += sorted[i].loss > 0.0 ? 1 : 0;
    if (events > most) break;
    kept = end;
  }
  return kept;
}

size_t WalkByBetting(std::span<const RiskSample> sorted, const RiskLimits& limits) {
  const std::vector<size_t> places = SeededOrder(sorted.size(), limits.seed);
  std::vector<double> losses(sorted.size(), 0.0);
  if (!RejectedByBetting(losses, limits.max_risk, limits.delta)) return 0;
  size_t kept = 0;
  while (kept < sorted.size()) {
    const size_t end = GroupEnd(sorted, kept);
    bool changed = false;
    for (size_t i = kept; i < end; ++i) {
      losses[places[i]] = sorted[i].loss;
      changed = changed || sorted[i].loss > 0.0;
    }
    if (changed && !RejectedByBetting(losses, limits.max_risk, limits.delta)) break;
    kept = end;
  }
  return kept;
}

RiskEstimate Estimate(std::span<const RiskSample> sorted, size_t kept, RiskBound bound, const RiskLimits& limits) {
  RiskEstimate estimate;
  estimate.n = static_cast<int64_t>(sorted.size());
  estimate.n_kept = static_cast<int64_t>(kept);
  estimate.bound = bound;
  double loss = 0.0;
  for (const RiskSample& sample : sorted.first(kept)) loss += sample.loss;
  estimate.risk = loss / static_cast<double>(sorted.size());
  if (bound == RiskBound::kClopperPearson) {
    estimate.upper = ClopperPearsonUpper(std::llround(loss), estimate.n, limits.delta);
    return estimate;
  }
  const std::vector<size_t> places = SeededOrder(sorted.size(), limits.seed);
  std::vector<double> losses(sorted.size(), 0.0);
  for (size_t i = 0; i < kept; ++i) losses[places[i]] = sorted[i].loss;
  estimate.upper = BettingUpper(losses, limits.delta);
  return estimate;
}

}  // namespace

absl::Status RiskLimits::Validate() const {
  if (absl::Status status = CheckOpenUnit("max_risk", max_risk); !status.ok()) return status;
  return CheckOpenUnit("delta", delta);
}

std::string_view NameOf(RiskBound bound) { return bound == RiskBound::kClopperPearson ? "clopper-pearson" : "betting"; }

absl::StatusOr<KeepThreshold> ChooseKeepThreshold(std::span<const RiskSample> samples, const RiskLimits& limits) {
  if (absl::Status status = limits.Validate(); !status.ok()) return status;
  if (absl::Status status = CheckSamples(samples, /*below_one=*/true); !status.ok()) return status;
  const std::vector<RiskSample> sorted = Sorted(samples);
  const RiskBound bound = AllZeroOrOne(sorted) ? RiskBound::kClopperPearson : RiskBound::kBetting;
  const size_t kept =
      bound == RiskBound::kClopperPearson ? WalkByCounting(sorted, limits) : WalkByBetting(sorted, limits);
  KeepThreshold choice;
  choice.threshold = kept == 0 ? kKeepNothing : kept == sorted.size() ? 0.0 : sorted[kept - 1].confidence;
  choice.estimate = Estimate(sorted, kept, bound, limits);
  return choice;
}

absl::StatusOr<RiskEstimate> RiskAt(std::span<const RiskSample> samples, double threshold, const RiskLimits& limits) {
  if (absl::Status status = CheckOpenUnit("delta", limits.delta); !status.ok()) return status;
  if (std::isnan(threshold)) return absl::InvalidArgumentError("risk control: threshold: expected a number, found NaN");
  if (absl::Status status = CheckSamples(samples, /*below_one=*/false); !status.ok()) return status;
  const std::vector<RiskSample> sorted = Sorted(samples);
  const auto kept = std::partition_point(sorted.begin(), sorted.end(),
                                         [&](const RiskSample& sample) { return sample.confidence >= threshold; });
  return Estimate(sorted, static_cast<size_t>(kept - sorted.begin()),
                  AllZeroOrOne(sorted) ? RiskBound::kClopperPearson : RiskBound::kBetting, limits);
}

double BinomialTail(int64_t k, int64_t n, double p) {
  if (k < 0) return 0.0;
  if (k >= n || p <= 0.0) return 1.0;
  if (p >= 1.0) return 0.0;
  const double count = static_cast<double>(n), events = static_cast<double>(k), mean = count * p;
  // The side of k on which terms only fall is summed, from k outwards, each from the one before.
  const bool lower = events <= mean;
  const double first = lower ? events : events + 1.0;
  const double log_first = std::lgamma(count + 1.0) - std::lgamma(first + 1.0) - std::lgamma(count - first + 1.0) +
                           first * std::log(p) + (count - first) * std::log1p(-p);
  const double odds = p / (1.0 - p);
  double term = 1.0, sum = 1.0;
  for (double i = first; term > 1e-18 * sum && (lower ? i > 0.0 : i < count); i += lower ? -1.0 : 1.0) {
    term *= lower ? i / ((count - i + 1.0) * odds) : (count - i) * odds / (i + 1.0);
    sum += term;
  }
  const double side = std::exp(log_first) * sum;
  return std::clamp(lower ? side : 1.0 - side, 0.0, 1.0);
}

double ClopperPearsonUpper(int64_t k, int64_t n, double delta) {
  if (n <= 0 || k >= n) return 1.0;
  if (k < 0) return 0.0;
  double low = static_cast<double>(k) / static_cast<double>(n), high = 1.0;
  for (int i = 0; i < 60; ++i) {
    const double middle = 0.5 * (low + high);
    (BinomialTail(k, n, middle) > delta ? low : high) = middle;
  }
  return high;
}

double BettingPValue(std::span<const double> losses, double mean, double delta) {
  PlugInBets bets(losses.size(), delta);
  double log_capital = 0.0, most = 0.0;
  for (const double loss : losses) {
    log_capital += std::log1p(-bets.Next() * (loss - mean));
    most = std::max(most, log_capital);
    bets.See(loss);
  }
  return std::exp(-most);
}

double BettingUpper(std::span<const double> losses, double delta) {
  // No bet depends on the mean under test: they are computed once, and the capital rises with the mean.
  PlugInBets plug_in(losses.size(), delta);
  std::vector<double> bets(losses.size());
  for (size_t i = 0; i < losses.size(); ++i) {
    bets[i] = plug_in.Next();
    plug_in.See(losses[i]);
  }
  const auto rejected = [&](double mean) {
    double capital = 1.0;
    for (size_t i = 0; i < losses.size(); ++i) {
      capital *= 1.0 - bets[i] * (losses[i] - mean);
      if (capital * delta >= 1.0) return true;
    }
    return false;
  };
  double low = 0.0, high = 1.0;
  if (!rejected(high)) return 1.0;
  for (int i = 0; i < 40; ++i) {
    const double middle = 0.5 * (low + high);
    (rejected(middle) ? high : low) = middle;
  }
  return high;
}

}  // namespace updraft
