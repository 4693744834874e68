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

float TopProbability(std::span<const float> logits) {
  const kernels::LogitSummary sum = kernels::SummarizeLogits(logits);
  return sum.first == kNone ? 0.0f : static_cast<float>(1.0 / sum.mass);
}

}  // namespace updraft
