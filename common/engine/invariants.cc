// What is true of a core at any time.
#include <algorithm>
#include <vector>

#include "absl/strings/str_format.h"
#include "common/engine/core.h"
#include "common/engine/sequence.h"

namespace updraft::engine {
namespace {

absl::Status Broken(Ticket ticket, const char* what) {
  return absl::InternalError(absl::StrFormat("core: sequence %d: %s", ticket, what));
}

}  // namespace

absl::Status Core::CheckSequence(const Sequence& s) const {
  const int n_blocks = static_cast<int>(s.blocks.size()), block_tokens = options_.block_tokens;
  if (s.n_known < s.n_start || s.n_known >= s.n_total_max) return Broken(s.ticket, "knows too few or too many tokens");
  if (s.n_tokens() < s.n_known || s.n_tokens() >= s.n_total_max) return Broken(s.ticket, "has too many drafts");
  if (s.n_complete > s.n_begun || s.n_begun > s.n_tokens() || s.n_complete >= s.n_known) {
    return Broken(s.ticket, "complete <= begun <= tokens, complete < known does not hold");
  }
  if (n_blocks != BlocksFor(s.n_begun)) return Broken(s.ticket, "its blocks are not those of its begun rows");
  if (s.n_sealed * block_tokens > s.n_complete + 1) return Broken(s.ticket, "a block that is not complete is sealed");
  for (int i = 0; i < n_blocks; ++i) {
    if (pool_.sealed(s.blocks[i]) != (i < s.n_sealed)) return Broken(s.ticket, "n_sealed is wrong");
    if (i >= s.n_sealed && pool_.count(s.blocks[i]) != 1) return Broken(s.ticket, "an unfinished block is shared");
  }
  for (int i = s.n_complete / block_tokens; s.in_step() && i < n_blocks; ++i) {
    if (pool_.read_only(s.blocks[i])) return Broken(s.ticket, "a step writes into a block that is read-only");
  }
  if (s.in_step() && (!under_way_ || s.phase != Sequence::Phase::kRunning))
    return Broken(s.ticket, "no step, yet in one");
  if (s.phase == Sequence::Phase::kRunning ? s.is_idle_holder : s.is_idle_holder == s.blocks.empty()) {
    return Broken(s.ticket, "idle holders are those who wait or are parked and have blocks");
  }
  if (s.phase != Sequence::Phase::kRunning && s.n_begun != s.n_complete) {
    return Broken(s.ticket, "has half-run rows while it does not run");
  }
  return absl::OkStatus();
}

absl::Status Core::CheckLists() const {
  int n_waiting = 0, n_parked = 0, n_idle_holders = 0;
  int64_t n_waiting_tokens = 0;
  for (const Sequence* s = waiting_.first; s != nullptr; s = s->next) {
    ++n_waiting;
    n_waiting_tokens += s->n_known;
    if (s->phase != Sequence::Phase::kWaiting) return Broken(s->ticket, "waits in the wrong phase");
    if (s->next != nullptr ? !s->Before(*s->next) : s != waiting_.last) return Broken(s->ticket, "waits out of order");
  }
  for (const Sequence* s = parked_.first; s != nullptr; s = s->next) {
    ++n_parked;
    if (s->phase != Sequence::Phase::kParked) return Broken(s->ticket, "is parked in the wrong phase");
  }
  for (const Sequence* s = idle_holders_.first; s != nullptr; s = s->idle_next) ++n_idle_holders;
  int n_with_blocks = 0, n_ours = 0;
  for (const auto& [ticket, s] : sequences_) {
    if (s->ticket != ticket) return Broken(ticket, "is not filed under its ticket");
    n_ours += s->phase == Sequence::Phase::kRunning;
    n_with_blocks += s->phase != Sequence::Phase::kRunning && !s->blocks.empty();
  }
  if (n_waiting != n_waiting_ || n_parked != n_parked_ || n_waiting_tokens != n_waiting_tokens_ ||
      n_idle_holders != n_with_blocks) {
    return absl::InternalError("core: the lists have other lengths than they say");
  }
  int n_leaving = 0;
  for (size_t i = 0; i < running_.size(); ++i) {
    const Sequence& s = *running_[i];
    if (s.phase != Sequence::Phase::kRunning) return Broken(s.ticket, "runs in the wrong phase");
    if (i > 0 && !running_[i - 1]->Before(s)) return Broken(s.ticket, "runs out of order");
    n_leaving += s.at_commit == Sequence::AtCommit::kGo;
  }
  if (n_running() > options_.max_running || n_ours + n_leaving != n_running() ||
      n_ours + n_waiting + n_parked != static_cast<int>(sequences_.size())) {
    return absl::InternalError("core: a sequence is in no list, or in two, or too many run");
  }
  if (!under_way_ && !departed_.empty()) return absl::InternalError("core: somebody who left is still here");
  return absl::OkStatus();
}

// Times that mean nothing any more may stand beside those that count.
absl::Status Core::CheckTimes() const {
  if (!std::is_heap(times_.begin(), times_.end())) return absl::InternalError("core: the times are no heap");
  std::vector<Time> sorted = times_;
  std::sort(sorted.begin(), sorted.end());
  const auto is_watched = [&](SteadyTime time, Ticket ticket) {
    return time == SteadyTime::InfiniteFuture() ||
           std::binary_search(sorted.begin(), sorted.end(), Time{.time = time, .ticket = ticket});
  };
  for (const auto& [ticket, s] : sequences_) {
    if (!is_watched(s->deadline, ticket)) return Broken(ticket, "its deadline is not watched");
    const bool will_wake = s->phase == Sequence::Phase::kParked || s->at_commit == Sequence::AtCommit::kPark;
    if (will_wake && !is_watched(s->parked_until, ticket)) return Broken(ticket, "nobody watches when it wakes");
  }
  return absl::OkStatus();
}

absl::Status Core::CheckBlocks() const {
  std::vector<int> n_holders(options_.n_blocks, 0), n_idle(options_.n_blocks, 0);
  bool has_spared = spared_ == nullptr;
  for (const auto& [ticket, s] : sequences_) {
    for (const int32_t block : s->blocks) {
      ++n_holders[block];
      n_idle[block] += s->is_idle_holder && s.get() != spared_;
    }
    has_spared |= s->is_idle_holder && s.get() == spared_;
  }
  if (!has_spared) return absl::InternalError("core: who is spared holds no blocks idly");
  for (const auto& s : departed_) {
    for (const int32_t block : s->blocks) ++n_holders[block];
  }
  for (int block = 0; block < options_.n_blocks; ++block) {
    if (n_holders[block] != pool_.count(block) || n_idle[block] != pool_.n_idle(block)) {
      return absl::InternalError(
          absl::StrFormat("core: block %d is in %d tables, %d of them idle ones; its counts are %d and %d", block,
                          n_holders[block], n_idle[block], pool_.count(block), pool_.n_idle(block)));
    }
  }
  return absl::OkStatus();
}

absl::Status Core::CheckInvariants() const {
  if (absl::Status status = pool_.CheckInvariants(); !status.ok()) return status;
  if (absl::Status status = CheckLists(); !status.ok()) return status;
  if (absl::Status status = CheckTimes(); !status.ok()) return status;
  for (const auto& [ticket, s] : sequences_) {
    if (absl::Status status = CheckSequence(*s); !status.ok()) return status;
  }
  return CheckBlocks();
}

}  // namespace updraft::engine
