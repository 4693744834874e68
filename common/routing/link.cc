#include "common/routing/link.h"

#include <algorithm>
#include <cmath>

namespace updraft {
namespace {

constexpr double kRttGain = 1.0 / 8.0;  // RFC 6298, section 2
constexpr double kJitterGain = 1.0 / 4.0;
// What fits into TCP's initial window (10 segments, RFC 6928) leaves in one flight: its time is the round trip's, not
// the rate's.
constexpr uint64_t kBulkBytes = 14600;
constexpr double kMinTransfer_s = 1e-4;  // shorter times are the clock's and the scheduler's
// An older rate keeps exp(-t / this) of its weight after t seconds. Chosen on recorded LTE, 5G and 3G links
// (tests/common/routing), where consecutive transfers resemble each other far more than the mean of a drive.
constexpr double kRateMemory_s = 1.0;

}  // namespace

void LinkEstimator::Rate::Add(double bytes, double seconds, double now_s) {
  const double log_rate = std::log(bytes / std::max(seconds, kMinTransfer_s));
  const double elapsed = std::max(now_s - time_s, 0.0);
  // The gain follows the time that passed since the last transfer plus the transfer's own length, so that a burst of
  // small transfers cannot outweigh one long one.
  const double gain = measured ? std::clamp(1.0 - std::exp(-(elapsed + seconds) / kRateMemory_s), 0.1, 0.9) : 1.0;
  log_bytes_per_s += gain * (log_rate - log_bytes_per_s);
  time_s = now_s;
  measured = true;
}

double LinkEstimator::Rate::value() const { return measured ? std::exp(log_bytes_per_s) : kUnknown; }

void LinkEstimator::AddRoundTrip(double rtt_s) {
  if (!state_.measured) {
    state_.rtt_s = rtt_s;
    state_.rtt_jitter_s = rtt_s / 2.0;
    state_.measured = true;
    return;
  }
  state_.rtt_jitter_s += kJitterGain * (std::abs(rtt_s - state_.rtt_s) - state_.rtt_jitter_s);
  state_.rtt_s += kRttGain * (rtt_s - state_.rtt_s);
}

void LinkEstimator::OnSuccess(const LinkSample& sample) {
  if (!std::isfinite(sample.time_s) || !std::isfinite(sample.first_byte_s) || !std::isfinite(sample.server_s) ||
      !std::isfinite(sample.transfer_down_s) || sample.first_byte_s < 0.0 || sample.server_s < 0.0) {
    return;
  }
  // The server's clock runs on its own: a share above the whole means a round trip too short to measure.
  const double network_s = std::max(sample.first_byte_s - sample.server_s, 0.0);
  if (sample.bytes_up < kBulkBytes) {
    AddRoundTrip(network_s);
  } else if (state_.measured) {
    // An upload that took hardly longer than a round trip says only that the rate is at least bytes / jitter.
    const double floor_s = std::max(state_.rtt_jitter_s, kMinTransfer_s);
    const double bytes = static_cast<double>(sample.bytes_up), transfer_s = network_s - state_.rtt_s;
    if (!up_.measured || transfer_s > floor_s || bytes / floor_s > up_.value()) {
      up_.Add(bytes, std::max(transfer_s, floor_s), sample.time_s);
    }
  }
  if (sample.bytes_down >= kBulkBytes && sample.transfer_down_s > 0.0) {
    down_.Add(static_cast<double>(sample.bytes_down), sample.transfer_down_s, sample.time_s);
  }
  state_.consecutive_failures = 0;
  ++state_.samples;
  last_sample_s_ = sample.time_s;
}

void LinkEstimator::OnFailure(double time_s) {
  if (std::isfinite(time_s)) ++state_.consecutive_failures;
}

LinkEstimate LinkEstimator::Estimate(double now_s) const {
  LinkEstimate estimate = state_;
  estimate.goodput_up_bytes_per_s = up_.value();
  estimate.goodput_down_bytes_per_s = down_.value();
  if (state_.samples > 0) estimate.age_s = std::max(now_s - last_sample_s_, 0.0);
  estimate.reachable = state_.samples > 0 && state_.consecutive_failures == 0 && estimate.age_s <= kLinkValid_s;
  return estimate;
}

}  // namespace updraft
