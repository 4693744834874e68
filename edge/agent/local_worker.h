// The one thread on which this tier's model writes answers, and the queue before it. It writes one answer to its end
// before it begins the next, in order of arrival; those that go on after upstream failed have waited already and come
// before those that have not begun, among themselves in order of arrival too.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "common/clock/steady.h"
#include "common/sync/mutex.h"
#include "edge/agent/local_model.h"
#include "edge/agent/local_run.h"
#include "edge/answer/answer.h"

namespace updraft {

// An answer, as the worker sees it. Kept until its LocalStopped was posted.
class LocalClient {
 public:
  virtual ~LocalClient() = default;
  virtual const Asked& asked() const = 0;
  // LocalBegan, LocalAdvanced, LocalStep, LocalStopped.
  virtual void Post(Event event) = 0;
};

class LocalWorker {
 public:
  // tier: its name, in chunks. max_queued: places for those that wait. The model must outlive the worker.
  LocalWorker(const LocalModel* model, std::string tier, int max_queued);
  ~LocalWorker();  // Shutdown

  // Ends the thread. REQUIRES: nothing is queued or running, and nothing is started any more. Callable again, by one
  // thread at a time.
  void Shutdown();

  // Holds a place in the queue until Start (kInOrder) takes it or Release gives it back. False: max_queued wait or are
  // about to. Any thread, as all that follows.
  bool Reserve();
  void Release();
  // The client gets LocalStopped, once, last. kInOrder: REQUIRES a place that was reserved for it. kFirst needs none:
  // whoever was taken in is not turned away any more.
  void Start(std::shared_ptr<LocalClient> client, AnswerSoFar so_far, StartLocal::Turn turn);
  // Ends the client's run before its next token, or takes it out of the queue. Nothing where it has neither.
  void Stop(const LocalClient* client);

  struct Load {
    int n_queued = 0;
    int64_t n_queued_tokens = 0;  // of prompts
    int n_running_tokens = 0;     // in KV
    bool running = false;
  };
  Load load() const;

 private:
  struct Task {
    std::shared_ptr<LocalClient> client;
    AnswerSoFar so_far;
    StartLocal::Turn turn = StartLocal::Turn::kInOrder;
    SteadyTime queued;
  };

  void Loop();
  // Ends those whose deadline passes while they wait: nobody else looks at them.
  void EndExpired();
  void Run(const Task& task);
  // Both false when the run was stopped before its end.
  absl::StatusOr<bool> Prefill(LocalClient& client, LocalRun& run);
  absl::StatusOr<bool> Decode(LocalClient& client, LocalRun& run);

  const LocalModel* const model_;
  const std::string tier_;
  const int max_queued_;
  mutable Mutex mu_;
  CondVar changed_;
  std::deque<Task> queue_ ABSL_GUARDED_BY(mu_);  // those of kFirst before the others
  int n_reserved_ ABSL_GUARDED_BY(mu_) = 0;
  const LocalClient* running_ ABSL_GUARDED_BY(mu_) = nullptr;
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  std::atomic<bool> stop_running_{false};
  std::atomic<int> n_running_tokens_{0};
  std::thread thread_;
};

}  // namespace updraft
