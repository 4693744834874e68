// Tells gRPC's health service what a daemon's health is, a quarter of a second late at most.
#pragma once

#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "common/serving/backend.h"
#include "common/sync/mutex.h"

namespace updraft {

// Whether the daemon can take requests: OK, or UNAVAILABLE with the reason (draining; the model's file is not what was
// loaded). Any thread.
absl::Status HealthOf(const Backend& backend);

// Asks HealthOf over and over on a thread of its own and says so when it is no longer OK, once; logs why, but for a
// drain, which is logged by who began it.
class HealthWatch {
 public:
  // `on_unhealthy` is called on the watch's thread, at most once. The backend must outlive the watch.
  HealthWatch(const Backend* backend, std::function<void()> on_unhealthy);
  ~HealthWatch();
  HealthWatch(const HealthWatch&) = delete;
  HealthWatch& operator=(const HealthWatch&) = delete;

 private:
  void Run();

  const Backend* const backend_;
  const std::function<void()> on_unhealthy_;
  Mutex mu_;
  CondVar changed_;
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace updraft
