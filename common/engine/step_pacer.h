// How many rows of prompts a step may read beside sequences that decode, so that these get their next tokens within a
// target: chunked prefill (Agrawal et al. 2023, Sarathi) with the size of chunks from measured times.
#pragma once

#include <limits>

#include "absl/time/time.h"

namespace updraft::engine {

// A step of n decoding rows and m others is taken to last bare + m * cost. Both are measured as they go: prompts cost
// more the longer they get, and decoding the more sequences do. No thread, no clock, no memory.
class StepPacer {
 public:
  // Never fewer rows than this: a target that the decoding rows alone use up must not stop everybody else.
  static constexpr int kMinRows = 16;
  static constexpr int kFirstRows = 64;  // as long as nothing is measured

  // target: zero for none.
  explicit StepPacer(absl::Duration target) : target_s_(absl::ToDoubleSeconds(target)) {}

  // Rows beside those that decode, at most, of the next step.
  int PromptRows() const;
  // What a step took, from the end of the one before where there was no rest between them: whoever waits for a token
  // waits for what else is done between steps, too. REQUIRES: time > 0.
  void OnStep(int n_decode_rows, int n_other_rows, absl::Duration time);

 private:
  const double target_s_;
  double bare_s_ = 0.0;  // of a step without other rows; 0: not measured
  // Sums of recent steps with other rows, each fading: what these added, and how many they were.
  double added_s_ = 0.0, n_added_ = 0.0;
};

}  // namespace updraft::engine
