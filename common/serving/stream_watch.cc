#include "common/serving/stream_watch.h"

#include <utility>

namespace updraft {

StreamWatch::StreamWatch(absl::Duration interval) : interval_(interval), thread_([this] { Run(); }) {}

StreamWatch::~StreamWatch() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

void StreamWatch::Add(std::weak_ptr<WatchedStream> stream) {
  MutexLock lock(mu_);
  streams_.push_back(std::move(stream));
  if (streams_.size() == 1) changed_.NotifyAll();
}

void StreamWatch::Run() {
  std::vector<std::shared_ptr<WatchedStream>> present;
  MutexLock lock(mu_);
  while (!stopping_) {
    if (streams_.empty()) {
      changed_.Wait(lock);
      continue;
    }
    for (const SteadyTime next = SteadyNow() + interval_; !stopping_ && SteadyNow() < next;) {
      changed_.WaitUntil(lock, next);
    }
    if (stopping_) return;
    std::erase_if(streams_, [&present](const std::weak_ptr<WatchedStream>& stream) {
      auto held = stream.lock();
      if (held == nullptr) return true;
      present.push_back(std::move(held));
      return false;
    });
    lock.Unlock();  // a stream may go with what is held here, and takes locks of its own
    const SteadyTime now = SteadyNow();
    for (const auto& stream : present) stream->OnLook(now);
    present.clear();
    lock.Lock();
  }
}

}  // namespace updraft
