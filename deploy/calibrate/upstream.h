// Whoever stands above the model that is calibrated: a model file in this process, or a tier that runs somewhere.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "deploy/task/answerer.h"
#include "deploy/task/likelihood.h"

namespace updraft {

// Thread-safe.
class Upstream {
 public:
  virtual ~Upstream() = default;
  virtual std::string name() const = 0;  // for people
  // Of what answers, wherever it runs: so that findings about another are not taken for its.
  virtual std::string identity() const = 0;
  // Greedy. Unavailable: it is gone.
  virtual absl::StatusOr<std::string> Answer(const Conversation& conversation) = 0;
  // Of an answer that somebody else wrote. Unimplemented: it cannot say.
  virtual absl::StatusOr<Likelihood> LikelihoodOf(const Conversation& conversation, const std::string& answer) = 0;
};

// Up to `n_workers` calls run side by side, each on a model of its own; the first is loaded at once.
absl::StatusOr<std::unique_ptr<Upstream>> LocalUpstream(const std::string& model_path, const AnswerOptions& options);

// address: HOST:PORT of a tier's gRPC service, which must answer. timeout: of one call.
absl::StatusOr<std::unique_ptr<Upstream>> RemoteUpstream(const std::string& address, int max_tokens,
                                                         absl::Duration timeout);

}  // namespace updraft
