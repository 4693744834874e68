#include "cloud/engine/scheduler.h"

#include <algorithm>

namespace updraft::engine {

// One plan in the making.
class Scheduler::Planner {
 public:
  Planner(const SchedulerOptions& options, const SchedulerState& state)
      : options_(options), state_(state), free_(state.n_free_blocks) {}

  Plan Run() {
    DropExpired();
    GiveRowsToRunning();
    // Blocks were short a moment ago: admitting now would preempt again.
    if (plan_.preempted.empty()) AdmitWaiting();
    return std::move(plan_);
  }

 private:
  int BlocksFor(int n_tokens) const { return (n_tokens + state_.block_tokens - 1) / state_.block_tokens; }

  void DropExpired() {
    for (const SequenceView& sequence : state_.running) {
      if (sequence.deadline <= state_.now) {
        plan_.expired.push_back(sequence.ticket);
        free_ += sequence.n_releasable;
      } else {
        running_.push_back(&sequence);
      }
    }
    for (const SequenceView& sequence : state_.waiting) {
      if (sequence.deadline <= state_.now) {
        plan_.expired.push_back(sequence.ticket);
      } else {
        waiting_.push_back(&sequence);
      }
    }
  }

  // Oldest first. Victims are taken from the young end, where no rows have been planned yet.
  void GiveRowsToRunning() {
    const auto n_decoding = std::count_if(running_.begin(), running_.end(),
                                          [](const SequenceView* s) { return s->n_tokens - s->n_computed == 1; });
    prefill_budget_ = std::max(0, options_.max_step_tokens - static_cast<int>(n_decoding));
    for (size_t i = 0; i < running_.size(); ++i) {
      const SequenceView& sequence = *running_[i];
      const int remaining = sequence.n_tokens - sequence.n_computed;
      const int wanted = remaining == 1 ? 1 : std::min(remaining, prefill_budget_);
      int n_rows = 0;
      if (wanted > 0) {
        while (RoomFor(sequence) == 0 && running_.size() > i + 1) PreemptYoungest();
        n_rows = std::min(wanted, RoomFor(sequence));
      }
      if (n_rows > 0) PlanRows(sequence, n_rows, /*is_prefill=*/remaining > 1);
      // Blocks that it will need for the rest of what it knows already are not there for newcomers.
      const int n_blocks = std::max(sequence.n_blocks, BlocksFor(sequence.n_computed + n_rows));
      promised_ += std::max(0, BlocksFor(sequence.n_tokens) - n_blocks);
    }
  }

  // Rows that its own last block and the free ones can take.
  int RoomFor(const SequenceView& sequence) const {
    return (sequence.n_blocks + free_) * state_.block_tokens - sequence.n_computed;
  }

  void PreemptYoungest() {
    plan_.preempted.push_back(running_.back()->ticket);
    free_ += running_.back()->n_releasable;
    running_.pop_back();
  }

  void PlanRows(const SequenceView& sequence, int n_rows, bool is_prefill) {
    plan_.rows.push_back({sequence.ticket, n_rows});
    free_ -= std::max(0, BlocksFor(sequence.n_computed + n_rows) - sequence.n_blocks);
    if (is_prefill) prefill_budget_ -= n_rows;
  }

  // A newcomer needs room for all it knows, plus one block of headroom for everyone who is running: without it, the
  // next few decoded tokens would preempt it and its prefill would be lost.
  void AdmitWaiting() {
    int n_running = static_cast<int>(running_.size());
    for (const SequenceView* sequence : waiting_) {
      if (n_running >= options_.max_running || prefill_budget_ <= 0) return;
      const int n_blocks = BlocksFor(sequence->n_tokens);
      if (n_blocks > free_ - promised_ - n_running) return;
      plan_.admitted.push_back(sequence->ticket);
      const int n_rows = std::min(sequence->n_tokens, prefill_budget_);
      plan_.rows.push_back({sequence->ticket, n_rows});
      prefill_budget_ -= n_rows;
      free_ -= BlocksFor(n_rows);
      promised_ += n_blocks - BlocksFor(n_rows);
      ++n_running;
    }
  }

  const SchedulerOptions& options_;
  const SchedulerState& state_;
  Plan plan_;
  std::vector<const SequenceView*> running_, waiting_;
  int free_;                // blocks, as they will be when the plan has been carried out so far
  int promised_ = 0;        // blocks that running sequences need to finish their prefill
  int prefill_budget_ = 0;  // rows
};

Plan Scheduler::Next(const SchedulerState& state) const { return Planner(options_, state).Run(); }

}  // namespace updraft::engine
