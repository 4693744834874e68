// The routing decision as a pure function: no I/O, no clock, no globals. The agent and the simulator link the same
// object file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "common/routing/link.h"
#include "common/routing/names.h"

namespace updraft {

const char* DecisionName(Decision decision);  // "keep", "hand-over", "verify", "stream-upstream", "defer"

// Mirrors updraft.v1.Load.
struct UpstreamLoad {
  bool known = false;
  int running_requests = 0;
  int queued_requests = 0;
  int queued_tokens = 0;
  double kv_used_fraction = 0.0;
  double predicted_wait_s = 0.0;
  double decode_tokens_per_s = 0.0;  // per request; 0: unknown
};

struct RoutingPolicy {
  PolicyMode mode = PolicyMode::kAuto;
  // ---- Behaviour ----
  double confidence_threshold = 0.5;  // keep at or above it, in [0, 1]
  double hysteresis = 0.0;  // a decision that differs from the previous request's needs this much more, in confidence
  double during_margin = 0.1;  // while tokens still come, hand over only this far below: later tokens may still mend it
  double max_upstream_wait_s = 10.0;  // an upstream predicted slower than this is not asked
  double unreachable_retry_s =
      2.0;           // after a failure, upstream is not tried again for this long (doubled per failure, at most 60 s)
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

struct RoutingState {
  Stage stage = Stage::kBefore;
  bool has_upstream = false;
  bool fits_locally = true;  // the prompt leaves room for an answer in what this tier holds
  int hops = 0;              // tiers that have passed the request on already
  double confidence = 0.0;   // calibrated; valid in kDuring and kAfter
  int n_prompt_tokens = 0;
  int n_draft_tokens = 0;          // generated locally so far
  int expected_answer_tokens = 0;  // for predicting times; 0: unknown
  LinkEstimate link;
  UpstreamLoad load;
  std::optional<double> deadline_s;     // seconds left for this answer
  double local_tokens_per_s = 0.0;      // measured; 0: unknown
  Decision previous = Decision::kKeep;  // of the previous request, for hysteresis
  double since_failure_s = 1e9;         // since upstream last failed
};

struct RoutingDecision {
  Decision decision = Decision::kKeep;
  std::string reason;                 // one line for a person
  double predicted_upstream_s = 0.0;  // completion time if handed over now: transfer + round trip + wait + decode
  bool degraded = false;              // upstream was wanted but cannot be used
};

// What Decide promises, whatever the state holds (numbers that are no numbers count as worst):
// - kLocal never leaves this tier, and without an upstream nothing is sent to one;
// - nothing is sent that max_hops tiers have passed on already;
// - nothing is sent that is predicted to miss the deadline or to exceed max_upstream_wait_s, nor while the upstream is
// in backoff;
// - a higher confidence never turns "keep" into "hand-over";
// - kStreamUpstream only before local generation, kHandOver only during or after it; kDefer only when no tier can
// answer now.
RoutingDecision Decide(const RoutingState& state, const RoutingPolicy& policy);

// Completion time of an answer handed over now, in seconds.
double PredictUpstreamSeconds(const RoutingState& state, const RoutingPolicy& policy);

// How long upstream is left alone after `consecutive_failures`.
double BackoffSeconds(int consecutive_failures, const RoutingPolicy& policy);

}  // namespace updraft
