// What is known about a token at the moment it was chosen, computed where the logits are.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace updraft {

// A token that could have been chosen.
struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0.0f;  // nats
  bool operator==(const TokenLogprob&) const = default;
};

struct TokenEvidence {
  int32_t exit_layer = 0;  // layers that ran before the token was chosen (n_layer: no early exit)
  float top_prob = 0.0f;   // largest softmax probability at temperature 1
  float margin = 0.0f;     // largest minus second largest probability
  float entropy = 0.0f;    // nats
  float logprob = 0.0f;    // log-probability of the token that was chosen, nats; lowest float when its probability is 0
  // Where the token's text begins in the answer's, bytes: of whoever assembles the answer, and kNoText for a token that
  // ended it.
  uint32_t text_offset = 0;
  static constexpr uint32_t kNoText = 0xffffffff;
  std::vector<TokenLogprob> top = {};  // TopLogprobs, where they were asked for
};

inline constexpr int kMaxTopLogprobs = 20;

// logits: [n_vocab]. Fills everything but exit_layer, text_offset and top for the token `chosen`, an index into logits.
// Non-finite logits count as probability 0.
TokenEvidence EvidenceOf(std::span<const float> logits, int32_t chosen);

// Log of the probability that the next token is one of `tokens`, indices into logits, each once; nats, lowest float
// when that is 0.
float LogProbabilityOfAny(std::span<const float> logits, std::span<const int32_t> tokens);

// The n likeliest tokens, likeliest first, of equals the lower id first; fewer where fewer have a finite logit.
std::vector<TokenLogprob> TopLogprobs(std::span<const float> logits, int n);

// Largest softmax probability at temperature 1: what an exit compares with its threshold. Equals
// EvidenceOf(...).top_prob.
float TopProbability(std::span<const float> logits);

}  // namespace updraft
