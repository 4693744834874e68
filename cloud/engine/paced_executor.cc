#include "cloud/engine/paced_executor.h"

#include <algorithm>
#include <utility>

namespace updraft::engine {
namespace {

// A step that begins within this after the last one returned has had no pause before it.
constexpr absl::Duration kNoPause = absl::Milliseconds(1);
// The most that is made up for.
constexpr absl::Duration kMaxLate = absl::Milliseconds(100);

}  // namespace

PacedExecutor::PacedExecutor(int n_vocab, int context_length, Pace pace, std::vector<int32_t> avoid, SteadyClock clock,
                             std::function<void(absl::Duration)> sleep)
    : n_vocab_(n_vocab),
      context_length_(context_length),
      pace_(pace),
      avoided_(n_vocab, false),
      clock_(std::move(clock)),
      sleep_(std::move(sleep)) {
  for (const int32_t token : avoid) {
    if (token >= 0 && token < n_vocab) avoided_[token] = true;
  }
}

int32_t PacedExecutor::NextToken(std::span<const int32_t> context, uint64_t seed) const {
  uint64_t hash = seed ^ (context.size() * 0x9e3779b97f4a7c15ull);
  for (const int32_t token : context.last(std::min<size_t>(context.size(), 4))) {
    hash = (hash ^ static_cast<uint32_t>(token)) * 0xff51afd7ed558ccdull;  // a step of MurmurHash3's finalizer
    hash ^= hash >> 33;
  }
  auto token = static_cast<int32_t>(hash % static_cast<uint64_t>(n_vocab_));
  while (avoided_[token]) token = (token + 1) % n_vocab_;
  return token;
}

absl::Status PacedExecutor::Run(const Step& step, std::span<SampledToken> sampled) {
  const SteadyTime now = clock_();
  const SteadyTime begins_at = now - returned_at_ < kNoPause ? std::max(ends_at_, now - kMaxLate) : now;
  ends_at_ = begins_at + pace_.per_step + pace_.per_row * step.batch.n_tok();
  for (size_t i = 0; i < step.samples.size(); ++i) {
    const SampleRow& sample = step.samples[i];
    const int32_t token = sample.given >= 0 ? sample.given : NextToken(sample.context.tokens, sample.sampling->seed);
    sampled[i] = {.token = token, .evidence = {}};
    if (!sample.include_evidence) continue;
    sampled[i].evidence = {.exit_layer = 1, .top_prob = 1.0f, .margin = 1.0f};
    if (sample.n_top_logprobs > 0) sampled[i].evidence.top = {{.token = token, .logprob = 0.0f}};
  }
  if (ends_at_ > now) sleep_(ends_at_ - now);
  returned_at_ = clock_();
  return absl::OkStatus();
}

}  // namespace updraft::engine
