#include "common/routing/drift.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_format.h"

namespace updraft {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kMostCapital = 1e100;
// The sizes of change that are bet on, in multiples of the level.
constexpr double kFactors[] = {1.5, 2.5, 5.0};
// Starts are spread over the first few hundred audits about evenly and thinly after them: gambler t starts with
// kSpread / ((t + kSpread) (t + kSpread + 1)), which sums to 1. Larger: slower to notice at the beginning, faster
// later.
constexpr double kSpread = 300.0;
// Of its capital a gambler keeps at least a tenth, come what may.
constexpr double kMostAtRisk = 0.9;

absl::Status CheckRange(const char* field, double value, double low, double high, const char* range) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("drift: %s: expected a number in %s, found %g", field, range, value));
}

// In [0, 1): a function of seed and number alone. Two rounds of splitmix64's end, so that neighbours in either differ.
double DrawOf(uint64_t seed, uint64_t seq) {
  uint64_t h = seed;
  for (const uint64_t word : {seq, uint64_t{0x9e3779b97f4a7c15ull}}) {
    h += word + 0x9e3779b97f4a7c15ull;
    h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9ull;
    h = (h ^ (h >> 27)) * 0x94d049bb133111ebull;
    h ^= h >> 31;
  }
  return static_cast<double>(h >> 11) * 0x1p-53;
}

}  // namespace

absl::Status DriftOptions::Validate() const {
  constexpr double kAbove0 = std::numeric_limits<double>::min();
  if (auto s = CheckRange("level", level, kAbove0, 0.5, "(0, 0.5]"); !s.ok()) return s;
  if (auto s = CheckRange("threshold", threshold, 0.0, 1.0, "[0, 1]"); !s.ok()) return s;
  if (auto s = CheckRange("audit_share", audit_share, kAbove0, kMaxAuditShare, "(0, 0.1]"); !s.ok()) return s;
  if (auto s = CheckRange("min_share", min_share, kAbove0, audit_share, "(0, audit_share]"); !s.ok()) return s;
  return CheckRange("alpha", alpha, kAbove0, std::nextafter(1.0, 0.0), "(0, 1)");
}

absl::StatusOr<DriftMonitor> DriftMonitor::Create(const DriftOptions& options) {
  if (absl::Status status = options.Validate(); !status.ok()) return status;
  return DriftMonitor(options);
}

DriftMonitor::DriftMonitor(const DriftOptions& options) : options_(options) { Restart(options.threshold); }

void DriftMonitor::Restart(double threshold) {
  options_.threshold = std::clamp(std::isnan(threshold) ? 1.0 : threshold, 0.0, 1.0);
  const double level = options_.level;
  const double most_stake = kMostAtRisk * options_.min_share / (options_.audit_share * level);
  for (int k = 0; k < kChanges; ++k) {
    // Kelly's stake where losses are 0 or 1 and their rate became `changed`.
    const double changed = std::min(kFactors[k] * level, 0.5 * (1.0 + level));
    gamblers_[k] = {.stake = std::min((changed - level) / (level * (1.0 - level)), most_stake)};
  }
  n_audits_ = 0;
  waiting_ = 1.0;
  w_ = wl_ = ww_ = wwl_ = wwll_ = 0.0;
  alarmed_ = false;
  alarm_seq_ = 0;
  alarm_s_ = kNaN;
}

AuditPlan DriftMonitor::Plan(uint64_t seq, double share) const {
  const double propensity = std::min(share, options_.audit_share);
  if (!(propensity >= options_.min_share)) return {};
  return {DrawOf(options_.seed, seq) < propensity, propensity};
}

absl::Status DriftMonitor::OnAudit(const Audit& audit) {
  if (auto s = CheckRange("confidence of an audit", audit.confidence, 0.0, 1.0, "[0, 1]"); !s.ok()) return s;
  if (auto s = CheckRange("loss of an audit", audit.loss, 0.0, 1.0, "[0, 1]"); !s.ok()) return s;
  if (auto s = CheckRange("propensity of an audit", audit.propensity, options_.min_share, options_.audit_share,
                          "[min_share, audit_share]");
      !s.ok()) {
    return s;
  }
  if (!std::isfinite(audit.at_s)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("drift: time of an audit: expected a finite number, found %g", audit.at_s));
  }
  const double weight = options_.audit_share / audit.propensity;
  seen_[n_audits_ % kWindow] = {audit.confidence, weight, audit.loss};
  Bet(weight, audit.loss);
  ++n_audits_;
  w_ += weight;
  wl_ += weight * audit.loss;
  ww_ += weight * weight;
  wwl_ += weight * weight * audit.loss;
  wwll_ += weight * weight * audit.loss * audit.loss;
  if (!alarmed_ && e_value() * options_.alpha >= 1.0) {
    alarmed_ = true;
    alarm_seq_ = audit.seq;
    alarm_s_ = audit.at_s;
  }
  return absl::OkStatus();
}

void DriftMonitor::Bet(double weight, double loss) {
  const double t = static_cast<double>(n_audits_);
  waiting_ = kSpread / (t + 1.0 + kSpread);
  const double starts_with = kSpread / ((t + kSpread) * (t + kSpread + 1.0)) / kChanges;
  for (Gamblers& gamblers : gamblers_) {
    const double factor = 1.0 + gamblers.stake * weight * (loss - options_.level);
    gamblers.capital = std::min((gamblers.capital + starts_with) * factor, kMostCapital);
    if (gamblers.log_best <= 0.0) {
      gamblers.log_best = 0.0;
      gamblers.best_start = n_audits_;
    }
    gamblers.log_best += std::log(factor);
  }
}

double DriftMonitor::e_value() const {
  double capital = waiting_;
  for (const Gamblers& gamblers : gamblers_) capital += gamblers.capital;
  return std::min(capital, kMostCapital);
}

KeptRisk DriftMonitor::Risk() const {
  KeptRisk kept{.n_audits = n_audits_, .risk = kNaN};
  if (n_audits_ == 0) return kept;
  const double p = std::clamp(wl_ / w_, 0.0, 1.0), most = static_cast<double>(n_audits_);
  // How many audits of equal weight would tell as much: by the variance of the ratio where there is one, else by Kish's
  // formula, and never more than there were.
  const double variance = (wwll_ - 2.0 * p * wwl_ + p * p * ww_) / (w_ * w_);
  const double even = p * (1.0 - p), kish = w_ * w_ / ww_;
  const double n = std::min(most, even > 0.0 && variance > 0.0 ? even / variance : kish);
  constexpr double kZ = 1.959963984540054;
  const double shrink = 1.0 / (1.0 + kZ * kZ / n), middle = (p + 0.5 * kZ * kZ / n) * shrink;
  const double half = kZ * std::sqrt(even / n + 0.25 * kZ * kZ / (n * n)) * shrink;
  kept.risk = p;
  kept.low = std::max(0.0, middle - half);
  kept.high = std::min(1.0, middle + half);
  return kept;
}

double DriftMonitor::ProposedThreshold() const {
  if (!alarmed_) return options_.threshold;
  const auto best = std::max_element(gamblers_.begin(), gamblers_.end(),
                                     [](const Gamblers& a, const Gamblers& b) { return a.log_best < b.log_best; });
  const int64_t n = std::min<int64_t>(n_audits_ - best->best_start, kWindow);
  std::array<Seen, kWindow> since;
  int64_t n_above = 0;
  for (int64_t i = n_audits_ - n; i < n_audits_; ++i) {
    const Seen& seen = seen_[i % kWindow];
    if (seen.confidence >= options_.threshold) since[n_above++] = seen;
  }
  std::sort(since.begin(), since.begin() + n_above,
            [](const Seen& a, const Seen& b) { return a.confidence > b.confidence; });
  double proposed = 1.0, weight = 0.0, loss = 0.0;
  for (int64_t i = 0; i < n_above; ++i) {
    weight += since[i].weight;
    loss += since[i].weight * since[i].loss;
    const bool last = i + 1 == n_above;
    if (!last && since[i + 1].confidence == since[i].confidence) continue;
    if (loss <= options_.level * weight) proposed = last ? options_.threshold : since[i].confidence;
  }
  return proposed;
}

}  // namespace updraft
