// Everything a tier remembers between decisions, and the decisions themselves.
//
// The agent, the simulator and the tests drive the same object: what happens is told to it with the (steady) time at
// which it happened, and every decision is returned as a record that holds all it rested on (record.h). Per upstream it
// keeps the link's estimate, the load, how long the upstream is to be left alone (back-off of a dead link, busy as an
// overloaded one asked) and when to look at it next; of its own tier the averages and what became of the previous
// answer.
//
// A copyable value without heap, I/O or clock, of at most 2 KiB. Not thread-safe: the caller guards it. Times are
// seconds on one steady clock whose zero is the caller's; they are expected not to run backwards.
//
// The life of one request:
//
//   record = session.Decide({.stage = kBefore, ...});   // DecisionOf(record), record.chosen().way, Explain(record)
//   ... session.Decide({.stage = kDuring, ...}) now and then while it drafts, {.stage = kAfter, ...} at the end
//   session.OnLocalRun(...) after each run of the local model; OnSample, OnLoad, OnFailure as calls upstream go
//   session.Outcome(record, ...) with its last record once the answer ended well
#pragma once

#include <array>
#include <cstdint>

#include "absl/status/status.h"
#include "common/routing/link.h"
#include "common/routing/names.h"
#include "common/routing/policy.h"
#include "common/routing/record.h"

namespace updraft {

struct SessionOptions {
  RoutingPolicy policy;
  uint64_t model_fp = 0;  // for the records
  int n_upstreams = 0;    // at most kMaxUpstreams
  // Between looks at an upstream while nothing else tells of the link; 0 or less: never looks. Calls tell of the link
  // but not of the model that upstream serves: at most 4 intervals pass between looks, however many calls there are.
  double look_interval_s = 5.0;
};

// The end of a look (a GetStatus call).
struct Look {
  enum class End : uint8_t {
    kMeasured,        // sample is a round trip
    kConnectedFirst,  // it succeeded, but its time went into connecting: OnReady, and it is repeated at once
    kFailed,          // the link is dead
    kAbandoned        // by us: says nothing
  };
  End end = End::kMeasured;
  LinkSample sample;  // kMeasured
  UpstreamLoad load;  // of kMeasured and kConnectedFirst, where known
};

// A run of the local model, whether its answer was kept or not.
struct LocalRunMeasured {
  double run_s = 0.0;        // prompt included
  double decode_s = 0.0;     // from the first token on; 0: the run was given up, which says nothing of the rate
  int n_decoded_tokens = 0;  // in decode_s
  int n_prefill_tokens = 0;  // read in what run_s is longer than decode_s; 0: says nothing of that rate
};

// What an answer that ended well came to.
struct Measured {
  // kKeep where this tier gave the answer after all (upstream failed), whatever was decided.
  Decision decision = Decision::kKeep;
  int n_answer_tokens = 0;  // given to the client
};

// The class of an error that a call upstream ended with; not for OK, nor for calls that we cancelled.
// has_retry_delay: it said when to come back. UNAVAILABLE is kLinkDead, with a delay kOverloaded: looks, which such a
// tier still answers, would end a back-off. RESOURCE_EXHAUSTED without a delay is no full queue but this request,
// larger than the tier takes: kRefusedThis.
Failure FailureOf(const absl::Status& status, bool has_retry_delay);

// How long after the `consecutive_failures`th failure an upstream is looked at again: 125 ms, doubled with each, at
// most a second.
double RetryLookSeconds(int consecutive_failures);

class RoutingSession {
 public:
  explicit RoutingSession(const SessionOptions& options);

  // Of a tier that begins to look at its upstream before it knows its model: before the first decision.
  void Configure(const RoutingPolicy& policy, uint64_t model_fp);

  // ---- What happens. up: in [0, n_upstreams) ----
  // A call's first response. Puts the next look off.
  void OnSample(int up, const LinkSample& sample);
  void OnLoad(int up, const UpstreamLoad& load);
  // A call that failed. kLinkDead begins or doubles the back-off, and has a look soon (RetryLookSeconds); kOverloaded
  // leaves the upstream alone for retry_after_s, whatever looks say meanwhile: their answer takes no place in its queue
  // (NaN: it did not say, nothing changes); the others say nothing of other requests and change nothing.
  void OnFailure(int up, Failure failure, double retry_after_s, double now_s);
  // The connection is ready: a back-off is over at once, and a look is due. The failures are still counted until
  // something succeeds, so that an upstream that only ever connects is left alone longer each time.
  void OnReady(int up, double now_s);
  // While the link is dead (Facts: consecutive_failures > 0), a look had better wait for the connection: its end is how
  // the session learns at once that the upstream is back.
  void OnLookStarted(int up, double now_s);
  void OnLookDone(int up, const Look& look, double now_s);
  void OnLocalRun(const LocalRunMeasured& run);

  // ---- Decisions ----
  // What Decide would choose. No record, no change.
  Option Peek(const Situation& situation) const;
  // Only stage, now_s, request and evidence are read of the situation.
  DecisionRecord Decide(const Situation& situation);
  // For answers that ended well, once each, in the order in which they ended. Hysteresis moves here and not in Decide:
  // a decision that did not come true (upstream failed, the request was cancelled) must not sway the next one.
  void Outcome(const DecisionRecord& record, const Measured& measured);

  // ---- What is believed ----
  // When the upstream is to be looked at: now_s when that is due, kNever while a look is on its way or with looks off.
  double NextLook_s(int up, double now_s) const;
  UpstreamFacts Facts(int up, double now_s) const;
  int n_upstreams() const { return n_upstreams_; }
  const RoutingPolicy& policy() const { return policy_; }
  // Smoothed over local runs; 0: none yet.
  double local_tokens_per_s() const { return local_tokens_per_s_; }
  double local_run_s() const { return local_run_s_; }
  double local_prefill_tokens_per_s() const { return local_prefill_tokens_per_s_; }

 private:
  struct UpstreamMemory {
    LinkEstimator link;
    UpstreamLoad load;
    double last_failure_s = -kNever;
    double busy_until_s = -kNever;
    double next_look_s = -kNever;    // kNever: no looks
    double latest_look_s = -kNever;  // calls put the next look off until then, not longer
    double look_started_s = -kNever;
    bool looking = false;
  };

  UpstreamMemory& At(int up);
  const UpstreamMemory& At(int up) const;
  void LookSoon(UpstreamMemory& memory, double failed_s) const;
  Situation Complete(const Situation& situation) const;

  RoutingPolicy policy_;
  uint64_t policy_fp_;
  uint64_t model_fp_;
  double look_interval_s_;
  int n_upstreams_;
  std::array<UpstreamMemory, kMaxUpstreams> upstreams_;
  uint64_t seq_ = 0;
  Decision previous_ = Decision::kKeep;
  double local_tokens_per_s_ = 0.0;
  double local_run_s_ = 0.0;
  double local_prefill_tokens_per_s_ = 0.0;
  double answer_tokens_ = 0.0;
};

static_assert(sizeof(RoutingSession) <= 2048);

}  // namespace updraft
