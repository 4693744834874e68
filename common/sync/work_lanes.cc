#include "common/sync/work_lanes.h"

#include <cstddef>
#include <utility>

namespace updraft {

void WorkLanes::Start() {
  for (size_t i = 0; i < threads_.size(); ++i) {
    threads_[i] = std::thread([&queue = queues_[i]] { Run(queue); });
  }
}

void WorkLanes::Post(Lane lane, std::function<void()> work) {
  Queue& queue = queues_[static_cast<size_t>(lane)];
  MutexLock lock(queue.mu);
  if (queue.stopped) return;
  queue.waiting.push_back(std::move(work));
  queue.changed.NotifyOne();
}

void WorkLanes::Stop() {
  for (Queue& queue : queues_) {
    std::deque<std::function<void()>> dropped;
    MutexLock lock(queue.mu);
    queue.stopped = true;
    dropped.swap(queue.waiting);
    queue.changed.NotifyAll();
  }
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

void WorkLanes::Run(Queue& queue) {
  for (;;) {
    std::function<void()> work;
    {
      MutexLock lock(queue.mu);
      while (queue.waiting.empty() && !queue.stopped) queue.changed.Wait(lock);
      if (queue.stopped) return;
      work = std::move(queue.waiting.front());
      queue.waiting.pop_front();
    }
    work();
  }
}

}  // namespace updraft
