#include "common/routing/policy.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "absl/strings/str_format.h"

namespace updraft {
namespace {

constexpr double kMaxBackoff_s = 60.0;

absl::Status CheckRange(const char* field, double value, double low, double high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("routing policy: %s: expected a number in [%g, %g], found %g", field, low, high, value));
}

}  // namespace

PolicyMode EffectiveMode(PolicyMode configured, PolicyMode asked) {
  if (configured == PolicyMode::kLocal || asked == PolicyMode::kLocal) return PolicyMode::kLocal;
  return asked == PolicyMode::kUpstream ? PolicyMode::kUpstream : configured;
}

uint64_t Fingerprint(const RoutingPolicy& policy) {
  // By binding all fields: one that is added does not compile before it is in here.
  const auto& [mode, threshold, hysteresis, margin, wait_s, retry_s, router_gain, hops, rtt_s, upstream_rate,
               local_rate] = policy;
  uint64_t hash = 0xcbf29ce484222325ull;  // FNV-1a over the words' bytes, low ones first
  const auto add = [&hash](uint64_t word) {
    for (int shift = 0; shift < 64; shift += 8) hash = (hash ^ ((word >> shift) & 0xff)) * 0x100000001b3ull;
  };
  add(static_cast<uint64_t>(mode));
  for (const double value : {threshold, hysteresis, margin, wait_s, retry_s}) add(std::bit_cast<uint64_t>(value));
  if (router_gain != 0.0) add(std::bit_cast<uint64_t>(router_gain));  // policies without it stay what they were
  add(static_cast<uint64_t>(hops));
  for (const double value : {rtt_s, upstream_rate, local_rate}) add(std::bit_cast<uint64_t>(value));
  return hash;
}

absl::Status RoutingPolicy::Validate() const {
  const struct {
    const char* field;
    double value, low, high;
  } ranges[] = {{"confidence_threshold", confidence_threshold, 0.0, 1.0},
                {"hysteresis", hysteresis, 0.0, 1.0},
                {"during_margin", during_margin, 0.0, 1.0},
                {"router_gain", router_gain, 0.0, 1.0},
                {"max_hops", static_cast<double>(max_hops), 0.0, 100.0},
                {"max_upstream_wait_s", max_upstream_wait_s, 0.0, 86400.0},
                {"unreachable_retry_s", unreachable_retry_s, 0.0, kMaxBackoff_s},
                {"assumed_rtt_s", assumed_rtt_s, 0.0, 60.0},
                {"assumed_upstream_tokens_per_s", assumed_upstream_tokens_per_s, 1e-3, 1e6},
                {"assumed_local_tokens_per_s", assumed_local_tokens_per_s, 1e-3, 1e6}};
  for (const auto& r : ranges) {
    if (absl::Status status = CheckRange(r.field, r.value, r.low, r.high); !status.ok()) return status;
  }
  return absl::OkStatus();
}

double BackoffSeconds(int consecutive_failures, const RoutingPolicy& policy) {
  if (consecutive_failures <= 0) return 0.0;
  return std::min(std::ldexp(policy.unreachable_retry_s, std::min(consecutive_failures - 1, 20)), kMaxBackoff_s);
}

}  // namespace updraft
