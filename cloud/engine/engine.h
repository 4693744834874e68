// Continuous batching over paged KV: the thread around Loop. It alone touches core and model; everyone else talks to it
// by messages. CONTRACT.md is normative.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cloud/engine/loop.h"
#include "common/clock/steady.h"
#include "common/sync/mutex.h"

namespace updraft::engine {

struct EngineOptions {
  // Performance: rows in one step and sequences in it. More rows prefill faster and make every decoding sequence wait
  // longer. The number of blocks and their size are those of the executor's KV (Create compares them).
  CoreOptions core;
  // Behaviour: requests that wait before the next is refused with RESOURCE_EXHAUSTED and a retry delay.
  int max_queued = 256;
  // On the engine thread, as in Loop::set_observers.
  std::function<void(const StepMeasured&)> on_step = {};
  std::function<void(absl::Duration)> on_gap = {};

  absl::Status Validate() const;
};

// Thread-safe, except that Shutdown and destruction are the owner's.
class Engine {
 public:
  // Starts the engine thread. INVALID_ARGUMENT for impossible options, also when they name other blocks of KV than the
  // executor has. `clock` is read on it (and by nothing else).
  static absl::StatusOr<std::unique_ptr<Engine>> Create(const EngineOptions& options,
                                                        std::unique_ptr<Executor> executor,
                                                        SteadyClock clock = SteadyNow);
  // Shuts down without grace.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Queues a request; its ticket is the handle to cancel it. Never blocks on the model. On OK the sink gets exactly one
  // OnDone (perhaps before Submit returns); on an error it is never called: INVALID_ARGUMENT (can never be served
  // here), RESOURCE_EXHAUSTED (queue full; carries a retry delay), UNAVAILABLE (shutting down).
  absl::StatusOr<uint64_t> Submit(Request request, std::shared_ptr<Sink> sink);

  // Ends a request with CANCELLED before the next step; its blocks are free by then. Tickets of finished requests are
  // ignored.
  void Cancel(uint64_t ticket);

  // As of the end of the last step.
  LoadReport load() const;
  Stats stats() const;

  // Refuses new requests, lets those accepted go on for `grace`, ends the rest with UNAVAILABLE, joins the thread.
  // Callable again.
  void Shutdown(absl::Duration grace);

 private:
  struct Message {
    uint64_t ticket = 0;
    Request request;
    std::shared_ptr<Sink> sink;
  };

  Engine(const EngineOptions& options, std::unique_ptr<Executor> executor, SteadyClock clock);
  void Run();
  bool TakeMessages();  // false: time to end the thread
  void Publish();

  const EngineOptions options_;
  const std::unique_ptr<Executor> executor_;
  Loop loop_;  // engine thread only, but for the const Check

  mutable Mutex mu_;
  CondVar wake_;
  std::vector<Message> submitted_ ABSL_GUARDED_BY(mu_);
  std::vector<uint64_t> cancelled_ ABSL_GUARDED_BY(mu_);
  uint64_t next_ticket_ ABSL_GUARDED_BY(mu_) = 1;
  int n_waiting_ ABSL_GUARDED_BY(mu_) = 0;  // requests that no step has seen yet, in submitted_ and in loop_
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  SteadyTime stop_at_ ABSL_GUARDED_BY(mu_) = SteadyTime::InfiniteFuture();
  LoadReport load_ ABSL_GUARDED_BY(mu_);
  Stats stats_ ABSL_GUARDED_BY(mu_);
  int64_t n_refused_ ABSL_GUARDED_BY(mu_) = 0;

  std::thread thread_;
};

}  // namespace updraft::engine
