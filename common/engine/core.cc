#include "common/engine/core.h"

#include <algorithm>
#include <cassert>
#include <limits>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/engine/sequence.h"

namespace updraft::engine {
namespace {

constexpr int kMaxPriority = 1000;

// A node between prev and next (null: the end) of a list whose links are the members `prev` and `next`.
template <auto kPrev, auto kNext, typename List, typename Node>
void LinkBefore(List& list, Node* next, Node& node) {
  Node* prev = next != nullptr ? next->*kPrev : list.last;
  node.*kPrev = prev;
  node.*kNext = next;
  (prev != nullptr ? prev->*kNext : list.first) = &node;
  (next != nullptr ? next->*kPrev : list.last) = &node;
}

template <auto kPrev, auto kNext, typename List, typename Node>
void UnlinkFrom(List& list, Node& node) {
  (node.*kPrev != nullptr ? node.*kPrev->*kNext : list.first) = node.*kNext;
  (node.*kNext != nullptr ? node.*kNext->*kPrev : list.last) = node.*kPrev;
  node.*kPrev = node.*kNext = nullptr;
}

}  // namespace

absl::Status CoreOptions::Validate() const {
  if (n_blocks < 1 || block_tokens < 1 || block_tokens > 1024 ||
      n_blocks > std::numeric_limits<int>::max() / block_tokens) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "KV pool: expected at least 1 block of 1 to 1024 tokens, and less than 2^31 tokens in all, found "
        "%d blocks of %d tokens",
        n_blocks, block_tokens));
  }
  if (max_running < 1) {
    return absl::InvalidArgumentError(absl::StrFormat("max_running: expected at least 1, found %d", max_running));
  }
  if (max_step_tokens < max_running) {
    return absl::InvalidArgumentError(
        absl::StrFormat("max_step_tokens: expected at least max_running (%d), so that every sequence can decode in "
                        "every step, found %d",
                        max_running, max_step_tokens));
  }
  if (class_rise <= absl::ZeroDuration() || class_rise > absl::Hours(24)) {
    return absl::InvalidArgumentError(absl::StrFormat("class_rise: expected more than 0 and at most 24 hours, found %s",
                                                      absl::FormatDuration(class_rise)));
  }
  if (itl_target < absl::ZeroDuration() || itl_target > absl::Minutes(1)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("itl_target: expected 0 (none) to a minute, found %s", absl::FormatDuration(itl_target)));
  }
  return absl::OkStatus();
}

Core::Core(const CoreOptions& options)
    : options_(options),
      expired_in_queue_(absl::DeadlineExceededError("the deadline passed while the request was queued")),
      expired_(absl::DeadlineExceededError("the deadline passed before the answer was complete")),
      pool_(options.n_blocks),
      pacer_(options.itl_target) {
  assert(options.Validate().ok());
  if (options.reuse_prefixes) prefixes_ = std::make_unique<PrefixIndex>(options.n_blocks, options.block_tokens);
  running_.reserve(options.max_running);
  rows_.reserve(options.max_running);
  row_sequences_.reserve(options.max_running);
  moves_.reserve(options.max_running);
  departed_.reserve(options.max_running);
}

Core::~Core() = default;

absl::Status Core::Check(int n_tokens, int n_total_max, int priority) const {
  if (n_tokens < 1) return absl::InvalidArgumentError("tokens: expected at least 1, found none");
  if (n_total_max <= n_tokens) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "n_total_max: expected room for an answer after %d known tokens, found %d in all", n_tokens, n_total_max));
  }
  if (priority < -kMaxPriority || priority > kMaxPriority) {
    return absl::InvalidArgumentError(
        absl::StrFormat("priority: expected %d to %d, found %d", -kMaxPriority, kMaxPriority, priority));
  }
  // The last token is chosen and never run, so it needs no room.
  const int n_worst = n_total_max - 1;
  if (BlocksFor(n_worst) > options_.n_blocks) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "prompt and max_tokens: need room for %d tokens (%d blocks of %d), the KV pool holds %d (%d blocks); lower "
        "max_tokens, or serve with a larger kv_tokens",
        n_worst, BlocksFor(n_worst), options_.block_tokens, options_.n_blocks * options_.block_tokens,
        options_.n_blocks));
  }
  return absl::OkStatus();
}

Core::Sequence* Core::FindSequence(Ticket ticket) const {
  const auto at = sequences_.find(ticket);
  return at == sequences_.end() ? nullptr : at->second.get();
}

void Core::Admit(Ticket ticket, SequenceSpec spec, SteadyTime now) {
  assert(!contains(ticket) && Check(spec).ok());
  // What takes memory comes first, so that nothing has changed when there is none.
  auto owned = std::make_unique<Sequence>();
  Sequence& s = *owned;
  s.tokens.reserve(spec.n_total_max);
  s.blocks.reserve(BlocksFor(spec.n_total_max - 1));
  if (prefixes_ != nullptr) s.chain.reserve(spec.n_total_max / options_.block_tokens + 1);
  // Twice what can mean something, so that it is made anew rarely.
  const size_t n_after = sequences_.size() + 1;
  if (times_.capacity() < 4 * n_after + 8) times_.reserve(8 * n_after + 16);
  sequences_[ticket] = std::move(owned);

  s.ticket = ticket;
  s.n_earlier = n_admitted_++;
  s.order_ns =
      absl::ToInt64Nanoseconds(now.since_origin()) - spec.priority * absl::ToInt64Nanoseconds(options_.class_rise);
  s.cache_salt = spec.cache_salt;
  s.priority = spec.priority;
  s.tenant = spec.tenant;
  s.deadline = spec.deadline;
  s.tokens.assign(spec.tokens.begin(), spec.tokens.end());
  s.n_total_max = spec.n_total_max;
  s.n_start = s.n_known = s.n_tokens();
  Enqueue(s);
  Watch(ticket, s.deadline);
}

void Core::Grow(Ticket ticket, std::span<const int32_t> unverified) {
  Sequence* s = FindSequence(ticket);
  assert(s != nullptr);
  // The last draft that can be confirmed is the last token but one: the step that confirms it chooses the last.
  const int n_room = std::max(0, s->n_total_max - 1 - s->n_tokens());
  const auto n = std::min(unverified.size(), static_cast<size_t>(n_room));
  s->tokens.insert(s->tokens.end(), unverified.begin(), unverified.begin() + n);
}

void Core::Park(Ticket ticket, SteadyTime until) {
  Sequence* s = FindSequence(ticket);
  assert(s != nullptr);
  s->parked_until = until;
  Watch(ticket, until);
  if (s->in_step()) {
    s->at_commit = Sequence::AtCommit::kPark;
    return;
  }
  if (s->phase == Sequence::Phase::kParked) return;
  if (s->phase == Sequence::Phase::kWaiting) Dequeue(*s);
  const bool was_running = s->phase == Sequence::Phase::kRunning;
  EnterParked(*s);
  if (was_running) ForgetLeavers();
}

void Core::Wake(Ticket ticket) {
  Sequence* s = FindSequence(ticket);
  assert(s != nullptr);
  if (s->in_step()) s->at_commit = Sequence::AtCommit::kStay;
  if (s->phase != Sequence::Phase::kParked) return;
  LeaveParked(*s);
  Enqueue(*s);
}

void Core::Finish(Ticket ticket, const absl::Status& status) {
  Sequence* s = FindSequence(ticket);
  if (s == nullptr) return;
  const bool leaves_now = s->phase == Sequence::Phase::kRunning && !s->in_step();
  Leave(*s, status.ok());
  if (leaves_now) ForgetLeavers();
  if (!under_way_) departed_.clear();
}

std::span<const int32_t> Core::tokens(Ticket ticket) const {
  const Sequence* s = FindSequence(ticket);
  assert(s != nullptr);
  return std::span<const int32_t>(s->tokens).first(s->n_known);
}

std::span<const int32_t> Core::blocks(Ticket ticket) const {
  const Sequence* s = FindSequence(ticket);
  assert(s != nullptr);
  return s->blocks;
}

int Core::n_cached_tokens(Ticket ticket) const {
  const Sequence* s = FindSequence(ticket);
  assert(s != nullptr);
  return s->n_cached;
}

void Core::Enqueue(Sequence& s) {
  s.phase = Sequence::Phase::kWaiting;
  Sequence* next = nullptr;
  // Newcomers go to the end, who comes back near the front.
  if (waiting_.last != nullptr && s.Before(*waiting_.last)) {
    for (next = waiting_.first; next->Before(s);) next = next->next;
  }
  LinkBefore<&Sequence::prev, &Sequence::next>(waiting_, next, s);
  ++n_waiting_;
  n_waiting_tokens_ += s.n_known;
}

void Core::Dequeue(Sequence& s) {
  UnlinkFrom<&Sequence::prev, &Sequence::next>(waiting_, s);
  --n_waiting_;
  n_waiting_tokens_ -= s.n_known;
}

void Core::EnterParked(Sequence& s) {
  s.phase = Sequence::Phase::kParked;
  ForgetRowsFrom(s, s.n_complete);
  LinkBefore<&Sequence::prev, &Sequence::next>(parked_, static_cast<Sequence*>(nullptr), s);
  ++n_parked_;
  BecomeIdleHolder(s);
}

void Core::LeaveParked(Sequence& s) {
  UnlinkFrom<&Sequence::prev, &Sequence::next>(parked_, s);
  --n_parked_;
}

void Core::BecomeIdleHolder(Sequence& s) {
  if (s.is_idle_holder || s.blocks.empty()) return;
  s.is_idle_holder = true;
  for (const int32_t block : s.blocks) pool_.SetIdle(block);
  LinkBefore<&Sequence::idle_prev, &Sequence::idle_next>(idle_holders_, static_cast<Sequence*>(nullptr), s);
}

void Core::LeaveIdleHolders(Sequence& s) {
  if (!s.is_idle_holder) return;
  s.is_idle_holder = false;
  if (spared_ == &s) {
    spared_ = nullptr;
  } else {
    for (const int32_t block : s.blocks) pool_.SetBusy(block);
  }
  UnlinkFrom<&Sequence::idle_prev, &Sequence::idle_next>(idle_holders_, s);
}

void Core::ForgetLeavers() {
  std::erase_if(running_, [](const Sequence* s) { return s->phase != Sequence::Phase::kRunning; });
}

// From the end, so that what is cached of a prefix outlives what follows it.
void Core::DropBlocks(Sequence& s, int n_kept) {
  while (static_cast<int>(s.blocks.size()) > n_kept) {
    pool_.Drop(s.blocks.back());
    s.blocks.pop_back();
  }
  s.n_sealed = std::min(s.n_sealed, n_kept);
}

void Core::ForgetRowsFrom(Sequence& s, int n_rows) {
  s.n_begun = std::min(s.n_begun, n_rows);
  s.n_complete = std::min(s.n_complete, n_rows);
  DropBlocks(s, BlocksFor(s.n_begun));
}

void Core::Leave(Sequence& s, bool served) {
  const bool was_running = s.phase == Sequence::Phase::kRunning;
  if (s.phase == Sequence::Phase::kWaiting) Dequeue(s);
  if (s.phase == Sequence::Phase::kParked) LeaveParked(s);
  LeaveIdleHolders(s);
  if (served && s.started != SteadyTime::InfiniteFuture()) {
    const double seconds = absl::ToDoubleSeconds(now_ - s.started);
    service_s_ = Smoothed(service_s_, seconds);
  }
  // The model is writing into its blocks while its step is under way.
  if (s.in_step()) {
    s.at_commit = Sequence::AtCommit::kGo;
  } else {
    s.phase = Sequence::Phase::kGone;
    DropBlocks(s);
  }
  const auto at = sequences_.find(s.ticket);
  // running_ still has it.
  if (was_running) departed_.push_back(std::move(at->second));
  sequences_.erase(at);
}

void Core::End(Sequence& s, absl::Status status, std::vector<Event>* events) {
  events->push_back({.kind = Event::Kind::kEnded, .ticket = s.ticket, .status = std::move(status)});
  Leave(s, events->back().status.ok());
}

// A sequence has a deadline and an end of parking at most; of the times in the heap, those of ends that were moved and
// of sequences that are gone mean nothing. When the heap is full of them it is made anew, so that Park never allocates.
void Core::Watch(Ticket ticket, SteadyTime time) {
  if (time == SteadyTime::InfiniteFuture()) return;
  if (times_.size() == times_.capacity()) {
    times_.clear();
    for (const auto& [other, s] : sequences_) {
      if (s->deadline != SteadyTime::InfiniteFuture()) times_.push_back({s->deadline, other});
      const bool is_parked = s->phase == Sequence::Phase::kParked || s->at_commit == Sequence::AtCommit::kPark;
      if (is_parked && s->parked_until != SteadyTime::InfiniteFuture() && other != ticket) {
        times_.push_back({s->parked_until, other});
      }
    }
    std::make_heap(times_.begin(), times_.end());
  }
  times_.push_back({time, ticket});
  std::push_heap(times_.begin(), times_.end());
}

LoadReport Core::load() const {
  LoadReport report;
  report.running_requests = n_running();
  report.queued_requests = n_waiting_;
  int64_t n_queued_tokens = n_waiting_tokens_;
  for (const Sequence* s : running_) {
    report.running_tokens += s->n_complete;
    n_queued_tokens += s->n_known - s->n_complete;
  }
  report.queued_tokens = static_cast<int>(std::min<int64_t>(n_queued_tokens, std::numeric_limits<int>::max()));
  report.kv_used_fraction = static_cast<double>(pool_.n_held()) / pool_.n_blocks();
  report.decode_tokens_per_s = decode_step_s_ > 0.0 ? 1.0 / decode_step_s_ : 0.0;
  report.prefill_tokens_per_s = prefill_step_s_ > 0.0 ? prefill_rows_ / prefill_step_s_ : 0.0;
  // What is ahead has to be processed; where all places are taken, those who wait also have to wait for places, which
  // come free at the rate (running sequences) / (time that a sequence takes).
  double wait_s = rows_per_s_ > 0.0 ? report.queued_tokens / rows_per_s_ : 0.0;
  if (n_waiting_ > 0 || report.running_requests >= options_.max_running) {
    wait_s += service_s_ * (report.queued_requests + 1) / std::max(1, report.running_requests);
  }
  report.predicted_wait_ms = 1e3 * wait_s;
  return report;
}

}  // namespace updraft::engine
