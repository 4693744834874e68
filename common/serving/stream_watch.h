// Looks at the streams of a server now and then, for what no event tells: a reader that has stopped reading, a caller
// that has heard nothing for a while.
#pragma once

#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "common/clock/steady.h"
#include "common/sync/mutex.h"

namespace updraft {

class WatchedStream {
 public:
  virtual ~WatchedStream() = default;
  // On the watch's thread; must not block.
  virtual void OnLook(SteadyTime now) = 0;
};

// Thread-safe. One thread, which sleeps while there is nothing to watch.
class StreamWatch {
 public:
  explicit StreamWatch(absl::Duration interval);
  // No stream is looked at after this.
  ~StreamWatch();
  StreamWatch(const StreamWatch&) = delete;
  StreamWatch& operator=(const StreamWatch&) = delete;

  // Is looked at after each interval for as long as somebody holds it.
  void Add(std::weak_ptr<WatchedStream> stream) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Run();

  const absl::Duration interval_;
  Mutex mu_;
  CondVar changed_;
  std::vector<std::weak_ptr<WatchedStream>> streams_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace updraft
