// Threads for what takes its time, apart from those that serve everybody's sockets.
#pragma once

#include <array>
#include <cstddef>
#include <deque>
#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "common/sync/mutex.h"

namespace updraft {

// Two lanes of one thread each: what a large request makes its handler do (a megabyte to be parsed and tokenized) holds
// up other large ones, and neither small requests nor the loops that serve streams. Thread-safe. What waits is bounded
// by whoever posts: by the connections or calls that may be open, one request each.
class WorkLanes {
 public:
  enum class Lane { kSmall, kLarge };
  static constexpr size_t kSmallBytes = 64 << 10;  // of a request; more is large
  static Lane LaneOf(size_t n_bytes) { return n_bytes <= kSmallBytes ? Lane::kSmall : Lane::kLarge; }

  WorkLanes() = default;
  ~WorkLanes() { Stop(); }
  WorkLanes(const WorkLanes&) = delete;
  WorkLanes& operator=(const WorkLanes&) = delete;

  // REQUIRES: called once, before Stop.
  void Start();
  // `work` runs on the lane's thread, in the order of posting; before Start it waits, after Stop it is dropped.
  void Post(Lane lane, std::function<void()> work);
  // Waits for what is running; what waits is dropped. Not to be called from a lane. Callable again.
  void Stop();

 private:
  struct Queue {
    Mutex mu;
    CondVar changed;
    std::deque<std::function<void()>> waiting ABSL_GUARDED_BY(mu);
    bool stopped ABSL_GUARDED_BY(mu) = false;
  };
  static void Run(Queue& queue);

  std::array<Queue, 2> queues_;
  std::array<std::thread, 2> threads_;
};

}  // namespace updraft
