#include "common/decode/evidence.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace updraft {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

struct TopTwo {
  float first = kNone;
  float second = kNone;
};

TopTwo FindTopTwo(std::span<const float> logits) {
  TopTwo top;
  for (const float x : logits) {
    if (!std::isfinite(x) || x <= top.second) continue;
    if (x > top.first) {
      top.second = top.first;
      top.first = x;
    } else {
      top.second = x;
    }
  }
  return top;
}

// Sums over finite logits x of e^(x - peak) and (x - peak) e^(x - peak), in double: vocabularies reach 2^18 tokens.
struct Moments {
  double mass = 0;
  double weighted = 0;
};

Moments MomentsAround(float peak, std::span<const float> logits) {
  Moments sum;
  for (const float x : logits) {
    if (!std::isfinite(x)) continue;
    const float shifted = x - peak;
    const float e = std::exp(shifted);
    sum.mass += e;
    if (e > 0) sum.weighted += static_cast<double>(shifted) * e;
  }
  return sum;
}

}  // namespace

TokenEvidence EvidenceOf(std::span<const float> logits, int32_t chosen) {
  TokenEvidence evidence;
  evidence.logprob = std::numeric_limits<float>::lowest();
  const TopTwo top = FindTopTwo(logits);
  if (top.first == kNone) return evidence;

  const Moments sum = MomentsAround(top.first, logits);
  evidence.top_prob = static_cast<float>(1.0 / sum.mass);
  const double second = top.second == kNone ? 0.0 : std::exp(static_cast<double>(top.second) - top.first) / sum.mass;
  evidence.margin = static_cast<float>(1.0 / sum.mass - second);
  evidence.entropy = static_cast<float>(std::max(0.0, std::log(sum.mass) - sum.weighted / sum.mass));
  if (std::isfinite(logits[chosen])) {
    evidence.logprob = static_cast<float>(static_cast<double>(logits[chosen]) - top.first - std::log(sum.mass));
  }
  return evidence;
}

float TopProbability(std::span<const float> logits) {
  const TopTwo top = FindTopTwo(logits);
  return top.first == kNone ? 0.0f : static_cast<float>(1.0 / MomentsAround(top.first, logits).mass);
}

}  // namespace updraft
