// What a front (gRPC, OpenAI HTTP) needs of a daemon: the edge's agent and the cloud's engine stand behind the same
// interface, so each front is written once.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "common/clock/steady.h"
#include "common/serving/served_model.h"
#include "common/telemetry/metrics.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

// Takes one answer. Called by one thread at a time, in order; must not block.
class AnswerSink {
 public:
  virtual ~AnswerSink() = default;
  // Not OK: nobody takes the answer any more, and why (RESOURCE_EXHAUSTED: it is read too slowly; CANCELLED: the reader
  // has gone). The request ends with that, in the books too; once refused, always refused.
  virtual absl::Status OnChunk(const v1::Chunk& chunk) = 0;
  // Exactly once, last. `done` is filled as far as things went, also on error.
  virtual void OnEnd(const absl::Status& status, const v1::Done& done) = 0;
};

// What a front holds on to; freeing it does not cancel. It may keep the request's record alive, so a sink that holds
// its own handle lets go of it after OnEnd.
class RequestHandle {
 public:
  RequestHandle() = default;  // of no request
  // `cancel` may be called by any thread, any number of times, also after the end.
  // queue_place: as QueuePlace, by any thread, also after the end; null: it is not told.
  explicit RequestHandle(std::function<void()> cancel, std::function<std::optional<int>()> queue_place = nullptr)
      : cancel_(std::move(cancel)), queue_place_(std::move(queue_place)) {}

  // Any thread, any number of times, also after the end. OnEnd(Cancelled) follows if the answer was not complete. The
  // backend must still exist.
  void Cancel() const {
    if (cancel_) cancel_();
  }
  // How many requests come before this one, while it waits for its turn; none: it does not wait, or the backend does
  // not say. As Cancel; never called with a lock held that a sink takes.
  std::optional<int> QueuePlace() const { return queue_place_ ? queue_place_() : std::nullopt; }

 private:
  std::function<void()> cancel_;
  std::function<std::optional<int>()> queue_place_;
};

// Thread-safe.
class Backend {
 public:
  virtual ~Backend() = default;

  // Starts a request; every outcome, refusal included, goes to the sink, possibly before this returns. Errors:
  // InvalidArgument and OutOfRange (prompt too long) name the field; FailedPrecondition for token ids of another
  // vocabulary; ResourceExhausted with a retry delay when the queue is full; Unavailable when stopping.
  virtual RequestHandle Submit(v1::GenerateRequest request, SteadyTime deadline, std::shared_ptr<AnswerSink> sink) = 0;

  virtual v1::Load CurrentLoad() const = 0;
  // Everything but the process's own figures (version, uptime, memory).
  virtual v1::GetStatusResponse Status() const = 0;
  virtual const ServedModel& served() const = 0;
  // Tokens of prompt and answer together that this tier has room for itself, whatever is above it.
  virtual int max_sequence_tokens() const = 0;
  // New requests are refused with Unavailable.
  virtual bool draining() const = 0;

  // Brings what only this backend measures up to date, just before `metrics` is rendered; load and link are set by the
  // front, from Status.
  virtual void RefreshMetrics(Metrics* metrics) const {}
};

}  // namespace updraft
