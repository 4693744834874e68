// The engine without its thread: sequences, blocks and steps. Engine (engine.h) drives it from the engine thread; tests
// drive it step by step with a fake clock and a fake executor. CONTRACT.md states the rules it keeps.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cloud/engine/executor.h"
#include "cloud/engine/request.h"
#include "cloud/engine/scheduler.h"
#include "common/decode/stop.h"

namespace updraft::engine {

using Clock = std::function<absl::Time()>;

// Not thread-safe. Executor and pool must outlive it.
class Core {
 public:
  Core(const SchedulerOptions& options, Executor* executor, KvPool* pool, Clock clock);
  ~Core();
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  // Whether the request can ever be served here: ids in the vocabulary, prompt within the context, worst case within
  // the pool. INVALID_ARGUMENT says what is wrong and what to do. Const and independent of other requests: callable
  // from any thread.
  absl::Status Check(const Request& request) const;

  // REQUIRES: Check(request) is OK; tickets ascend.
  void Accept(uint64_t ticket, Request request, std::shared_ptr<Sink> sink);
  // Ends the request and frees its blocks now. Unknown tickets (finished already) are ignored.
  void Cancel(uint64_t ticket);
  // Ends every request with `status`.
  void EndAll(const absl::Status& status);

  // One step: plan, run, emit. Does nothing when idle.
  void Step();
  // Calls OnDone of what has ended since the last call. Apart from Step so that counters and blocks are up to date for
  // everyone before anyone is told.
  void DeliverDone();

  bool idle() const { return running_.empty() && waiting_.empty(); }
  int n_never_started() const { return n_never_started_; }  // waiting requests that no step has seen yet
  LoadReport load() const;
  const Stats& stats() const { return stats_; }

 private:
  struct Sequence;
  struct Done {
    std::shared_ptr<Sink> sink;
    absl::Status status;
    Summary summary;
  };

  SequenceView ViewOf(const Sequence& sequence) const;
  int TokenLimit(const Request& request) const;
  bool PrimeText(Sequence& sequence);
  std::string FlushText(Sequence& sequence);
  void EndExpired(const Plan& plan);
  void Preempt(const Plan& plan);
  void Admit(const Plan& plan);
  void RunRows(const Plan& plan);
  void Emit(Sequence& sequence, const SampledToken& sampled);
  void End(Sequence& sequence, absl::Status status, FinishReason reason);
  void RemoveEnded();
  void UpdateRates(absl::Duration step_time, int n_rows, bool has_decode_rows);
  void UpdateBlockStats();

  SchedulerOptions options_;
  Scheduler scheduler_;
  Executor* executor_;
  KvPool* pool_;
  Clock clock_;
  std::vector<std::unique_ptr<Sequence>> running_;  // ascending tickets
  std::deque<std::unique_ptr<Sequence>> waiting_;   // ascending tickets, all above those of running_
  std::vector<Done> done_;
  Stats stats_;
  int n_never_started_ = 0;
  // Recent rates, exponentially smoothed; 0: nothing measured yet.
  double rows_per_s_ = 0.0;
  double decode_step_s_ = 0.0;
  double service_s_ = 0.0;  // start to end of a finished request
};

}  // namespace updraft::engine
