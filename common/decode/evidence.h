// What is known about a token at the moment it was chosen, computed where the logits are.
#pragma once

#include <cstdint>
#include <span>

namespace updraft {

struct TokenEvidence {
  int32_t exit_layer = 0;   // layers that ran before the token was chosen (n_layer: no early exit)
  float top_prob = 0.0f;    // largest softmax probability at temperature 1
  float margin = 0.0f;      // largest minus second largest probability
  float entropy = 0.0f;     // nats
  float logprob = 0.0f;     // log-probability of the token that was chosen, nats
};

// logits: [n_vocab]. Fills everything but exit_layer for the token `chosen`. Non-finite logits count as probability 0.
TokenEvidence EvidenceOf(std::span<const float> logits, int32_t chosen);

}  // namespace updraft
