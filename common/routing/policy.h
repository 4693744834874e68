// What a tier's routing is configured with. What is decided under it: choose.h.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "common/routing/names.h"

namespace updraft {

struct RoutingPolicy {
  PolicyMode mode = PolicyMode::kAuto;
  // ---- Behaviour ----
  double confidence_threshold = 0.5;  // keep at or above it, in [0, 1]
  double hysteresis = 0.0;  // a decision that differs from the previous request's needs this much more, in confidence
  double during_margin = 0.1;  // while tokens still come, hand over only this far below: later tokens may still mend it
  double max_upstream_wait_s = 10.0;  // an upstream predicted slower than this is not asked
  // After a failure, upstream is not tried again for this long (doubled per failure, at most 60 s).
  double unreachable_retry_s = 2.0;
  // Before the first token a request goes up undrafted from this gain on that its words promise (router.h), in (0, 1];
  // 0: they are not asked.
  double router_gain = 0.0;
  int max_hops = 4;  // a request that so many tiers have passed on goes no further up: upstreams may form a loop
  // ---- Assumed until measured ----
  double assumed_rtt_s = 0.1;
  double assumed_upstream_tokens_per_s = 50.0;
  double assumed_local_tokens_per_s = 100.0;

  absl::Status Validate() const;  // InvalidArgument names the field
};

// What the caller asks for (kAuto: no wish), within what this tier is allowed: privacy by configuration is not the
// caller's to lift.
PolicyMode EffectiveMode(PolicyMode configured, PolicyMode asked);

// The same for equal policies on every machine; a record tells by it under which policy it was made.
uint64_t Fingerprint(const RoutingPolicy& policy);

// How long upstream is left alone after `consecutive_failures`.
double BackoffSeconds(int consecutive_failures, const RoutingPolicy& policy);

}  // namespace updraft
