#include "cloud/engine/engine.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/status/retry_delay.h"

namespace updraft::engine {

absl::Status EngineOptions::Validate() const {
  if (absl::Status status = core.Validate(); !status.ok()) return status;
  if (max_queued < 1) {
    return absl::InvalidArgumentError(absl::StrFormat("max_queued: expected at least 1, found %d", max_queued));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(const EngineOptions& options, std::unique_ptr<Executor> executor,
                                                       SteadyClock clock) {
  if (absl::Status status = options.Validate(); !status.ok()) return status;
  const std::optional<KvBlocks> blocks = executor->kv_blocks();
  if (blocks && (blocks->n_blocks != options.core.n_blocks || blocks->block_tokens != options.core.block_tokens)) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "KV pool: expected the engine's options to name the executor's %d blocks of %d tokens, found %d blocks of %d "
        "tokens; make both from one configuration",
        blocks->n_blocks, blocks->block_tokens, options.core.n_blocks, options.core.block_tokens));
  }
  return std::unique_ptr<Engine>(new Engine(options, std::move(executor), std::move(clock)));
}

Engine::Engine(const EngineOptions& options, std::unique_ptr<Executor> executor, SteadyClock clock)
    : options_(options), executor_(std::move(executor)), loop_(options.core, executor_.get(), std::move(clock)) {
  loop_.set_observers(options_.on_step, options_.on_gap);
  Publish();
  thread_ = std::thread([this] { Run(); });
}

Engine::~Engine() { Shutdown(absl::ZeroDuration()); }

absl::StatusOr<uint64_t> Engine::Submit(Request request, std::shared_ptr<Sink> sink) {
  if (absl::Status status = loop_.Check(request); !status.ok()) {
    MutexLock lock(mu_);
    ++n_refused_;
    return status;
  }
  uint64_t ticket = 0;
  {
    MutexLock lock(mu_);
    if (stopping_) {
      ++n_refused_;
      return absl::UnavailableError("the engine is shutting down; ask another replica");
    }
    if (n_waiting_ >= options_.max_queued) {
      ++n_refused_;
      const absl::Duration delay =
          std::clamp(absl::Milliseconds(load_.predicted_wait_ms), absl::Milliseconds(50), absl::Seconds(30));
      return WithRetryDelay(absl::ResourceExhaustedError(absl::StrFormat(
                                "the queue is full (%d requests wait); retry after the given delay", n_waiting_)),
                            delay);
    }
    submitted_.push_back({next_ticket_, std::move(request), std::move(sink)});
    ticket = next_ticket_++;
    ++n_waiting_;
  }
  wake_.NotifyOne();
  return ticket;
}

void Engine::Cancel(uint64_t ticket) {
  {
    MutexLock lock(mu_);
    cancelled_.push_back(ticket);
  }
  wake_.NotifyOne();
}

LoadReport Engine::load() const {
  MutexLock lock(mu_);
  return load_;
}

Stats Engine::stats() const {
  MutexLock lock(mu_);
  Stats stats = stats_;
  stats.n_refused = n_refused_;
  return stats;
}

void Engine::Shutdown(absl::Duration grace) {
  {
    MutexLock lock(mu_);
    stopping_ = true;
    stop_at_ = std::min(stop_at_, SteadyNow() + grace);
  }
  wake_.NotifyOne();
  if (thread_.joinable()) thread_.join();
}

void Engine::Run() {
  while (TakeMessages()) {
    loop_.Turn();
    Publish();
    loop_.DeliverDone();
  }
}

bool Engine::TakeMessages() {
  std::vector<Message> submitted;
  std::vector<uint64_t> cancelled;
  bool end_all = false;
  {
    MutexLock lock(mu_);
    while (loop_.idle() && submitted_.empty() && cancelled_.empty()) {
      if (stopping_) return false;
      wake_.Wait(lock);
    }
    submitted.swap(submitted_);
    cancelled.swap(cancelled_);
    end_all = stopping_ && SteadyNow() >= stop_at_;
  }
  for (Message& message : submitted) loop_.Accept(message.ticket, std::move(message.request), std::move(message.sink));
  for (const uint64_t ticket : cancelled) loop_.Cancel(ticket);
  if (end_all) loop_.EndAll(absl::UnavailableError("the engine is shutting down; ask another replica"));
  return true;
}

void Engine::Publish() {
  const LoadReport load = loop_.load();
  MutexLock lock(mu_);
  load_ = load;
  stats_ = loop_.stats();
  n_waiting_ = loop_.n_never_started() + static_cast<int>(submitted_.size());
}

}  // namespace updraft::engine
