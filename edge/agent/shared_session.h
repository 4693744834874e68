// The tier's routing session under its lock: answers, calls and probes tell it what they see from their threads.
#pragma once

#include <utility>

#include "absl/base/thread_annotations.h"
#include "common/routing/session.h"
#include "common/sync/mutex.h"

namespace updraft {

class SharedSession {
 public:
  explicit SharedSession(const SessionOptions& options) : session_(options) {}

  // Calls use(session) with the lock held. `use` takes no other lock and calls nobody.
  template <typename Use>
  auto With(Use&& use) ABSL_LOCKS_EXCLUDED(mu_) {
    MutexLock lock(mu_);
    return std::forward<Use>(use)(session_);
  }
  template <typename Use>
  auto With(Use&& use) const ABSL_LOCKS_EXCLUDED(mu_) {
    MutexLock lock(mu_);
    return std::forward<Use>(use)(std::as_const(session_));
  }

 private:
  mutable Mutex mu_;
  RoutingSession session_ ABSL_GUARDED_BY(mu_);
};

}  // namespace updraft
