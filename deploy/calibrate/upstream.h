// Whoever stands above the model that is calibrated: a model file in this process, or a tier that runs somewhere.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "deploy/task/answerer.h"
#include "deploy/task/likelihood.h"

namespace updraft {

struct UpstreamAnswer {
  std::string text;
  bool finished = true;  // false: max_tokens or the context ran out
};

// Thread-safe.
class Upstream {
 public:
  virtual ~Upstream() = default;
  virtual std::string name() const = 0;  // for people
  // Of what answers, wherever it runs: so that findings about another are not taken for its. A file that is exchanged
  // for another of the same name and size is not noticed.
  virtual std::string identity() const = 0;
  // FailedPrecondition: what answers is another one by now.
  virtual absl::Status CheckSame() { return absl::OkStatus(); }
  // Greedy. Unavailable: it is gone.
  virtual absl::StatusOr<UpstreamAnswer> Answer(const Conversation& conversation) = 0;
  // Of a whole answer that somebody else wrote. Unimplemented: it cannot say.
  virtual absl::StatusOr<Likelihood> LikelihoodOf(const Conversation& conversation, const std::string& answer) = 0;
};

// Up to `n_workers` calls run side by side, each on a model of its own; the first is loaded at once.
absl::StatusOr<std::unique_ptr<Upstream>> LocalUpstream(const std::string& model_path, const AnswerOptions& options);

// address: HOST:PORT of a tier's gRPC service, which must answer. timeout: of one call.
absl::StatusOr<std::unique_ptr<Upstream>> RemoteUpstream(const std::string& address, int max_tokens,
                                                         absl::Duration timeout);

}  // namespace updraft
