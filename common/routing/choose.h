// The decision itself, as a pure function of a complete situation: the session calls it with what it knows, a replay
// with what a record says it knew.
#pragma once

#include "common/routing/policy.h"
#include "common/routing/record.h"

namespace updraft {

// Builds the options, compares them and chooses. seq and model_fp of the record are the caller's to set.
//
// What it promises, whatever the situation holds (numbers that are no numbers count as worst):
// - kLocal never leaves this tier, and without an upstream nothing is sent to one;
// - nothing is sent that max_hops tiers have passed on already;
// - nothing is sent that is predicted to miss the deadline or to exceed max_upstream_wait_s, nor while the upstream is
// in back-off or asked to be left alone;
// - a higher confidence never turns "keep" into "hand-over";
// - streaming from upstream only before local generation, handing over only during or after it; deferring only when no
// tier can answer now;
// - the chosen option is feasible, unless all are obstructed and an answer of this tier is what is left.
DecisionRecord Choose(const Situation& situation, const RoutingPolicy& policy);

// The decision that `policy` makes in the record's situation: under the record's own policy the same record again, byte
// for byte; under another one what that would have done.
DecisionRecord Replay(const DecisionRecord& record, const RoutingPolicy& policy);

}  // namespace updraft
