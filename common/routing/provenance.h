// Where an answer came from and what it cost. Mirrors updraft.v1.Provenance; metrics, console, calibrator and simulator
// read it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/routing/policy.h"

namespace updraft {

struct Provenance {
  struct Span {
    std::string tier;
    int n_tokens = 0;
  };
  std::vector<Span> spans;  // tiers in the order in which they wrote the answer
  double confidence = 0.0;  // calibrated P(the local answer is as good as upstream's); 0 when no local draft was made
  Decision decision = Decision::kKeep;
  std::string reason;     // one line for a person
  uint64_t bytes_up = 0;  // payload bytes sent upstream for this answer
  uint64_t bytes_down = 0;
  double queue_ms = 0.0;     // waited at the serving tier
  double local_ms = 0.0;     // local generation
  double upstream_ms = 0.0;  // waiting for upstream, first byte to last included
  double total_ms = 0.0;
  double first_token_ms = 0.0;   // arrival of the request to first chunk sent
  double mean_exit_layer = 0.0;  // over locally generated tokens; 0: none
  bool degraded = false;  // upstream was wanted but could not be used in time; the local answer was served instead
  int draft_tokens = 0;   // tokens generated locally, kept or not
};

}  // namespace updraft
