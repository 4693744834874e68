#include "common/decode/evidence.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/logits.h"

namespace updraft {
namespace {

constexpr float kNone = std::numeric_limits<float>::lowest();

}  // namespace

TokenEvidence EvidenceOf(std::span<const float> logits, int32_t chosen) {
  TokenEvidence evidence;
  evidence.logprob = std::numeric_limits<float>::lowest();
  const kernels::LogitSummary sum = kernels::SummarizeLogits(logits);
  if (sum.first == kNone) return evidence;
  evidence.top_prob = static_cast<float>(1.0 / sum.mass);
  const double second = sum.second == kNone ? 0.0 : std::exp(static_cast<double>(sum.second) - sum.first) / sum.mass;
  evidence.margin = static_cast<float>(1.0 / sum.mass - second);
  evidence.entropy = static_cast<float>(std::max(0.0, std::log(sum.mass) - sum.weighted / sum.mass));
  if (std::isfinite(logits[chosen])) {
    evidence.logprob = static_cast<float>(static_cast<double>(logits[chosen]) - sum.first - std::log(sum.mass));
  }
  return evidence;
}

float LogProbabilityOfAny(std::span<const float> logits, std::span<const int32_t> tokens) {
  const kernels::LogitSummary sum = kernels::SummarizeLogits(logits);
  if (sum.first == kNone) return kNone;
  double wanted = 0.0;
  for (const int32_t token : tokens) {
    if (std::isfinite(logits[token])) wanted += std::exp(static_cast<double>(logits[token]) - sum.first);
  }
  return wanted > 0.0 ? static_cast<float>(std::log(wanted / sum.mass)) : kNone;
}

std::vector<TokenLogprob> TopLogprobs(std::span<const float> logits, int n) {
  std::vector<TokenLogprob> top;
  if (n <= 0) return top;
  const kernels::LogitSummary sum = kernels::SummarizeLogits(logits);
  if (sum.first == kNone) return top;
  // Few of many: most logits are below the least of those found so far, and cost one comparison.
  const auto likelier = [](const TokenLogprob& a, const TokenLogprob& b) { return a.logprob > b.logprob; };
  float least = kNone;
  for (size_t i = 0; i < logits.size(); ++i) {
    const float logit = logits[i];
    if (!std::isfinite(logit) || logit == kNone || (top.size() == static_cast<size_t>(n) && logit <= least)) continue;
    const TokenLogprob found{.token = static_cast<int32_t>(i), .logprob = logit};
    if (top.size() == static_cast<size_t>(n)) top.pop_back();
    top.insert(std::upper_bound(top.begin(), top.end(), found, likelier), found);
    least = top.back().logprob;
  }
  const double log_mass = std::log(sum.mass);
  for (TokenLogprob& token : top) {
    token.logprob = static_cast<float>(static_cast<double>(token.logprob) - sum.first - log_mass);
  }
  return top;
}

float TopProbability(std::span<const float> logits) {
  const kernels::LogitSummary sum = kernels::SummarizeLogits(logits);
  return sum.first == kNone ? 0.0f : static_cast<float>(1.0 / sum.mass);
}

}  // namespace updraft
