#include "edge/agent/local_worker.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "common/rpc/convert.h"

namespace updraft {

namespace {

// REQUIRES: the request was checked.
RunOptions OptionsOf(const Asked& asked) {
  RunOptions options;
  options.sampling = SamplingFromProto(asked.request.sampling()).value();
  options.max_tokens = asked.max_tokens;
  options.stops.assign(asked.request.stop().begin(), asked.request.stop().end());
  options.stops.insert(options.stops.end(), asked.prompt.stops.begin(), asked.prompt.stops.end());
  return options;
}

LocalStep EventOf(LocalRun::Step step, const std::string& tier, bool include_evidence) {
  LocalStep event;
  event.chunk.set_tier(tier);
  event.chunk.set_text(std::move(step.piece.text));
  event.evidence = step.evidence;
  event.end = step.piece.end;
  if (step.piece.token) {
    event.chunk.add_tokens(*step.piece.token);
    if (include_evidence) *event.chunk.add_evidence() = EvidenceToProto(*step.piece.evidence, step.piece.text_offset);
  }
  return event;
}

}  // namespace

LocalWorker::LocalWorker(const LocalModel* model, std::string tier, int max_queued)
    : model_(model), tier_(std::move(tier)), max_queued_(max_queued) {
  thread_ = std::thread([this] { Loop(); });
}

LocalWorker::~LocalWorker() { Shutdown(); }

void LocalWorker::Shutdown() {
  {
    MutexLock lock(mu_);
    ending_ = true;
    changed_.NotifyAll();
  }
  if (thread_.joinable()) thread_.join();
}

bool LocalWorker::Reserve() {
  MutexLock lock(mu_);
  if (queue_.size() + static_cast<size_t>(n_reserved_) >= static_cast<size_t>(max_queued_)) return false;
  ++n_reserved_;
  return true;
}

void LocalWorker::Release() {
  MutexLock lock(mu_);
  --n_reserved_;
}

void LocalWorker::Start(std::shared_ptr<LocalClient> client, AnswerSoFar so_far, StartLocal::Turn turn) {
  Task task{.client = std::move(client), .so_far = std::move(so_far), .turn = turn, .queued = SteadyNow()};
  const auto waits_behind = [&task](const Task& other) {
    return other.turn != StartLocal::Turn::kFirst || other.client->asked().arrived > task.client->asked().arrived;
  };
  MutexLock lock(mu_);
  if (turn == StartLocal::Turn::kFirst) {
    queue_.insert(std::find_if(queue_.begin(), queue_.end(), waits_behind), std::move(task));
  } else {
    --n_reserved_;
    queue_.push_back(std::move(task));
  }
  changed_.NotifyAll();
}

void LocalWorker::Stop(const LocalClient* client) {
  Task removed;
  {
    MutexLock lock(mu_);
    if (running_ == client) {
      stop_running_ = true;
      return;
    }
    const auto it =
        std::find_if(queue_.begin(), queue_.end(), [client](const Task& task) { return task.client.get() == client; });
    if (it == queue_.end()) return;
    removed = std::move(*it);
    queue_.erase(it);
  }
  removed.client->Post(LocalStopped());
}

LocalWorker::Load LocalWorker::load() const {
  Load load;
  MutexLock lock(mu_);
  load.n_queued = static_cast<int>(queue_.size());
  for (const Task& task : queue_)
    load.n_queued_tokens += static_cast<int64_t>(task.client->asked().prompt.tokens.size());
  load.n_running_tokens = n_running_tokens_;
  load.running = running_ != nullptr;
  return load;
}

void LocalWorker::Loop() {
  for (;;) {
    Task task;
    {
      MutexLock lock(mu_);
      while (!ending_ && queue_.empty()) changed_.Wait(lock);
      if (queue_.empty()) return;
      task = std::move(queue_.front());
      queue_.pop_front();
      running_ = task.client.get();
      stop_running_ = false;
    }
    Run(task);
  }
}

void LocalWorker::Run(const Task& task) {
  LocalClient& client = *task.client;
  const SteadyTime began = SteadyNow();
  LocalStopped stopped;
  client.Post(LocalBegan{.queued = began - task.queued});
  {
    LocalRun run(model_, client.asked().prompt, OptionsOf(client.asked()), task.so_far);
    absl::StatusOr<bool> filled = Prefill(client, run);
    if (filled.ok() && *filled) {
      const SteadyTime first = SteadyNow();
      stopped.n_prefill_tokens = run.n_tokens();
      filled = Decode(client, run);
      stopped.decoded = SteadyNow() - first;
    }
    stopped.status = filled.status();
    stopped.mean_exit_layer = run.mean_exit_layer();
  }
  stopped.ran = SteadyNow() - began;
  n_running_tokens_ = 0;
  {
    MutexLock lock(mu_);
    running_ = nullptr;
  }
  client.Post(std::move(stopped));
}

void LocalWorker::EndExpired() {
  const SteadyTime now = SteadyNow();
  std::vector<Task> expired;
  {
    MutexLock lock(mu_);
    for (auto it = queue_.begin(); it != queue_.end();) {
      if (it->client->asked().deadline > now) {
        ++it;
      } else {
        expired.push_back(std::move(*it));
        it = queue_.erase(it);
      }
    }
  }
  for (const Task& task : expired) task.client->Post(LocalStopped());
}

absl::StatusOr<bool> LocalWorker::Prefill(LocalClient& client, LocalRun& run) {
  while (!stop_running_) {
    auto filled = run.Prefill();
    if (!filled.ok()) return filled.status();
    n_running_tokens_ = run.n_tokens();
    client.Post(LocalAdvanced());
    EndExpired();
    if (*filled) return true;
  }
  return false;
}

absl::StatusOr<bool> LocalWorker::Decode(LocalClient& client, LocalRun& run) {
  const bool include_evidence = client.asked().request.include_evidence();
  while (!stop_running_) {
    auto step = run.Next();
    if (!step.ok()) return step.status();
    n_running_tokens_ = run.n_tokens();
    const AnswerEnd end = step->piece.end;
    client.Post(EventOf(*std::move(step), tier_, include_evidence));
    EndExpired();
    if (end != AnswerEnd::kOpen) return true;
  }
  return false;
}

}  // namespace updraft
