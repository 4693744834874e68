// How likely a model finds an answer that it need not have written: one teacher-forced pass over it.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "deploy/task/answerer.h"

namespace updraft {

inline constexpr double kLogprobFloor = -100.0;  // no token counts for less, nats

struct Likelihood {
  int n_tokens = 0;      // of the answer in this model's vocabulary, its end included
  double logprob = 0.0;  // of all of them, nats

  double per_token() const { return n_tokens > 0 ? logprob / n_tokens : kLogprobFloor; }
};

// answer: text, whole; it counts as ended where the conversation's template ends one, whichever of its ends that is.
// OutOfRange where both do not fit the context.
absl::StatusOr<Likelihood> LikelihoodOf(Answerer& answerer, const Conversation& conversation,
                                        const std::string& answer);

}  // namespace updraft
