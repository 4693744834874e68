// Choosing a token from logits. Stateless: the random draw for a token depends only on (seed, position), so that a
// request can move to another machine, resume, or be recomputed after preemption and still give the same text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"

namespace updraft {

inline constexpr size_t kMaxLogitBiases = 1024;

// Added to one token's logit.
struct LogitBias {
  int32_t token = 0;
  float bias = 0.0f;  // in [-100, 100]: as a rule the ends forbid a token, or leave no other
};

struct SamplingOptions {
  float temperature = 0.0f;         // 0: greedy; otherwise in (0, 10]
  int top_k = 0;                    // 0: all
  float top_p = 1.0f;               // nucleus (Holtzman et al. 2020), in (0, 1]
  float min_p = 0.0f;               // keep tokens with p >= min_p * p_max, in [0, 1)
  float repetition_penalty = 1.0f;  // in (0, 100]; 1: off (Keskar et al. 2019)
  // OpenAI's, in [-2, 2]. With c[j] the number of times that token j stands in the answer so far, the logit of j is
  // lowered by c[j] * frequency_penalty, and by presence_penalty where c[j] > 0.
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  std::vector<LogitBias> logit_bias = {};  // at most kMaxLogitBiases, each token once
  uint64_t seed = 0;

  absl::Status Validate() const;
};

// The tokens before the one that is chosen.
struct SamplingContext {
  std::span<const int32_t> tokens;  // what the repetition penalty looks at; ids outside the vocabulary are ignored
  size_t n_prompt = 0;              // how many of them, at the front, are not the answer's; more than there are: all
};

// logits: [n_vocab], may be changed in place (LeavesLogitsUnchanged). position: index of the token being chosen in its
// sequence. mask (optional, [ceil(n_vocab/64)]): bit set = token allowed (grammar hook); at least one bit is set.
// Order: repetition penalty, the other penalties, bias, mask, temperature, top_k, top_p, min_p, draw; each looks at the
// distribution that the one before left. Greedy ties go to the lowest id. NaN logits are never chosen unless all are
// NaN (then 0, or the lowest allowed id).
int32_t SampleToken(std::span<float> logits, const SamplingOptions& options, int64_t position,
                    const SamplingContext& context, std::span<const uint64_t> mask = {});

// True when SampleToken without a mask leaves logits unchanged, so that a caller who needs them later may skip a copy.
inline bool LeavesLogitsUnchanged(const SamplingOptions& options) {
  return options.temperature == 0.0f && options.repetition_penalty == 1.0f && options.presence_penalty == 0.0f &&
         options.frequency_penalty == 0.0f && options.logit_bias.empty();
}

// The draw in [0, 1) for one token: 53 bits of Philox4x32-10 (Salmon et al. 2011) with key = seed and counter =
// position.
double UniformDraw(uint64_t seed, uint64_t position);

}  // namespace updraft
