// An executor without a model: each step takes a given time and the tokens are a hash. It stands in for the model in
// the real daemon, for tests of time (queues, deadlines, rates): what a step costs is exact and the same on any
// machine.
#pragma once

#include <functional>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "cloud/engine/executor.h"
#include "common/clock/steady.h"

namespace updraft::engine {

struct Pace {
  absl::Duration per_step = absl::ZeroDuration();
  absl::Duration per_row = absl::ZeroDuration();  // of the batch, prefill and decode alike
};

class PacedExecutor final : public Executor {
 public:
  // avoid: ids that are never chosen (ends of generation), so that answers have the length that was asked for. At least
  // one id is left. Clock and sleep are the system's but for tests of this class.
  PacedExecutor(int n_vocab, int context_length, Pace pace, std::vector<int32_t> avoid = {},
                SteadyClock clock = SteadyNow, std::function<void(absl::Duration)> sleep = absl::SleepFor);

  int n_vocab() const override { return n_vocab_; }
  int context_length() const override { return context_length_; }
  std::optional<KvBlocks> kv_blocks() const override { return std::nullopt; }
  // Sleeps. What one sleep is too long, the next ones are shorter, so that steps without a pause between them keep the
  // pace on average.
  absl::Status Run(const Step& step, std::span<SampledToken> sampled) override;

  // The token that follows `context` with this seed: a hash of its last few tokens and its length.
  int32_t NextToken(std::span<const int32_t> context, uint64_t seed) const;

 private:
  const int n_vocab_, context_length_;
  const Pace pace_;
  std::vector<bool> avoided_;  // [n_vocab]
  const SteadyClock clock_;
  const std::function<void(absl::Duration)> sleep_;
  SteadyTime ends_at_;                                   // the last step, as paced
  SteadyTime returned_at_ = SteadyTime::InfinitePast();  // from it
};

}  // namespace updraft::engine
