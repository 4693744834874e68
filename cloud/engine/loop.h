// One turn of the engine after another, without a thread: the core decides, the executor runs, tokens become text,
// sinks are told. Engine (engine.h) drives it from the engine thread; tests drive it step by step with a fake clock and
// a fake executor. CONTRACT.md states the rules it keeps.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "cloud/engine/executor.h"
#include "cloud/engine/request.h"
#include "common/clock/steady.h"
#include "common/engine/core.h"

namespace updraft::engine {

// Where there is no memory for a request, its rows or its text, those whom it concerns end with RESOURCE_EXHAUSTED and
// nobody else notices; an end takes no memory.
//
// Not thread-safe. The executor must outlive it.
class Loop {
 public:
  Loop(const CoreOptions& options, Executor* executor, SteadyClock clock);
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // Whether the request can ever be served here: ids in the vocabulary, prompt within the context, worst case within
  // the pool. INVALID_ARGUMENT says what is wrong and what to do. Const and independent of other requests: callable
  // from any thread.
  absl::Status Check(const Request& request) const;

  // Where there is no memory for the request, its sink hears so at once. REQUIRES: Check(request) is OK; the ticket is
  // not in use.
  void Accept(Ticket ticket, Request request, std::shared_ptr<Sink> sink);
  // Drafts of the answer's next tokens, to be verified in the next step (Core::Grow). Unknown tickets are ignored.
  // REQUIRES: ids in the vocabulary.
  void Grow(Ticket ticket, std::span<const int32_t> drafts);
  // Ends the request; its blocks are free before the next step. Unknown tickets (finished already) are ignored.
  void Cancel(Ticket ticket);
  // Ends every request with `status`.
  void EndAll(const absl::Status& status);

  // Before the first Turn. on_step: called after every step; on_gap: for every token but an answer's first, with the
  // time since the one before. Either may be empty.
  void set_observers(std::function<void(const StepMeasured&)> on_step, std::function<void(absl::Duration)> on_gap) {
    on_step_ = std::move(on_step);
    on_gap_ = std::move(on_gap);
  }

  // One step: plan, run, emit. Does nothing when idle.
  void Turn();
  // Calls OnDone of what has ended since the last call. Apart from Turn so that counters and blocks are up to date for
  // everyone before anyone is told.
  void DeliverDone();

  bool idle() const { return answers_.empty(); }
  int n_never_started() const { return n_never_started_; }  // waiting requests that no step has seen yet
  LoadReport load() const { return core_.load(); }
  Stats stats() const;
  const Core& core() const { return core_; }

 private:
  struct Answer;
  struct Done {
    std::shared_ptr<Sink> sink;
    absl::Status status;
    Summary summary;
  };

  // Made once, so that ending with them takes no memory.
  struct Reasons {
    absl::Status no_memory_for_request, no_memory_for_step, slow_reader, cancelled, broken;
  };

  int TokenLimit(const Request& request) const;                              // answer tokens, accepted_prefix included
  void Enter(Ticket ticket, Request&& request, std::shared_ptr<Sink> sink);  // may throw bad_alloc
  Answer* Find(Ticket ticket) const;
  absl::Status RunStep(const Work& work);
  absl::Status RunRows(const Work& work);  // may throw bad_alloc
  void AddRows(const RowRun& run);
  static int32_t GivenAt(const Answer& answer, int position);
  void Handle(const Event& event);
  void Emit(Answer& answer, std::span<const SampledToken> chosen);
  void Give(Answer& answer, std::span<const SampledToken> chosen);  // may throw bad_alloc
  void NoteTime(Answer& answer, int n_new);
  // What the tokens bring, into the lists of output and `text`.
  AnswerEnd Assemble(Answer& answer, std::span<const SampledToken> chosen, std::string* text);
  void End(Answer& answer, absl::Status status, AnswerEnd end);

  Executor* const executor_;
  const SteadyClock clock_;
  const Reasons reasons_;
  std::function<void(const StepMeasured&)> on_step_;  // may be empty
  std::function<void(absl::Duration)> on_gap_;        // may be empty
  Core core_;
  std::unordered_map<Ticket, std::unique_ptr<Answer>> answers_;  // std's stays whole when memory is short
  std::vector<Done> done_;                                       // has room for everybody in answers_
  Stats stats_;                                                  // what the core does not count
  int n_never_started_ = 0;

  // The batch of a step; kept for their memory.
  std::vector<int32_t> tokens_, positions_;  // [n_rows]
  std::vector<const int32_t*> tables_;       // [n_rows]
  std::vector<SampleRow> samples_;
  std::vector<SampledToken> sampled_;  // [samples_.size()]
  std::vector<int32_t> chosen_;        // the tokens of sampled_
  std::vector<Event> events_;          // has room for two of everybody
  std::vector<int32_t> output_tokens_;
  std::vector<TokenEvidence> output_evidence_;
  std::vector<size_t> output_offsets_;
};

}  // namespace updraft::engine
