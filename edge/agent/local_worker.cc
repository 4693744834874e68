#include "edge/agent/local_worker.h"

#include <algorithm>
#include <new>
#include <tuple>
#include <utility>

#include "common/rpc/convert.h"

namespace updraft {

namespace {

// Tokens of the answer that there must be room for when a run begins. Doubled each time it had to give its room back:
// reading everything anew for a few tokens is not worth it.
constexpr int kRoomToBegin = 64;
constexpr int kMaxDoublings = 6;

// REQUIRES: the request was checked.
RunOptions OptionsOf(const Asked& asked) {
  RunOptions options;
  options.sampling = SamplingFromProto(asked.request.sampling()).value();
  options.n_top_logprobs = asked.request.top_logprobs();
  options.max_tokens = asked.max_tokens;
  options.stops.assign(asked.request.stop().begin(), asked.request.stop().end());
  options.stops.insert(options.stops.end(), asked.prompt.stops.begin(), asked.prompt.stops.end());
  return options;
}

LocalStep EventOf(LocalRun::Step step, const std::string& tier, const std::string& call_format, bool include_evidence) {
  LocalStep event;
  event.chunk.set_tier(tier);
  event.chunk.set_call_format(call_format);
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

// Of those that wait only what is const is looked at without the lock; of those that take turns the worker's thread
// looks at everything.
struct LocalWorker::Task {
  std::shared_ptr<LocalClient> client;
  AnswerSoFar so_far;
  StartLocal::Turn turn = StartLocal::Turn::kInOrder;
  uint64_t number = 0;  // of its Start
  SteadyTime queued;
  std::atomic<bool> stopped{false};
  std::atomic<int> n_in_kv{0}, n_unread{0};

  std::unique_ptr<LocalRun> run = nullptr;  // null: it has not begun
  int n_parked = 0;                         // times
  uint64_t admitted = 0;                    // counted with the Starts; of the last time
  // Of the model's time: what it had (but for reading anew), of that for tokens of the answer, and what it would have
  // had if it had been there all along.
  absl::Duration ran = absl::ZeroDuration(), decoded = absl::ZeroDuration(), share = absl::ZeroDuration();
  int n_prefill_tokens = 0;  // read before the first token

  bool ComesBefore(const Task& other) const { return Order() < other.Order(); }
  int NKnown() const {
    return run ? run->n_known() : static_cast<int>(client->asked().prompt.tokens.size() + so_far.tokens.size());
  }
  void Note() {  // for those who look from outside
    n_in_kv = run->n_tokens();
    n_unread = run->n_unread();
  }

 private:
  std::tuple<bool, SteadyTime, uint64_t> Order() const {
    const bool first = turn == StartLocal::Turn::kFirst;
    // Those that hold a place came in order, even if what was before the model took unlike times.
    return {!first, first ? client->asked().arrived : SteadyTime(), number};
  }
};

LocalWorker::LocalWorker(const LocalModel* model, LocalWorkerOptions options)
    : model_(model), options_(std::move(options)) {
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

// ---- Any thread -----------------------------------------------------------------------------------------------------

bool LocalWorker::Reserve() {
  MutexLock lock(mu_);
  if (queue_.size() + static_cast<size_t>(n_reserved_) >= static_cast<size_t>(options_.max_queued)) return false;
  ++n_reserved_;
  return true;
}

void LocalWorker::Release() {
  MutexLock lock(mu_);
  --n_reserved_;
}

void LocalWorker::Start(std::shared_ptr<LocalClient> client, AnswerSoFar so_far, StartLocal::Turn turn) {
  auto task = std::make_unique<Task>();
  task->client = std::move(client);
  task->so_far = std::move(so_far);
  task->turn = turn;
  task->queued = SteadyNow();
  task->n_unread = task->NKnown();
  MutexLock lock(mu_);
  task->number = n_started_++;
  if (turn == StartLocal::Turn::kInOrder) --n_reserved_;
  Enqueue(std::move(task));
  changed_.NotifyAll();
}

void LocalWorker::Stop(const LocalClient* client) {
  const auto is_its = [client](const std::unique_ptr<Task>& task) { return task->client.get() == client; };
  std::unique_ptr<Task> removed;
  {
    MutexLock lock(mu_);
    if (const auto it = std::find_if(active_.begin(), active_.end(), is_its); it != active_.end()) {
      (*it)->stopped = true;
      return;
    }
    const auto it = std::find_if(queue_.begin(), queue_.end(), is_its);
    if (it == queue_.end()) return;
    if ((*it)->run != nullptr) {  // the worker's to end; it comes by at once, since somebody else has the room
      (*it)->stopped = true;
      return;
    }
    removed = std::move(*it);
    queue_.erase(it);
  }
  removed->client->Post(LocalStopped());
}

std::optional<int> LocalWorker::QueuePlace(const LocalClient* client) const {
  MutexLock lock(mu_);
  for (size_t i = 0; i < queue_.size(); ++i) {
    if (queue_[i]->client.get() == client) return static_cast<int>(i);
  }
  return std::nullopt;
}

LocalWorker::Load LocalWorker::load() const {
  Load load;
  MutexLock lock(mu_);
  load.n_queued = static_cast<int>(queue_.size());
  for (const auto& task : queue_) load.n_queued_tokens += task->n_unread;
  load.n_running = static_cast<int>(active_.size());
  for (const auto& task : active_) {
    load.n_queued_tokens += task->n_unread;
    load.n_running_tokens += task->n_in_kv;
  }
  return load;
}

// ---- The worker's thread --------------------------------------------------------------------------------------------

void LocalWorker::Loop() {
  for (;;) {
    {
      MutexLock lock(mu_);
      while (!ending_ && queue_.empty() && active_.empty()) changed_.Wait(lock);
      if (queue_.empty() && active_.empty()) return;
    }
    EndWaiting();
    AdmitWaiting();
    if (Task* task = NextTurn()) TakeTurn(*task);
  }
}

void LocalWorker::Enqueue(std::unique_ptr<Task> task) {
  const auto place = std::find_if(queue_.begin(), queue_.end(),
                                  [&task](const std::unique_ptr<Task>& other) { return task->ComesBefore(*other); });
  queue_.insert(place, std::move(task));
}

void LocalWorker::EndWaiting() {
  const SteadyTime now = SteadyNow();
  Tasks ended;
  {
    MutexLock lock(mu_);
    for (auto it = queue_.begin(); it != queue_.end();) {
      const bool stays = (*it)->client->asked().deadline > now && !(*it)->stopped;
      if (stays) {
        ++it;
      } else {
        ended.push_back(std::move(*it));
        it = queue_.erase(it);
      }
    }
  }
  for (const auto& task : ended) End(*task, absl::OkStatus());
}

// Those that find a place and room, in order; whoever finds none lets others pass.
void LocalWorker::AdmitWaiting() {
  MutexLock lock(mu_);
  for (size_t i = 0; i < queue_.size();) {
    if (!MakeRoomFor(*queue_[i])) {
      ++i;
      continue;
    }
    std::unique_ptr<Task> task = std::move(queue_[i]);
    queue_.erase(queue_.begin() + static_cast<std::ptrdiff_t>(i));
    task->admitted = n_started_++;
    task->share = std::max(task->share, least_share_);  // nobody has turns for time when it was not there
    active_.push_back(std::move(task));
  }
}

int LocalWorker::BlocksOf(const Task& task) const {
  return model_->pool()->BlocksFor(std::max<int>(task.NKnown(), task.n_in_kv));
}

// Whoever passed it, while it waited, gives way; nobody else does.
bool LocalWorker::MakeRoomFor(const Task& waiting) {
  if (active_.empty()) return true;
  const auto passed = [&](const Task& task) { return waiting.ComesBefore(task) && task.admitted > waiting.number; };
  const KvPool& pool = *model_->pool();
  const int room = kRoomToBegin << std::min(waiting.n_parked, kMaxDoublings);
  const int n_needed = pool.BlocksFor(std::min(waiting.NKnown() + room, model_->max_sequence_tokens()));
  // What those that take turns know is theirs, also where it is not read yet.
  int n_free = pool.n_blocks(), n_free_without = n_free;  // those that passed
  size_t n_stay = 0;
  for (const auto& task : active_) {
    n_free -= BlocksOf(*task);
    if (passed(*task)) continue;
    n_free_without -= BlocksOf(*task);
    ++n_stay;
  }
  const auto n_at_once = static_cast<size_t>(options_.n_at_once);
  if (n_stay >= n_at_once || n_free_without < n_needed) return false;
  while (active_.size() >= n_at_once || n_free < n_needed) {
    const size_t last = LastInOrder(passed);
    n_free += BlocksOf(*active_[last]);
    Park(last);
  }
  return true;
}

template <typename Which>
size_t LocalWorker::LastInOrder(const Which& which) const {
  size_t last = active_.size();
  for (size_t i = 0; i < active_.size(); ++i) {
    if (which(*active_[i]) && (last == active_.size() || active_[last]->ComesBefore(*active_[i]))) last = i;
  }
  return last;
}

void LocalWorker::Park(size_t index) {
  std::unique_ptr<Task> task = std::move(active_[index]);
  active_.erase(active_.begin() + static_cast<std::ptrdiff_t>(index));
  if (task->run != nullptr) {
    task->run->Park();
    ++task->n_parked;
    task->Note();
  }
  Enqueue(std::move(task));
}

// Whoever had least of the model's time.
LocalWorker::Task* LocalWorker::NextTurn() {
  MutexLock lock(mu_);
  const auto next = std::min_element(active_.begin(), active_.end(), [](const auto& a, const auto& b) {
    return a->share != b->share ? a->share < b->share : a->ComesBefore(*b);
  });
  if (next == active_.end()) return nullptr;
  least_share_ = std::max(least_share_, (*next)->share);
  return next->get();
}

void LocalWorker::TakeTurn(Task& task) {
  const SteadyTime began = SteadyNow();
  if (task.run == nullptr && !task.stopped) task.client->Post(LocalBegan{.queued = began - task.queued});
  if (task.stopped) return End(task, absl::OkStatus());
  absl::StatusOr<bool> complete = false;
  try {
    complete = Advance(task, began);
  } catch (const std::bad_alloc&) {
    complete = absl::ResourceExhaustedError("expected memory to go on with this answer, found that there is none");
  }
  if (!complete.ok()) {
    if (ShortOfRoom(task) && GiveWay()) return;
    return End(task, complete.status());
  }
  if (*complete || task.stopped) End(task, absl::OkStatus());
}

absl::StatusOr<bool> LocalWorker::Advance(Task& task, SteadyTime began) {
  if (task.run == nullptr) {
    const Asked& asked = task.client->asked();
    task.run = std::make_unique<LocalRun>(model_, asked.prompt, OptionsOf(asked), task.so_far);
  }
  const bool reads = task.run->n_unread() > 0;
  const absl::StatusOr<bool> complete = reads ? Read(task) : Write(task);
  const absl::Duration took = SteadyNow() - began;
  task.share += took;
  // Reading anew says nothing of how long an answer takes.
  if (!reads || task.n_parked == 0) task.ran += took;
  if (!reads) task.decoded += took;
  task.Note();
  return complete;
}

// Whether its next turn has no room in the pool, rather than that something else has failed.
bool LocalWorker::ShortOfRoom(const Task& task) const {
  if (task.run == nullptr) return false;
  const KvPool& pool = *model_->pool();
  const int n_next = task.run->n_unread() > 0 ? std::min(task.run->n_unread(), kPrefillPiece) : 1;
  const int n_held = task.run->n_tokens();
  // The token that was chosen last has no keys and values yet.
  return pool.n_free() < pool.BlocksFor(n_held + n_next) - pool.BlocksFor(std::max(0, n_held - 1));
}

absl::StatusOr<bool> LocalWorker::Read(Task& task) {
  const absl::StatusOr<bool> read = task.run->Prefill();
  if (!read.ok()) return read.status();
  if (*read && task.n_prefill_tokens == 0) task.n_prefill_tokens = task.run->n_tokens();
  task.client->Post(LocalAdvanced());
  return false;
}

absl::StatusOr<bool> LocalWorker::Write(Task& task) {
  absl::StatusOr<LocalRun::Step> step = task.run->Next();
  if (!step.ok()) return step.status();
  const AnswerEnd end = step->piece.end;
  const v1::GenerateRequest& request = task.client->asked().request;
  task.client->Post(
      EventOf(*std::move(step), options_.tier, model_->served().CallFormatFor(request), request.include_evidence()));
  return end != AnswerEnd::kOpen;
}

bool LocalWorker::GiveWay() {
  MutexLock lock(mu_);
  if (active_.size() < 2) return false;
  Park(LastInOrder([](const Task&) { return true; }));
  return true;
}

void LocalWorker::End(Task& task, absl::Status status) {
  LocalStopped stopped;
  stopped.status = std::move(status);
  stopped.ran = task.ran;
  stopped.decoded = task.decoded;
  stopped.n_prefill_tokens = task.n_prefill_tokens;
  if (task.run != nullptr) stopped.mean_exit_layer = task.run->mean_exit_layer();
  task.run.reset();  // with its part of the pool, before anybody is told
  std::unique_ptr<Task> ended;
  {
    MutexLock lock(mu_);
    const auto it =
        std::find_if(active_.begin(), active_.end(), [&](const auto& other) { return other.get() == &task; });
    if (it != active_.end()) {  // otherwise it waited, and is the caller's
      ended = std::move(*it);
      active_.erase(it);
    }
  }
  task.client->Post(std::move(stopped));
}

}  // namespace updraft
