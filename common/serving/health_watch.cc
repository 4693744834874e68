#include "common/serving/health_watch.h"

#include <string>
#include <utility>

#include "absl/time/time.h"
#include "common/clock/steady.h"
#include "common/telemetry/log.h"

namespace updraft {
namespace {

constexpr absl::Duration kInterval = absl::Milliseconds(250);

}  // namespace

absl::Status HealthOf(const Backend& backend) {
  if (absl::Status status = backend.served().CheckIntact(); !status.ok()) return status;
  return backend.draining() ? absl::UnavailableError("this tier is shutting down") : absl::OkStatus();
}

HealthWatch::HealthWatch(const Backend* backend, std::function<void()> on_unhealthy)
    : backend_(backend), on_unhealthy_(std::move(on_unhealthy)), thread_([this] { Run(); }) {}

HealthWatch::~HealthWatch() {
  {
    MutexLock lock(mu_);
    ending_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

void HealthWatch::Run() {
  while (HealthOf(*backend_).ok()) {
    const SteadyTime next = SteadyNow() + kInterval;
    MutexLock lock(mu_);
    while (!ending_ && changed_.WaitUntil(lock, next)) {
    }
    if (ending_) return;
  }
  on_unhealthy_();
  if (const absl::Status lost = backend_->served().CheckIntact(); !lost.ok()) {
    LogEvent(LogLevel::kError, "model-lost", {{"problem", std::string(lost.message())}});
  }
}

}  // namespace updraft
