// What the next step runs.
#include <algorithm>
#include <cassert>
#include <utility>

#include "common/engine/core.h"
#include "common/engine/sequence.h"

namespace updraft::engine {

const Work* Core::Begin(SteadyTime now, std::vector<Event>* events) {
  assert(!under_way_);
  now_ = now;
  n_preempted_ = 0;
  n_decode_rows_ = 0;
  has_prefill_rows_ = false;
  rows_.clear();
  row_sequences_.clear();
  moves_.clear();
  if (now >= next_time()) ExpireAndWake(now, events);
  PlanRunning(events);
  // Blocks were short a moment ago: admitting now would preempt again.
  if (n_preempted_ == 0) {
    AdmitWaiting(now, events);
    PlanDrafts();
  }
  if (rows_.empty()) return nullptr;

  work_.step = static_cast<uint64_t>(++stats_.n_steps);
  work_.moves = moves_;
  work_.rows = rows_;
  work_.n_rows = 0;
  int n_begun = 0;
  for (const RowRun& run : rows_) {
    work_.n_rows += run.n_rows;
    n_begun += run.n_rows - run.n_continued;
  }
  stats_.n_rows += n_begun;
  stats_.max_rows_in_step = std::max(stats_.max_rows_in_step, n_begun);
  stats_.max_running = std::max(stats_.max_running, n_running());
  under_way_ = true;
  begun_at_ = now;
  return &work_;
}

// Looks at those whose time has come; a time that means nothing any more is dropped on the way.
void Core::ExpireAndWake(SteadyTime now, std::vector<Event>* events) {
  bool has_leavers = false;
  while (!times_.empty() && times_.front().time <= now) {
    const Ticket ticket = times_.front().ticket;
    std::pop_heap(times_.begin(), times_.end());
    times_.pop_back();
    Sequence* s = FindSequence(ticket);
    if (s == nullptr) continue;
    if (s->deadline <= now) {
      const bool was_queued = s->phase == Sequence::Phase::kWaiting && s->started == SteadyTime::InfiniteFuture();
      has_leavers |= s->phase == Sequence::Phase::kRunning;
      End(*s, was_queued ? expired_in_queue_ : expired_, events);
    } else if (s->phase == Sequence::Phase::kParked && s->parked_until <= now) {
      LeaveParked(*s);
      Enqueue(*s);
    }
  }
  if (has_leavers) ForgetLeavers();
  departed_.clear();
}

// Known tokens alone, in order. Victims are taken from the end, where no rows have been planned yet.
void Core::PlanRunning(std::vector<Event>* events) {
  const auto n_decoding = std::count_if(running_.begin(), running_.end(), [](Sequence* s) { return s->n_owed() <= 1; });
  budget_ = std::max(0, options_.max_step_tokens - static_cast<int>(n_decoding));
  // Who reads an answer that is there waits for no next token.
  const bool somebody_waits = std::any_of(running_.begin(), running_.end(), [this](Sequence* s) {
    return s->n_owed() <= 1 && s->n_tokens() - s->n_known < options_.block_tokens;
  });
  if (somebody_waits) budget_ = std::min(budget_, pacer_.PromptRows());
  n_draft_blocks_ = 0;
  bool has_drafts = true;  // that may have blocks
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& s = *running_[i];
    const int n_owed = s.n_owed();
    const int n_free_rows = n_owed == 1 ? 1 : 0;  // kept for it above; one whose choice is open continues with old rows
    const int n_wanted = std::min(n_owed, n_free_rows + budget_);
    int n_new = 0;
    if (n_wanted > 0) {
      if (RowRoom(s) < n_wanted && std::exchange(has_drafts, false)) TakeBackDrafts();
      while (RowRoom(s) < n_wanted && EvictIdle(nullptr, events)) {
      }
      while (RowRoom(s) <= 0 && running_.size() > i + 1) PreemptLast(events);
      n_new = std::clamp(RowRoom(s), 0, n_wanted);
    }
    if (n_new > 0 || n_owed <= 0) PlanRows(s, n_new);
    budget_ -= std::max(0, n_new - n_free_rows);
    n_draft_blocks_ += std::max(0, static_cast<int>(s.blocks.size()) - BlocksFor(s.n_known));
  }
}

// Drafts that an earlier step left half-run keep their blocks only as long as nobody needs them for a token it knows.
void Core::TakeBackDrafts() {
  for (Sequence* s : running_) {
    if (static_cast<int>(s->blocks.size()) > BlocksFor(s->n_known)) ForgetRowsFrom(*s, s->n_known);
  }
  for (size_t i = 0; i < rows_.size(); ++i) {  // of these, some are planned
    if (rows_[i].first + rows_[i].n_rows > row_sequences_[i]->n_begun) SetRows(i, rows_[i].n_continued);
  }
  n_draft_blocks_ = 0;
}

// What the known tokens of all have left, after newcomers: rows of the budget; blocks beyond one for each who runs, so
// that a draft that is confirmed preempts nobody soon. Cached blocks count as left: in a pool that has served for a
// while nearly all blocks are cached, and drafts would get none. What wrong drafts cost the cache is bounded by what
// drafts hold at once, since their blocks are free afterwards and free ones go first.
void Core::PlanDrafts() {
  for (size_t i = 0; i < rows_.size() && budget_ > 0; ++i) {
    Sequence& s = *row_sequences_[i];
    if (s.n_begun < s.n_known || s.n_ready() <= 0) continue;
    const int n_blocks_left = std::max(0, pool_.n_available() - n_running());
    const int n_room = (static_cast<int>(s.blocks.size()) + n_blocks_left) * options_.block_tokens - s.n_begun;
    const int n_new = std::min({s.n_ready(), budget_, n_room});
    if (n_new <= 0) continue;
    TakeBlocks(s, s.n_begun + n_new);
    has_prefill_rows_ |= n_new >= options_.block_tokens;
    s.n_begun += n_new;
    budget_ -= n_new;
    SetRows(i, rows_[i].n_continued);
  }
}

// Rows that its own blocks and the available ones can take.
int Core::RowRoom(const Sequence& s) const {
  const int n_blocks = static_cast<int>(s.blocks.size()) + pool_.n_available() - (NeedsCopy(s) ? 1 : 0);
  return n_blocks * options_.block_tokens - s.n_begun;
}

// Whether its next row falls into a block that others hold, too: the last of an adopted prefix.
bool Core::NeedsCopy(const Sequence& s) const {
  const size_t index = static_cast<size_t>(s.n_begun / options_.block_tokens);
  return index < s.blocks.size() && pool_.count(s.blocks[index]) > 1;
}

void Core::MakeWritable(Sequence& s) {
  const size_t index = static_cast<size_t>(s.n_begun / options_.block_tokens);
  if (index >= s.blocks.size() || !pool_.read_only(s.blocks[index])) return;
  int32_t& block = s.blocks[index];
  if (pool_.count(block) == 1) {
    pool_.Unseal(block);
  } else {
    const int32_t copy = pool_.Take();
    moves_.push_back({.from = block, .to = copy});
    pool_.Drop(block);
    block = copy;
  }
  s.n_sealed = std::min(s.n_sealed, static_cast<int>(index));
}

void Core::TakeBlocks(Sequence& s, int n_rows) {
  for (int n = BlocksFor(n_rows) - static_cast<int>(s.blocks.size()); n > 0; --n) s.blocks.push_back(pool_.Take());
}

// REQUIRES: n_new <= RowRoom(s).
void Core::PlanRows(Sequence& s, int n_new) {
  const int n_continued = s.n_begun - s.n_complete;
  if (n_new > 0) {
    MakeWritable(s);
    TakeBlocks(s, s.n_begun + n_new);
  }
  // One with a block of drafts or more reads an answer that is there already: at the rate of a prompt.
  const bool reads = s.n_tokens() - s.n_known >= options_.block_tokens;
  n_decode_rows_ += n_new == 1 && s.n_known > s.n_start && !reads ? 1 : 0;
  has_prefill_rows_ |= n_new > 1;
  s.n_begun += n_new;
  s.at_commit = Sequence::AtCommit::kStay;
  rows_.emplace_back();
  row_sequences_.push_back(&s);
  SetRows(rows_.size() - 1, n_continued);
}

// Run i is all that its sequence has begun and not completed.
void Core::SetRows(size_t i, int n_continued) {
  const Sequence& s = *row_sequences_[i];
  const int n_rows = s.n_begun - s.n_complete;
  rows_[i] = {.ticket = s.ticket,
              .first = s.n_complete,
              .n_rows = n_rows,
              .n_continued = std::min(n_continued, n_rows),
              .n_sampled = std::max(0, s.n_begun - s.n_known + 1),
              .tokens = std::span<const int32_t>(s.tokens.data(), s.n_begun),
              .blocks = s.blocks};
}

void Core::PreemptLast(std::vector<Event>* events) {
  Sequence& s = *running_.back();
  running_.pop_back();
  s.n_begun = s.n_complete = 0;
  DropBlocks(s);
  Enqueue(s);
  ++n_preempted_;
  ++stats_.n_preemptions;
  events->push_back({.kind = Event::Kind::kPreempted, .ticket = s.ticket});
}

bool Core::EvictIdle(const Sequence* spared, std::vector<Event>* events) {
  Sequence* s = idle_holders_.first;
  if (s != nullptr && s == spared) s = s->idle_next;
  if (s == nullptr) return false;
  if (s->n_adopted > 0) {
    GiveUpAdopted(*s);
  } else {
    LeaveIdleHolders(*s);
    LoseBlocks(*s, events);
  }
  return true;
}

// One that has only adopted blocks, and not run with them, gives them up one by one, the last first, so that the rest
// need not be adopted again. Nobody is told: it had nothing of its own.
void Core::GiveUpAdopted(Sequence& s) {
  const int n_before = pool_.n_available();
  while (!s.blocks.empty() && pool_.n_available() == n_before) {
    if (&s != spared_) pool_.SetBusy(s.blocks.back());
    DropBlocks(s, static_cast<int>(s.blocks.size()) - 1);
  }
  s.n_begun = s.n_complete = s.n_adopted = static_cast<int>(s.blocks.size()) * options_.block_tokens;
  if (s.blocks.empty()) LeaveIdleHolders(s);
}

void Core::LoseBlocks(Sequence& s, std::vector<Event>* events) {
  s.n_begun = s.n_complete = 0;
  if (s.blocks.empty()) return;
  DropBlocks(s);
  ++stats_.n_evictions;
  events->push_back({.kind = Event::Kind::kEvicted, .ticket = s.ticket});
}

// Whoever runs and could not begin all that it knows has used up the budget or the blocks, so that nothing is promised
// twice here.
void Core::AdmitWaiting(SteadyTime now, std::vector<Event>* events) {
  while (waiting_.first != nullptr && n_running() < options_.max_running && budget_ > 0) {
    Sequence& s = *waiting_.first;
    if (prefixes_ != nullptr && s.blocks.empty()) AdoptPrefix(s);
    if (!MakeRoomForHead(s, events)) return;
    Start(s, now, events);
    const int n_new = std::min({s.n_owed(), budget_, RowRoom(s)});
    PlanRows(s, n_new);
    budget_ -= n_new;
  }
}

// A newcomer needs room for all it knows, plus one block of headroom for everyone who is running: without it, the next
// few decoded tokens would preempt it and its prefill would be lost. Half-run drafts give their blocks back first, then
// idle holders lose theirs; nobody does where all of it would not suffice.
bool Core::MakeRoomForHead(Sequence& s, std::vector<Event>* events) {
  const auto n_short = [&] {
    const int n_needed = BlocksFor(s.n_known) - static_cast<int>(s.blocks.size()) + (NeedsCopy(s) ? 1 : 0);
    return n_needed - (pool_.n_available() - n_running());
  };
  if (n_short() <= 0) return true;
  Spare(s);
  if (n_short() > n_draft_blocks_ + NumReclaimable(s)) return false;
  TakeBackDrafts();
  while (n_short() > 0) {
    if (!EvictIdle(&s, events)) return false;
  }
  return true;
}

// From now on the pool counts what could be had of all idle holders but this one.
void Core::Spare(Sequence& head) {
  Sequence* const spared = head.is_idle_holder ? &head : nullptr;
  if (spared == spared_) return;
  if (spared_ != nullptr) {
    for (const int32_t block : spared_->blocks) pool_.SetIdle(block);
  }
  if (spared != nullptr) {
    for (const int32_t block : spared->blocks) pool_.SetBusy(block);
  }
  spared_ = spared;
}

// Blocks that taking all idle holders' would bring the head, which is spared.
int Core::NumReclaimable(const Sequence& head) const {
  // One that it shares with them alone, and would copy, is its own then.
  int n_uncopied = 0;
  if (NeedsCopy(head)) {
    const int32_t copied = head.blocks[head.n_begun / options_.block_tokens];
    n_uncopied = pool_.n_idle(copied) == pool_.count(copied) - 1 ? 1 : 0;
  }
  return pool_.n_reclaimable() + n_uncopied;
}

void Core::Start(Sequence& s, SteadyTime now, std::vector<Event>* events) {
  LeaveIdleHolders(s);
  Dequeue(s);
  s.phase = Sequence::Phase::kRunning;
  running_.insert(std::upper_bound(running_.begin(), running_.end(), &s,
                                   [](const Sequence* a, const Sequence* b) { return a->Before(*b); }),
                  &s);
  s.n_cached = std::exchange(s.n_adopted, 0);
  stats_.n_started_tokens += s.n_known;
  stats_.n_cached_tokens += s.n_cached;
  if (s.started != SteadyTime::InfiniteFuture()) return;
  s.started = now;
  events->push_back({.kind = Event::Kind::kStarted, .ticket = s.ticket});
}

}  // namespace updraft::engine
