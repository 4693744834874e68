// std::mutex and std::condition_variable with annotations, so that clang's -Wthread-safety (./run lint) checks every
// ABSL_GUARDED_BY. Not absl::Mutex: the distribution's Abseil is built without ThreadSanitizer, which would not see its
// ordering.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "absl/base/thread_annotations.h"
#include "common/clock/steady.h"

namespace updraft {

class ABSL_LOCKABLE Mutex {
 public:
  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { mutex_.lock(); }
  void Unlock() ABSL_UNLOCK_FUNCTION() { mutex_.unlock(); }

 private:
  friend class MutexLock;
  friend class CondVar;
  std::mutex mutex_;
};

// Holds the mutex while it lives, but between Unlock and Lock.
class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex) : lock_(mutex.mutex_) {}
  ~MutexLock() ABSL_UNLOCK_FUNCTION() = default;
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

  void Unlock() ABSL_UNLOCK_FUNCTION() { lock_.unlock(); }
  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { lock_.lock(); }

 private:
  friend class CondVar;
  std::unique_lock<std::mutex> lock_;
};

// Waits in a loop around a condition; a wait may end without a notification. (Predicates would be functions of their
// own to the analysis, which then does not know that the mutex is held.)
class CondVar {
 public:
  void NotifyOne() { changed_.notify_one(); }
  void NotifyAll() { changed_.notify_all(); }
  // REQUIRES: the lock is held; it is while this returns.
  void Wait(MutexLock& lock) { changed_.wait(lock.lock_); }
  // False: it is later than `deadline`.
  bool WaitUntil(MutexLock& lock, SteadyTime deadline) {
    if (deadline == SteadyTime::InfiniteFuture()) {
      Wait(lock);
      return true;
    }
    return changed_.wait_until(lock.lock_, ToStdSteady(deadline)) == std::cv_status::no_timeout;
  }

 private:
  std::condition_variable changed_;
};

}  // namespace updraft
