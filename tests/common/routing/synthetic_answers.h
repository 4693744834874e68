// Answers of an imagined model whose evidence is related to being right as a real one's is: each answer has a
// difficulty, each token a probability of being right that falls with it, the answer is right when all its tokens are,
// and what the model believes of a token is a distorted, noisy view of that probability.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "common/routing/confidence.h"

namespace updraft::testing {

inline constexpr int kSyntheticLayers = 6;

inline ConfidenceModel::Sample SyntheticAnswer(std::mt19937_64& rng) {
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  std::normal_distribution<double> normal(0.0, 1.0);
  const double difficulty = normal(rng);
  const int n_tokens = 15 + static_cast<int>(uniform(rng) * 60);
  ConfidenceModel::Sample sample;
  sample.correct = true;
  std::vector<TokenEvidence> evidence;
  for (int i = 0; i < n_tokens; ++i) {
    const double logit = 6.5 - 1.8 * difficulty + 1.5 * normal(rng);
    const double right = 1.0 / (1.0 + std::exp(-logit));
    sample.correct = sample.correct && uniform(rng) < right;
    const double believed = 1.0 / (1.0 + std::exp(-(0.8 * logit + 0.5 + 0.5 * normal(rng))));
    TokenEvidence token;
    token.exit_layer = believed > 0.99 ? 2 : kSyntheticLayers;
    token.top_prob = static_cast<float>(std::max(believed, 1.0 - believed));
    token.margin = static_cast<float>(std::abs(2.0 * believed - 1.0));
    token.logprob = std::log(token.top_prob);
    const double p = std::clamp(believed, 1e-9, 1.0 - 1e-9);
    token.entropy = static_cast<float>(-p * std::log(p) - (1 - p) * std::log(1 - p));
    evidence.push_back(token);
  }
  PromptFeatures prompt;
  prompt.n_prompt_tokens = 30;
  prompt.n_turns = 1 + static_cast<int>(uniform(rng) * 3);
  prompt.n_digits = difficulty > 0.5 ? 6 : 0;
  sample.features = FeaturesOf(evidence, prompt, kSyntheticLayers);
  return sample;
}

inline std::vector<ConfidenceModel::Sample> SyntheticAnswers(int n, uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::vector<ConfidenceModel::Sample> samples;
  for (int i = 0; i < n; ++i) samples.push_back(SyntheticAnswer(rng));
  return samples;
}

inline std::vector<Judged> Judge(const ConfidenceModel& model, const std::vector<ConfidenceModel::Sample>& samples) {
  std::vector<Judged> judged;
  for (const auto& sample : samples) judged.push_back({model.Predict(sample.features), sample.correct});
  return judged;
}

}  // namespace updraft::testing
