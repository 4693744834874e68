// Choosing a token from logits. Stateless: the random draw for a token depends only on (seed, position), so that a request
// can move to another machine, resume, or be recomputed after preemption and still give the same text.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace updraft {

struct SamplingOptions {
  float temperature = 0.0f;  // 0: greedy; otherwise in (0, 10]
  int top_k = 0;             // 0: all
  float top_p = 1.0f;        // nucleus (Holtzman et al. 2020), in (0, 1]
  float min_p = 0.0f;        // keep tokens with p >= min_p * p_max, in [0, 1)
  float repetition_penalty = 1.0f;  // > 0; 1: off (Keskar et al. 2019)
  uint64_t seed = 0;

  absl::Status Validate() const;
};

// logits: [n_vocab], may be changed in place. position: index of the token being chosen in its sequence. context: tokens that the
// repetition penalty looks at. mask (optional, [ceil(n_vocab/64)]): bit set = token allowed (grammar hook); at least one bit is set.
// Greedy ties go to the lowest id. NaN logits are never chosen unless all are NaN (then 0).
int32_t SampleToken(std::span<float> logits, const SamplingOptions& options, int64_t position,
                    std::span<const int32_t> context, std::span<const uint64_t> mask = {});

}  // namespace updraft
