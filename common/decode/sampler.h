// Choosing a token from logits. Stateless: the random draw for a token depends only on (seed, position), so that a
// request can move to another machine, resume, or be recomputed after preemption and still give the same text.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"

namespace updraft {

struct SamplingOptions {
  float temperature = 0.0f;         // 0: greedy; otherwise in (0, 10]
  int top_k = 0;                    // 0: all
  float top_p = 1.0f;               // nucleus (Holtzman et al. 2020), in (0, 1]
  float min_p = 0.0f;               // keep tokens with p >= min_p * p_max, in [0, 1)
  float repetition_penalty = 1.0f;  // in (0, 100]; 1: off (Keskar et al. 2019)
  uint64_t seed = 0;

  absl::Status Validate() const;
};

// logits: [n_vocab], may be changed in place (unchanged when greedy without penalty and mask). position: index of the
// token being chosen in its sequence. context: tokens that the repetition penalty looks at; ids outside the vocabulary
// are ignored. mask (optional, [ceil(n_vocab/64)]): bit set = token allowed (grammar hook); at least one bit is set.
// Order: penalty, mask, temperature, top_k, top_p, min_p, draw; each looks at the distribution that the one before
// left. Greedy ties go to the lowest id. NaN logits are never chosen unless all are NaN (then 0, or the lowest allowed
// id).
int32_t SampleToken(std::span<float> logits, const SamplingOptions& options, int64_t position,
                    std::span<const int32_t> context, std::span<const uint64_t> mask = {});

// True when SampleToken without a mask leaves logits unchanged, so that a caller who needs them later may skip a copy.
inline bool LeavesLogitsUnchanged(const SamplingOptions& options) {
  return options.temperature == 0.0f && options.repetition_penalty == 1.0f;
}

// The draw in [0, 1) for one token: 53 bits of Philox4x32-10 (Salmon et al. 2011) with key = seed and counter =
// position.
double UniformDraw(uint64_t seed, uint64_t position);

}  // namespace updraft
