// Choice of the top probabilities at which a token may leave early (updraft.exit.thresholds), by what leaving would
// have changed.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "deploy/task/answerer.h"

namespace updraft {

// What one exit would have done with one answer of the full depth, walked through in its own tokens (teacher forcing):
// since the KV cache is exact at early exits, greedy decoding with exits gives the same answer as long as no token
// leaves with another choice. The first token is left out: the prompt runs at full depth, and so does its last row,
// which chooses that token.
struct ExitTrace {
  std::vector<float> top_prob;  // per answer token
  std::vector<bool> agrees;     // the exit's arg-max is the full depth's
};

// One trace per exit of the model. `answer` is an answer of this model at full depth.
absl::StatusOr<std::vector<ExitTrace>> TraceExits(Answerer& answerer, const LocalAnswer& answer);

// The smallest threshold per exit such that the answers in which any token would leave there with another choice are at
// most `budget` of all, the budget being split evenly over the exits. An exit that cannot meet it gets a threshold
// above 1: it is never taken. traces: [n_answers][n_exits].
std::vector<float> ChooseExitThresholds(std::span<const std::vector<ExitTrace>> traces, double budget);

}  // namespace updraft
