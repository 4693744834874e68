// The one thread on which this tier's model writes answers, and the queue before it.
//
// Answers take turns: one token, or a piece of a prompt, and then whoever had the least of the model's time so far. So
// a short answer does not wait for the end of a long one, and what each loses by the others is shared evenly. Room in
// the KV pool, and one of the n_at_once places, goes by the queue's order instead: those that go on after upstream
// failed come before those that have not begun, both in order of arrival. Where room runs short, whoever came last
// gives its own back and waits again (its tokens are read anew when there is room); whoever needs less than the queue's
// first may begin before it, and gives way when there is room for that one.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
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

struct LocalWorkerOptions {
  std::string tier;                // its name, in chunks
  int max_queued = 64;             // places for those that wait
  int n_at_once = kAnswersAtOnce;  // that take turns, at most
};

class LocalWorker {
 public:
  // The model must outlive the worker.
  LocalWorker(const LocalModel* model, LocalWorkerOptions options);
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
  // How many wait before the client; none: it does not wait.
  std::optional<int> QueuePlace(const LocalClient* client) const;

  struct Load {
    int n_queued = 0;             // those included that gave their room back
    int64_t n_queued_tokens = 0;  // to be read, of those that wait and those that take turns
    int n_running = 0;            // that take turns
    int n_running_tokens = 0;     // in KV
  };
  Load load() const;

 private:
  struct Task;
  using Tasks = std::vector<std::unique_ptr<Task>>;

  void Loop();
  // Ends those whose deadline passes while they wait, and those that were stopped then: nobody else looks at them.
  void EndWaiting();
  void AdmitWaiting();
  bool MakeRoomFor(const Task& waiting) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  int BlocksOf(const Task& task) const;
  template <typename Which>
  size_t LastInOrder(const Which& which) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);  // of active_
  void Park(size_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Enqueue(std::unique_ptr<Task> task) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Task* NextTurn();
  void TakeTurn(Task& task);
  bool ShortOfRoom(const Task& task) const;
  // Whether the answer is complete.
  absl::StatusOr<bool> Advance(Task& task, SteadyTime began);
  absl::StatusOr<bool> Read(Task& task);
  absl::StatusOr<bool> Write(Task& task);
  bool GiveWay();  // the last in order gives its room back; false: there is but one
  void End(Task& task, absl::Status status);

  const LocalModel* const model_;
  const LocalWorkerOptions options_;
  mutable Mutex mu_;
  CondVar changed_;
  Tasks queue_ ABSL_GUARDED_BY(mu_);                   // in order
  Tasks active_ ABSL_GUARDED_BY(mu_);                  // that take turns; only the worker's thread changes the list
  absl::Duration least_share_ = absl::ZeroDuration();  // of whoever had the last turn; the worker's thread
  int n_reserved_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t n_started_ ABSL_GUARDED_BY(mu_) = 0;
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace updraft
