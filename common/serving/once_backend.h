// A backend that answers a request id once: what asks again with the same id and the same body gets the same answer,
// another body with that id is refused. So a client that does not know what became of its request can send it again.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

#include "absl/time/time.h"
#include "common/clock/steady.h"
#include "common/serving/backend.h"

namespace updraft {

struct OnceOptions {
  absl::Duration grace = absl::Seconds(60);  // how long an answer is kept after its end; zero: nothing is guarded
  size_t max_bytes = 4 << 20;                // of all answers that are kept or running, as they are in memory, roughly
  std::function<SteadyTime()> clock = SteadyNow;
};

// In front of any backend. Thread-safe, as every backend. What has an id and comes from a client
// (no hops) is guarded; a body is all of a request but its id, so that it does not matter over which front and whether
// as a stream it is asked for.
//
// - While it runs, a repetition attaches: it is given what there is, at once, and then what the first is given, under
//   the first's deadline. The request is cancelled when the last that waits for it has left, and its id is free then.
// - After its end it is given again until the grace is over. An answer that ended with an error is not kept: asking
//   again is asking anew.
// - Another body: InvalidArgument, whose field (http::openai::FieldOf) is kRequestIdField, which over HTTP is 422.
// - Where answers together would take more than max_bytes, those that ended first are forgotten; when it is running
//   ones that take it, the one that would exceed it is not kept: a repetition of that is AlreadyExists while it runs,
//   and asks anew afterwards.
class OnceBackend final : public Backend {
 public:
  // Metrics count what is refused here; both outlive it.
  OnceBackend(Backend* backend, Metrics* metrics, OnceOptions options);
  ~OnceBackend() override;

  RequestHandle Submit(v1::GenerateRequest request, SteadyTime deadline, std::shared_ptr<AnswerSink> sink) override;

  v1::Load CurrentLoad() const override { return backend_->CurrentLoad(); }
  v1::GetStatusResponse Status() const override { return backend_->Status(); }
  const ServedModel& served() const override { return backend_->served(); }
  int max_sequence_tokens() const override { return backend_->max_sequence_tokens(); }
  bool draining() const override { return backend_->draining(); }
  void RefreshMetrics(Metrics* metrics) const override { backend_->RefreshMetrics(metrics); }

  size_t n_bytes() const;  // of what is held now

 private:
  class Table;
  class Answer;
  class Recorder;

  void Refuse(const v1::GenerateRequest& request, const absl::Status& why, AnswerSink& sink) const;

  Backend* const backend_;
  Metrics* const metrics_;
  const OnceOptions options_;
  const std::shared_ptr<Table> table_;  // with the answers that still run, which may end after this has gone
};

inline constexpr char kRequestIdField[] = "request_id";

}  // namespace updraft
