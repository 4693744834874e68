// Guesses of the tokens that come next, made from the ids alone. A guess costs a row in the deep pass that checks it,
// and a right one saves a pass; what is chosen never depends on it (speculative decoding, Leviathan et al. 2023).
// Drafts of early exits are no Drafter: they are rows of the model itself, run half way (rows.h).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"

namespace updraft {

// Of one sequence, on its thread.
class Drafter {
 public:
  virtual ~Drafter() = default;
  // Appends up to `n` ids that may follow `context`, best guess first in line: each stands for the position after the
  // one before. None is an answer. Ids that cannot be (outside the vocabulary, not allowed by a mask) end the draft.
  virtual void Draft(std::span<const int32_t> context, int n, std::vector<int32_t>& drafts) = 0;
};

struct NgramOptions {
  int max_ngram = 4;  // longest end of the context that is looked for, in [min_ngram, 16]
  int min_ngram = 2;  // shortest, >= 1

  absl::Status Validate() const;
};

// Prompt lookup (Saxena 2023): what followed the last earlier place where the context had the n tokens that it ends
// with, for the largest n that occurred. Answers that repeat their prompt, as rewrites and settings do, gain. Looks at
// every token of the context once per draft and length; allocates nothing.
class NgramDrafter : public Drafter {
 public:
  explicit NgramDrafter(const NgramOptions& options = {});  // that Validate accepts
  void Draft(std::span<const int32_t> context, int n, std::vector<int32_t>& drafts) override;

 private:
  NgramOptions options_;
};

}  // namespace updraft
