// What came of a step.
#include <algorithm>
#include <cassert>
#include <utility>

#include "common/engine/core.h"
#include "common/engine/sequence.h"

namespace updraft::engine {

void Core::Commit(uint64_t step, const StepResult& result, SteadyTime now, std::vector<Event>* events) {
  assert(under_way_ && step == work_.step);
  under_way_ = false;
  now_ = now;
  UpdateRates(now - begun_at_);
  if (result.status.ok()) UpdatePace(now);
  size_t first_sampled = 0;
  bool has_leavers = false;
  for (size_t i = 0; i < rows_.size(); ++i) {
    const RowRun& run = rows_[i];
    Sequence& s = *row_sequences_[i];
    const Sequence::AtCommit wish = std::exchange(s.at_commit, Sequence::AtCommit::kNotInStep);
    const size_t first = first_sampled;
    first_sampled += run.n_sampled;
    if (wish == Sequence::AtCommit::kGo) {  // its ticket is gone already
      s.phase = Sequence::Phase::kGone;
      DropBlocks(s);
      has_leavers = true;
      continue;
    }
    if (!result.status.ok()) {
      // The KV of every sequence in the step is in doubt.
      End(s, result.status, events);
      has_leavers = true;
      continue;
    }
    const int n_done = result.n_complete.empty() ? run.n_rows : std::clamp(result.n_complete[i], 0, run.n_rows);
    s.n_complete = run.first + n_done;
    Event event{.kind = Event::Kind::kTokens, .ticket = s.ticket, .first_sampled = static_cast<int>(first)};
    event.n_tokens = Advance(s, result.sampled.subspan(first, run.n_sampled), &event);
    if (prefixes_ != nullptr) SealCompleted(s);
    if (event.n_tokens > 0) events->push_back(std::move(event));
    if (s.n_known >= s.n_total_max) {
      End(s, absl::OkStatus(), events);
    } else if (wish == Sequence::AtCommit::kPark) {
      EnterParked(s);
    }
    has_leavers |= s.phase != Sequence::Phase::kRunning;
  }
  if (has_leavers) ForgetLeavers();
  departed_.clear();
  committed_at_ = n_running() > 0 ? now : SteadyTime::InfiniteFuture();
  if (!result.status.ok() && result.kv_lost) LoseAllKv(events);
}

// Nobody has rows in a step now: who waits, is parked or had no row keeps its tokens and place, and no block.
void Core::LoseAllKv(std::vector<Event>* events) {
  for (Sequence* s : running_) LoseBlocks(*s, events);
  while (EvictIdle(nullptr, events)) {
  }
  pool_.ForgetAllEvictable();
}

// Takes the chosen tokens over as long as each belongs to what is known by then; how many those are.
int Core::Advance(Sequence& s, std::span<const int32_t> chosen, Event* event) {
  const int n_drafts = s.n_tokens() - s.n_known;
  int n_new = 0;
  bool stands = true;
  for (const int32_t token : chosen) {
    if (token == kNoToken || !stands) break;
    ++n_new;
    stands = Learn(s, token);
    event->n_accepted += stands;
  }
  // What was begun on drafts that were refuted is void.
  if (!stands) ForgetRowsFrom(s, s.n_known - 1);
  // The row of the last known token has yet to choose, so it is not done with, whatever its KV.
  s.n_complete = std::min(s.n_complete, s.n_known - 1);
  stats_.n_chosen += n_new;
  stats_.n_drafts_accepted += event->n_accepted;
  stats_.n_drafts_rejected += n_drafts - event->n_accepted - (s.n_tokens() - s.n_known);
  return n_new;
}

// The next token is known. True: it was a draft, and what comes after it stands; false: all drafts are gone.
bool Core::Learn(Sequence& s, int32_t token) {
  const bool was_draft = s.n_known < s.n_tokens() && s.tokens[s.n_known] == token;
  if (!was_draft) {
    s.tokens.resize(s.n_known);
    s.tokens.push_back(token);
  }
  ++s.n_known;
  return was_draft;
}

// A step that failed says nothing of what rows cost.
void Core::UpdatePace(SteadyTime now) {
  const absl::Duration time = now - std::min(begun_at_, committed_at_);
  if (time > absl::ZeroDuration()) pacer_.OnStep(n_decode_rows_, work_.n_rows - n_decode_rows_, time);
}

void Core::UpdateRates(absl::Duration step_time) {
  const double seconds = absl::ToDoubleSeconds(step_time);
  if (seconds <= 0.0) return;
  rows_per_s_ = Smoothed(rows_per_s_, work_.n_rows / seconds);
  if (n_decode_rows_ > 0) decode_step_s_ = Smoothed(decode_step_s_, seconds);
  if (!has_prefill_rows_) return;
  prefill_rows_ = Smoothed(prefill_rows_, work_.n_rows);
  prefill_step_s_ = Smoothed(prefill_step_s_, seconds);
}

}  // namespace updraft::engine
