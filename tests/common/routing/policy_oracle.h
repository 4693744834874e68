// How decisions were made before options were compared, one condition after the other: what Choose is held to, byte for
// byte. Not to be improved.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/routing/link.h"
#include "common/routing/names.h"
#include "common/routing/policy.h"
#include "common/routing/record.h"

namespace updraft::oracle {

struct RoutingState {
  Stage stage = Stage::kBefore;
  bool has_upstream = false;
  bool fits_locally = true;
  int hops = 0;
  double confidence = 0.0;
  int n_prompt_tokens = 0;
  int n_draft_tokens = 0;
  int expected_answer_tokens = 0;  // 0: unknown
  LinkEstimate link;
  UpstreamLoad load;
  std::optional<double> deadline_s;
  double local_tokens_per_s = 0.0;
  Decision previous = Decision::kKeep;
  double since_failure_s = 1e9;
};

struct RoutingDecision {
  Decision decision = Decision::kKeep;
  std::string reason;
  double predicted_upstream_s = 0.0;
  bool degraded = false;
};

inline double BackoffSeconds(int consecutive_failures, const RoutingPolicy& policy);
inline double PredictUpstreamSeconds(const RoutingState& state, const RoutingPolicy& policy);

inline constexpr double kMaxBackoff_s = 60.0;
inline constexpr double kBytesPerToken = 3.0;      // a varint of an id below 2^21
inline constexpr double kCallOverheadBytes = 200;  // headers, names and framing of a call
inline constexpr char kDoesNotFit[] = "the prompt does not fit on this tier";
inline constexpr int kTypicalAnswerTokens = 64;  // when nobody says

inline double PositiveOr(double value, double otherwise) {
  return std::isfinite(value) && value > 0.0 ? value : otherwise;
}

inline int ExpectedAnswerTokens(const RoutingState& state) {
  const int expected = state.expected_answer_tokens > 0 ? state.expected_answer_tokens : kTypicalAnswerTokens;
  return std::max(expected, std::max(state.n_draft_tokens, 0) + 1);
}

inline double PredictLocalSeconds(const RoutingState& state, const RoutingPolicy& policy) {
  if (state.stage == Stage::kAfter) return 0.0;
  const int left = ExpectedAnswerTokens(state) - std::max(state.n_draft_tokens, 0);
  return left / PositiveOr(state.local_tokens_per_s, policy.assumed_local_tokens_per_s);
}

// Why upstream cannot be asked now; empty when it can.
inline std::string Obstacle(const RoutingState& state, const RoutingPolicy& policy, double predicted_s) {
  if (!state.has_upstream) return "no upstream configured";
  if (state.hops >= policy.max_hops) {
    return absl::StrFormat("%d tiers have passed the request on already; see that no --upstream leads back",
                           state.hops);
  }
  if (state.link.consecutive_failures > 0) {
    const double backoff_s = oracle::BackoffSeconds(state.link.consecutive_failures, policy);
    if (!(state.since_failure_s >= backoff_s)) {
      return absl::StrFormat("upstream unreachable (%d failed, tried again after %.1f s)",
                             state.link.consecutive_failures, backoff_s);
    }
  }
  if (!(predicted_s <= policy.max_upstream_wait_s)) {
    return absl::StrFormat("upstream would take %.2f s, more than the %.2f s allowed", predicted_s,
                           policy.max_upstream_wait_s);
  }
  if (state.deadline_s.has_value() && !(predicted_s <= *state.deadline_s)) {
    return absl::StrFormat("upstream would take %.2f s, %.2f s are left", predicted_s, *state.deadline_s);
  }
  return "";
}

inline RoutingDecision Make(Decision decision, std::string reason, double predicted_s, bool degraded = false) {
  RoutingDecision result;
  result.decision = decision;
  result.reason = std::move(reason);
  result.predicted_upstream_s = predicted_s;
  result.degraded = degraded;
  return result;
}

// Upstream is wanted whatever the confidence: as the mode says, or because the prompt does not fit here.
inline RoutingDecision PreferUpstream(const RoutingState& state, const std::string& obstacle, const std::string& why,
                                      double predicted_s) {
  if (obstacle.empty()) {
    return Make(Decision::kStreamUpstream, absl::StrFormat("%s; upstream in about %.2f s", why, predicted_s),
                predicted_s);
  }
  if (!state.fits_locally) {
    return Make(Decision::kDefer, absl::StrFormat("%s, but %s: no tier can answer now", why, obstacle), predicted_s,
                true);
  }
  return Make(Decision::kKeep, absl::StrFormat("%s, but %s: answered locally", why, obstacle), predicted_s, true);
}

inline RoutingDecision DecideBefore(const RoutingState& state, const RoutingPolicy& policy, const std::string& obstacle,
                                    double predicted_s) {
  if (policy.mode == PolicyMode::kUpstream) return PreferUpstream(state, obstacle, "policy 'upstream'", predicted_s);
  const double local_s = PredictLocalSeconds(state, policy);
  if (state.deadline_s.has_value() && local_s > *state.deadline_s) {
    if (obstacle.empty()) {
      return Make(Decision::kStreamUpstream,
                  absl::StrFormat("local answer would take %.2f s of %.2f s left; upstream about %.2f s", local_s,
                                  *state.deadline_s, predicted_s),
                  predicted_s);
    }
    return Make(
        Decision::kKeep,
        absl::StrFormat("local answer would take %.2f s of %.2f s left, but %s", local_s, *state.deadline_s, obstacle),
        predicted_s, state.has_upstream);
  }
  return Make(Decision::kKeep, state.has_upstream ? "local draft first" : obstacle, predicted_s);
}

inline RoutingDecision DecideByConfidence(const RoutingState& state, const RoutingPolicy& policy,
                                          const std::string& obstacle, double predicted_s) {
  const double confidence = std::isfinite(state.confidence) ? state.confidence : 0.0;
  const bool kept_before = state.previous == Decision::kKeep;
  double threshold = policy.confidence_threshold + (kept_before ? -policy.hysteresis : policy.hysteresis);
  if (state.stage == Stage::kDuring) threshold -= policy.during_margin;
  if (confidence >= threshold) {
    return Make(Decision::kKeep, absl::StrFormat("confidence %.2f reaches %.2f", confidence, threshold), predicted_s);
  }
  const std::string below = absl::StrFormat("confidence %.2f below %.2f", confidence, threshold);
  if (!obstacle.empty()) {
    return Make(Decision::kKeep, absl::StrFormat("%s, but %s", below, obstacle), predicted_s, state.has_upstream);
  }
  return Make(Decision::kHandOver, absl::StrFormat("%s; upstream in about %.2f s", below, predicted_s), predicted_s);
}

inline double BackoffSeconds(int consecutive_failures, const RoutingPolicy& policy) {
  if (consecutive_failures <= 0) return 0.0;
  return std::min(std::ldexp(policy.unreachable_retry_s, std::min(consecutive_failures - 1, 20)), kMaxBackoff_s);
}

inline double PredictUpstreamSeconds(const RoutingState& state, const RoutingPolicy& policy) {
  const LinkEstimate& link = state.link;
  // One deviation above the mean: being late costs more than having waited for nothing. A new prediction does not rest
  // on retransmission timers, so RFC 6298's four would be too shy.
  const double rtt_s =
      link.measured ? std::max(link.rtt_s, 0.0) + std::max(link.rtt_jitter_s, 0.0) : policy.assumed_rtt_s;
  const int tokens_up = std::max(state.n_prompt_tokens, 0) + std::max(state.n_draft_tokens, 0);
  const double bytes_up = kCallOverheadBytes + kBytesPerToken * tokens_up;
  const double transfer_s = link.goodput_up_bytes_per_s > 0.0 ? bytes_up / link.goodput_up_bytes_per_s : 0.0;
  const double wait_s = state.load.known ? std::max(state.load.predicted_wait_s, 0.0) : 0.0;
  const double rate =
      PositiveOr(state.load.known ? state.load.decode_tokens_per_s : 0.0, policy.assumed_upstream_tokens_per_s);
  return transfer_s + rtt_s + wait_s + ExpectedAnswerTokens(state) / rate;
}

inline RoutingDecision Decide(const RoutingState& state, const RoutingPolicy& policy) {
  const double predicted_s = state.has_upstream ? PredictUpstreamSeconds(state, policy) : 0.0;
  if (policy.mode == PolicyMode::kLocal) {
    if (!state.fits_locally) {
      return Make(Decision::kDefer, absl::StrFormat("policy 'local', but %s: no tier can answer now", kDoesNotFit), 0.0,
                  true);
    }
    return Make(Decision::kKeep, "policy 'local'", 0.0);
  }
  const std::string obstacle = Obstacle(state, policy, predicted_s);
  if (!state.fits_locally) return PreferUpstream(state, obstacle, kDoesNotFit, predicted_s);
  if (state.stage == Stage::kBefore) return DecideBefore(state, policy, obstacle, predicted_s);
  return DecideByConfidence(state, policy, obstacle, predicted_s);
}

// The same state as a complete situation.
inline Situation SituationOf(const RoutingState& state) {
  Situation situation;
  situation.stage = state.stage;
  situation.request.fits_locally = state.fits_locally;
  situation.request.hops = state.hops;
  situation.request.n_prompt_tokens = state.n_prompt_tokens;
  situation.request.n_draft_tokens = state.n_draft_tokens;
  if (state.deadline_s) situation.request.deadline_s = *state.deadline_s;
  situation.evidence.confidence = state.confidence;
  situation.local.answer_tokens = state.expected_answer_tokens;
  situation.local.tokens_per_s = state.local_tokens_per_s;
  situation.local.previous = state.previous;
  situation.n_upstreams = state.has_upstream ? 1 : 0;
  situation.upstreams[0].link = state.link;
  situation.upstreams[0].load = state.load;
  situation.upstreams[0].since_failure_s = state.since_failure_s;
  return situation;
}

}  // namespace updraft::oracle
