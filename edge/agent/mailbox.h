// A queue of messages for one receiver that has no thread of its own: whoever posts handles them, unless somebody else
// is at it already; then that one does. So messages are handled one at a time, in the order in which they came, and no
// lock is held meanwhile: a handler may post.
#pragma once

#include <cstdint>
#include <deque>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "common/sync/mutex.h"

namespace updraft {

template <typename Message>
class Mailbox {
 public:
  // Any thread. handle(Message) is called for this message and those that came meanwhile, or by the thread that is at
  // it. It must be the same function for every post.
  template <typename Handler>
  void Post(Message message, Handler&& handle) {
    {
      MutexLock lock(mu_);
      waiting_.push_back(std::move(message));
      if (state_ == State::kHandling) return;
      state_ = State::kHandling;
    }
    for (;;) {
      Message next;
      {
        MutexLock lock(mu_);
        if (waiting_.empty()) {
          state_ = State::kIdle;
          return;
        }
        next = std::move(waiting_.front());
        waiting_.pop_front();
      }
      handle(std::move(next));
    }
  }

 private:
  enum class State : uint8_t { kIdle, kHandling };
  Mutex mu_;
  std::deque<Message> waiting_ ABSL_GUARDED_BY(mu_);
  State state_ ABSL_GUARDED_BY(mu_) = State::kIdle;
};

}  // namespace updraft
