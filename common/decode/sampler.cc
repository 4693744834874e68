#include "common/decode/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/decode/philox.h"
#include "kernels/logits.h"

namespace updraft {
namespace {

constexpr float kExcluded = -std::numeric_limits<float>::infinity();

struct Candidate {
  int32_t token;
  float p;  // not normalized
};

bool MoreLikely(const Candidate& a, const Candidate& b) { return a.p != b.p ? a.p > b.p : a.token < b.token; }

// Divides positive and multiplies negative logits of tokens that occurred, once per token however often it occurred.
void Penalize(std::span<float> logits, float penalty, std::span<const int32_t> context) {
  std::vector<int32_t> seen(context.begin(), context.end());
  std::sort(seen.begin(), seen.end());
  seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
  for (const int32_t token : seen) {
    if (token < 0 || static_cast<size_t>(token) >= logits.size()) continue;
    float& x = logits[token];
    x = x > 0 ? x / penalty : x * penalty;
  }
}

// Lowers what the answer has said already: by its being there, and by how often.
void Discourage(std::span<float> logits, const SamplingOptions& options, std::span<const int32_t> answer) {
  std::vector<int32_t> said(answer.begin(), answer.end());
  std::sort(said.begin(), said.end());
  for (size_t first = 0, next = 0; first < said.size(); first = next) {
    while (next < said.size() && said[next] == said[first]) ++next;
    if (said[first] < 0 || static_cast<size_t>(said[first]) >= logits.size()) continue;
    const auto count = static_cast<float>(next - first);
    logits[said[first]] -= count * options.frequency_penalty + options.presence_penalty;
  }
}

void Bias(std::span<float> logits, std::span<const LogitBias> biases) {
  for (const LogitBias& bias : biases) {
    if (bias.token >= 0 && static_cast<size_t>(bias.token) < logits.size()) logits[bias.token] += bias.bias;
  }
}

absl::Status CheckBiases(std::span<const LogitBias> biases) {
  if (biases.size() > kMaxLogitBiases) {
    return absl::InvalidArgumentError(
        absl::StrFormat("logit_bias: expected at most %d tokens, found %d", kMaxLogitBiases, biases.size()));
  }
  std::vector<int32_t> tokens;
  for (const LogitBias& bias : biases) {
    tokens.push_back(bias.token);
    if (bias.bias >= -100.0f && bias.bias <= 100.0f) continue;
    return absl::InvalidArgumentError(
        absl::StrFormat("logit_bias: expected values in [-100, 100], found %g for token %d", bias.bias, bias.token));
  }
  std::sort(tokens.begin(), tokens.end());
  const auto twice = std::adjacent_find(tokens.begin(), tokens.end());
  if (twice == tokens.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("logit_bias: expected each token once, found %d several times", *twice));
}

// Lowest id with the largest logit; NaN is below everything. `lowest` answers when nothing is above -infinity.
int32_t ArgMax(std::span<const float> logits, int32_t lowest) {
  const int64_t best = kernels::ArgMaxLogit(logits);
  return best < 0 ? lowest : static_cast<int32_t>(best);
}

// Applies the mask to the logits and returns the lowest allowed id.
int32_t ApplyMask(std::span<float> logits, std::span<const uint64_t> mask) {
  int32_t lowest = -1;
  for (size_t i = 0; i < logits.size(); ++i) {
    if ((mask[i / 64] >> (i % 64)) & 1) {
      if (lowest < 0) lowest = static_cast<int32_t>(i);
    } else {
      logits[i] = kExcluded;
    }
  }
  return std::max(lowest, 0);
}

// Sorts the `n` most likely candidates to the front.
void SortTop(std::vector<Candidate>& candidates, size_t n) {
  if (n < candidates.size()) {
    std::nth_element(candidates.begin(), candidates.begin() + n, candidates.end(), MoreLikely);
  }
  std::sort(candidates.begin(), candidates.begin() + std::min(n, candidates.size()), MoreLikely);
}

double Mass(std::span<const Candidate> candidates) {
  double sum = 0;
  for (const Candidate& c : candidates) sum += c.p;
  return sum;
}

// Keeps the smallest set of most likely candidates whose mass reaches top_p of the whole, at least one. A nucleus is
// small as a rule, so sorting starts small and grows instead of sorting a whole vocabulary.
void KeepNucleus(std::vector<Candidate>& candidates, float top_p) {
  const double target = top_p * Mass(candidates);
  for (size_t n = 128;; n *= 8) {
    n = std::min(n, candidates.size());
    SortTop(candidates, n);
    double sum = 0;
    for (size_t i = 0; i < n; ++i) {
      sum += candidates[i].p;
      if (sum >= target) {
        candidates.resize(i + 1);
        return;
      }
    }
    if (n == candidates.size()) return;
  }
}

std::vector<Candidate> Softmax(std::span<const float> logits, float peak, float temperature) {
  std::vector<Candidate> candidates;
  candidates.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    const float p = std::exp((logits[i] - peak) / temperature);
    if (p > 0) candidates.push_back({static_cast<int32_t>(i), p});  // false for NaN
  }
  return candidates;
}

}  // namespace

absl::Status SamplingOptions::Validate() const {
  // Written so that NaN fails every range.
  if (!(temperature == 0.0f || (temperature > 0.0f && temperature <= 10.0f))) {
    return absl::InvalidArgumentError(absl::StrFormat("temperature: expected 0 or up to 10, found %g", temperature));
  }
  if (top_k < 0) {
    return absl::InvalidArgumentError(absl::StrFormat("top_k: expected 0 (all) or more, found %d", top_k));
  }
  if (!(top_p > 0.0f && top_p <= 1.0f)) {
    return absl::InvalidArgumentError(absl::StrFormat("top_p: expected more than 0 and at most 1, found %g", top_p));
  }
  if (!(min_p >= 0.0f && min_p < 1.0f)) {
    return absl::InvalidArgumentError(absl::StrFormat("min_p: expected at least 0 and less than 1, found %g", min_p));
  }
  if (!(repetition_penalty > 0.0f && repetition_penalty <= 100.0f)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("repetition_penalty: expected more than 0 and at most 100, found %g", repetition_penalty));
  }
  for (const auto& [name, penalty] :
       {std::pair{"presence_penalty", presence_penalty}, std::pair{"frequency_penalty", frequency_penalty}}) {
    if (!(penalty >= -2.0f && penalty <= 2.0f)) {
      return absl::InvalidArgumentError(absl::StrFormat("%s: expected -2 to 2, found %g", name, penalty));
    }
  }
  return CheckBiases(logit_bias);
}

double UniformDraw(uint64_t seed, uint64_t position) {
  const auto bits = Philox4x32({static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0, 0},
                               {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  const uint64_t word = (uint64_t{bits[0]} << 32) | bits[1];
  return static_cast<double>(word >> 11) * 0x1p-53;
}

int32_t SampleToken(std::span<float> logits, const SamplingOptions& options, int64_t position,
                    const SamplingContext& context, std::span<const uint64_t> mask) {
  if (options.repetition_penalty != 1.0f) Penalize(logits, options.repetition_penalty, context.tokens);
  if (options.presence_penalty != 0.0f || options.frequency_penalty != 0.0f) {
    Discourage(logits, options, context.tokens.subspan(std::min(context.n_prompt, context.tokens.size())));
  }
  Bias(logits, options.logit_bias);
  const int32_t lowest = mask.empty() ? 0 : ApplyMask(logits, mask);
  const int32_t best = ArgMax(logits, lowest);
  // An infinite peak has no softmax: +infinity takes all of the probability, -infinity means that nothing is left.
  if (options.temperature == 0.0f || !std::isfinite(logits[best])) return best;

  std::vector<Candidate> candidates = Softmax(logits, logits[best], options.temperature);
  if (options.top_k > 0 && static_cast<size_t>(options.top_k) < candidates.size()) {
    SortTop(candidates, options.top_k);
    candidates.resize(options.top_k);
  }
  if (options.top_p < 1.0f) KeepNucleus(candidates, options.top_p);
  if (options.min_p > 0.0f) {
    // The peak has p = 1 before normalization, so min_p is the cut itself.
    std::erase_if(candidates, [&](const Candidate& c) { return c.p < options.min_p; });
  }

  double left = UniformDraw(options.seed, static_cast<uint64_t>(position)) * Mass(candidates);
  for (const Candidate& c : candidates) {
    left -= c.p;
    if (left < 0) return c.token;
  }
  return candidates.back().token;  // rounding in the sum left nothing; the last one is as likely as its share
}

}  // namespace updraft
