// A core, a fake model, a fake clock, and a slow observer that follows what the core says it does and checks each rule
// of the engine's contract that speaks of plans and ends. Random and exhaustive tests drive it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/common/engine/fake_model.h"

namespace updraft::engine {

class History {
 public:
  static constexpr int kVocab = 4;  // few, so that drafts drawn at random are right now and then

  explicit History(const CoreOptions& options) : options_(options), core_(options), model_(options, kVocab) {}

  struct Case {
    SequenceSpec spec;
    std::vector<int32_t> alone;  // the whole sequence
    SteadyTime arrival;
    int64_t n_earlier = 0;
    std::vector<int32_t> tokens;  // what the core has told of
    enum class At { kWaiting, kRunning, kParked, kEnded } at = At::kWaiting;
    int n_begun = 0;  // as far as its rows tell
    absl::Status status = {};
  };

  Core& core() { return core_; }
  FakeModel& model() { return model_; }
  const std::map<Ticket, Case>& cases() const { return cases_; }
  SteadyTime now() const { return now_; }
  bool under_way() const { return work_ != nullptr; }
  int64_t n_events() const { return n_events_; }
  void Advance(absl::Duration by) { now_ = now_ + by; }

  std::vector<Ticket> Alive() const {
    std::vector<Ticket> alive;
    for (const auto& [ticket, c] : cases_) {
      if (c.at != Case::At::kEnded) alive.push_back(ticket);
    }
    return alive;
  }

  // False: it can never be served.
  bool Admit(Ticket ticket, SequenceSpec spec) {
    if (!core_.Check(spec).ok()) return false;
    cases_[ticket] = {.spec = spec,
                      .alone = SequenceAlone(spec, kVocab),
                      .arrival = now_,
                      .n_earlier = static_cast<int64_t>(cases_.size()),
                      .tokens = spec.tokens};
    core_.Admit(ticket, std::move(spec), now_);
    Check();
    return true;
  }
  void Grow(Ticket ticket, std::span<const int32_t> drafts) {
    core_.Grow(ticket, drafts);
    Check();
  }
  void Park(Ticket ticket, SteadyTime until) {
    core_.Park(ticket, until);
    wants_[ticket] = until;
    // While its step is under way it is parked by Commit.
    const bool in_step = work_ != nullptr && std::any_of(work_->rows.begin(), work_->rows.end(),
                                                         [&](const RowRun& run) { return run.ticket == ticket; });
    if (!in_step) cases_.at(ticket).at = Case::At::kParked;
    Check();
  }
  void Wake(Ticket ticket) {
    core_.Wake(ticket);
    wants_.erase(ticket);
    if (Case& c = cases_.at(ticket); c.at == Case::At::kParked) c.at = Case::At::kWaiting;
    Check();
  }
  void Finish(Ticket ticket) {
    core_.Finish(ticket, absl::CancelledError("test"));
    Ended(ticket, absl::CancelledError("test"));
    Check();
  }

  // True: a step is under way.
  bool Begin() {
    events_.clear();
    NoteParked();
    n_available_before_ = core_.pool().n_available();
    n_blocks_before_.clear();
    for (const Ticket ticket : Alive()) n_blocks_before_[ticket] = static_cast<int>(core_.blocks(ticket).size());
    work_ = core_.Begin(now_, &events_);
    bool preempted = false;
    for (const Event& event : events_) {
      ++n_events_;
      switch (event.kind) {
        case Event::Kind::kEnded:
          EXPECT_EQ(event.status.code(), absl::StatusCode::kDeadlineExceeded);
          EXPECT_LE(cases_.at(event.ticket).spec.deadline, now_);
          Ended(event.ticket, event.status);
          break;
        case Event::Kind::kPreempted:
          preempted = true;
          NotePreempted(event.ticket);
          break;
        case Event::Kind::kEvicted:
          EXPECT_NE(At(event.ticket), Case::At::kRunning);
          NoteEvicted(event.ticket);
          break;
        case Event::Kind::kStarted:
          break;
        case Event::Kind::kTokens:
          ADD_FAILURE() << "no step, yet tokens";
      }
    }
    for (const auto& [ticket, c] : cases_) {
      if (c.at != Case::At::kEnded) {
        EXPECT_GT(c.spec.deadline, now_) << ticket << " outlived its deadline";
      }
    }
    NotePlan(preempted);
    EXPECT_EQ(n_evictions_, core_.stats().n_evictions);
    Check();
    return work_ != nullptr;
  }

  void Commit(const absl::Status& status = absl::OkStatus(), bool kv_lost = false) {
    const Work work = *work_;
    const std::vector<RowRun> rows(work.rows.begin(), work.rows.end());
    const StepResult result = status.ok()
                                  ? model_.Run(work)
                                  : StepResult{.status = status, .kv_lost = kv_lost, .sampled = {}, .n_complete = {}};
    if (kv_lost) model_.LoseAll();
    std::set<Ticket> in_step;
    for (const RowRun& run : rows) in_step.insert(run.ticket);
    events_.clear();
    work_ = nullptr;
    core_.Commit(work.step, result, now_, &events_);
    for (const Event& event : events_) {
      ++n_events_;
      Case& c = cases_.at(event.ticket);
      if (event.kind == Event::Kind::kEvicted) {
        EXPECT_TRUE(kv_lost);
        NoteEvicted(event.ticket);
        continue;
      }
      EXPECT_TRUE(in_step.count(event.ticket)) << "a step speaks of those in it";
      EXPECT_NE(c.at, Case::At::kEnded) << "an event after the end";
      if (event.kind == Event::Kind::kTokens) {
        const auto chosen = result.sampled.subspan(event.first_sampled, event.n_tokens);
        c.tokens.insert(c.tokens.end(), chosen.begin(), chosen.end());
        c.n_begun = std::min(c.n_begun, static_cast<int>(c.tokens.size()) - 1);
      } else {
        EXPECT_EQ(event.kind, Event::Kind::kEnded);
        EXPECT_EQ(event.status, status);
        if (status.ok()) {
          EXPECT_EQ(c.tokens, c.alone) << "it ends when it knows all";
        }
        Ended(event.ticket, event.status);
      }
    }
    if (kv_lost) {
      EXPECT_EQ(core_.pool().n_free(), options_.n_blocks);
    }
    if (!status.ok()) {
      for (const Ticket ticket : in_step) EXPECT_EQ(At(ticket), Case::At::kEnded);
    }
    NoteParked();
    for (const auto& [ticket, c] : cases_) {
      EXPECT_TRUE(c.tokens.size() <= c.alone.size() && std::equal(c.tokens.begin(), c.tokens.end(), c.alone.begin()))
          << ticket << " is not what it is alone";
    }
    Check();
  }

  // Everything that is left comes to its end.
  void RunToEnd() {
    if (under_way()) Commit();
    model_.n_complete = [](const RowRun& run) { return run.n_rows; };
    model_.n_chosen = [](const RowRun& run) { return run.n_sampled; };
    for (const Ticket ticket : Alive()) Wake(ticket);
    int n_left = 0;  // every step gives a token to the first in order, or brings its prompt on
    for (const Ticket ticket : Alive()) n_left += 2 * cases_.at(ticket).spec.n_total_max;
    while (Begin()) {
      Advance(absl::Milliseconds(1));
      Commit();
      ASSERT_GE(--n_left, 0) << "no forward progress";
    }
    EXPECT_TRUE(core_.idle());
    EXPECT_TRUE(Alive().empty());
    EXPECT_EQ(core_.pool().n_held(), 0);
    if (!options_.reuse_prefixes) {
      EXPECT_EQ(core_.pool().n_free(), options_.n_blocks);
      return;
    }
    ProbeCache();
  }

 private:
  // Whatever came before: what ran alone just now is adopted whole, also after a part of it has run.
  void ProbeCache() {
    if (cases_.empty()) return;
    const SequenceSpec like = cases_.begin()->second.spec;
    const int n = static_cast<int>(like.tokens.size()), n_part = std::min(n, options_.block_tokens);
    const auto adopted = [&](int n_tokens) {
      const Ticket ticket = cases_.rbegin()->first + 1;
      SequenceSpec spec{.tokens = {like.tokens.begin(), like.tokens.begin() + n_tokens},
                        .n_total_max = n_tokens + 1,
                        .cache_salt = like.cache_salt};
      EXPECT_TRUE(Admit(ticket, std::move(spec)));
      int n_adopted = -1;
      while (Begin()) {
        if (n_adopted < 0) n_adopted = core_.n_cached_tokens(ticket);
        Commit();
      }
      return n_adopted;
    };
    const int n_full = n / options_.block_tokens * options_.block_tokens;
    adopted(n);
    EXPECT_EQ(adopted(n), std::min(n_full, n - 1));
    adopted(n_part);
    EXPECT_EQ(adopted(n), std::min(n_full, n - 1)) << "after its first " << n_part << " tokens ran alone";
  }

  Case::At At(Ticket ticket) const { return cases_.at(ticket).at; }
  // Sequences stand at (arrival - priority * class_rise), then in order of arrival.
  std::pair<absl::Duration, int64_t> Place(Ticket ticket) const {
    const Case& c = cases_.at(ticket);
    return {c.arrival.since_origin() - c.spec.priority * options_.class_rise, c.n_earlier};
  }
  std::vector<Ticket> InOrder(Case::At at) const {
    std::vector<Ticket> tickets;
    for (const auto& [ticket, c] : cases_) {
      if (c.at == at) tickets.push_back(ticket);
    }
    std::sort(tickets.begin(), tickets.end(), [&](Ticket a, Ticket b) { return Place(a) < Place(b); });
    return tickets;
  }

  void Check() {
    const absl::Status status = core_.CheckInvariants();
    EXPECT_TRUE(status.ok()) << status;
    for (const auto& [ticket, c] : cases_) EXPECT_EQ(core_.contains(ticket), c.at != Case::At::kEnded) << ticket;
  }

  void Ended(Ticket ticket, const absl::Status& status) {
    Case& c = cases_.at(ticket);
    EXPECT_NE(c.at, Case::At::kEnded) << ticket << " ended twice";
    c.at = Case::At::kEnded;
    c.status = status;
    wants_.erase(ticket);
  }

  // Who was asked to park is parked from the next moment without a step on, until its time.
  void NoteParked() {
    if (under_way()) return;
    for (auto at = wants_.begin(); at != wants_.end();) {
      Case& c = cases_.at(at->first);
      c.at = Case::At::kParked;
      if (at->second <= now_ && c.spec.deadline > now_) {
        c.at = Case::At::kWaiting;
        at = wants_.erase(at);
      } else {
        ++at;
      }
    }
  }

  void NotePreempted(Ticket ticket) {
    const std::vector<Ticket> running = InOrder(Case::At::kRunning);
    ASSERT_FALSE(running.empty());
    EXPECT_EQ(running.back(), ticket) << "only the last in order is preempted";
    EXPECT_GT(running.size(), 1u) << "and only for an earlier one";
    for (const auto& [other, c] : cases_) {
      if (c.at == Case::At::kParked) {
        EXPECT_TRUE(core_.blocks(other).empty()) << "parked blocks go first";
      }
    }
    cases_.at(ticket).at = Case::At::kWaiting;
    cases_.at(ticket).n_begun = 0;
  }

  void NoteEvicted(Ticket ticket) {
    Case& c = cases_.at(ticket);
    EXPECT_GT(c.n_begun, 0) << ticket << " had nothing to lose";
    c.n_begun = 0;
    EXPECT_LE(++n_evictions_, core_.stats().n_evictions);
  }

  int BlocksOf(int n_tokens) const { return (n_tokens + options_.block_tokens - 1) / options_.block_tokens; }

  // Blocks are taken from the last one for tokens that others know, and only when none was to be had otherwise.
  void NoteNeed() {
    const int n_moves = static_cast<int>(work_->moves.size());
    int n_taken = n_moves;
    for (const RowRun& run : work_->rows) {
      const int n_known = static_cast<int>(cases_.at(run.ticket).tokens.size());
      EXPECT_LE(static_cast<int>(run.blocks.size()), BlocksOf(n_known)) << run.ticket << " drafts beside a preemption";
      n_taken += std::max(0, static_cast<int>(run.blocks.size()) - n_blocks_before_.at(run.ticket));
    }
    const Ticket last = InOrder(Case::At::kRunning).back();
    const bool last_waits =
        std::none_of(work_->rows.begin(), work_->rows.end(), [&](const RowRun& run) { return run.ticket == last; });
    EXPECT_TRUE(n_taken > n_available_before_ || last_waits)
        << "preempted while " << n_available_before_ << " blocks could be had and " << n_taken << " were taken";
  }

  void NotePlan(bool preempted) {
    if (work_ == nullptr) {
      EXPECT_TRUE(InOrder(Case::At::kRunning).empty()) << "who runs gets rows";
      EXPECT_TRUE(InOrder(Case::At::kWaiting).empty()) << "with nothing running, the head of the queue starts";
      return;
    }
    if (preempted) NoteNeed();
    const std::vector<Ticket> before = InOrder(Case::At::kRunning);
    std::set<Ticket> with_rows;
    int n_begun = 0, n_rows = 0;
    bool prefills = false;
    for (const RowRun& run : work_->rows) {
      Case& c = cases_.at(run.ticket);
      EXPECT_TRUE(with_rows.insert(run.ticket).second) << "one run each";
      if (c.at == Case::At::kWaiting) {
        EXPECT_FALSE(preempted) << "nobody is admitted beside a preemption";
        EXPECT_EQ(InOrder(Case::At::kWaiting).front(), run.ticket) << "the head of the queue starts first";
        c.at = Case::At::kRunning;
      }
      ASSERT_EQ(c.at, Case::At::kRunning);
      ASSERT_GE(run.n_rows, 1);
      ASSERT_LE(run.first, static_cast<int>(c.tokens.size()) - 1);
      const int n_new = run.n_rows - run.n_continued;
      prefills |= n_new > 1;
      n_begun += std::max(1, n_new);
      n_rows += run.n_rows;
      c.n_begun = run.first + run.n_rows;
      EXPECT_LE(c.n_begun, c.spec.n_total_max - 1);
      EXPECT_EQ(run.n_sampled, std::max(0, c.n_begun - static_cast<int>(c.tokens.size()) + 1));
      for (int p = 0; p < std::min<int>(c.n_begun, c.tokens.size()); ++p) EXPECT_EQ(run.tokens[p], c.tokens[p]);
    }
    EXPECT_EQ(n_rows, work_->n_rows);
    EXPECT_LE(n_begun, options_.max_step_tokens);
    EXPECT_LE(static_cast<int>(InOrder(Case::At::kRunning).size()), options_.max_running);
    if (!before.empty()) {
      EXPECT_TRUE(with_rows.count(before.front())) << "the first in order advances";
    }
    // A decoding sequence that has room in its own last block is never held up.
    for (const Ticket ticket : before) {
      const Case& c = cases_.at(ticket);
      if (with_rows.count(ticket) || static_cast<int>(c.tokens.size()) - c.n_begun != 1) continue;
      EXPECT_EQ(c.n_begun % options_.block_tokens, 0) << ticket << " had room";
      EXPECT_EQ(core_.pool().n_available(), 0) << ticket << " had blocks";
    }
  }

  const CoreOptions options_;
  Core core_;
  FakeModel model_;
  SteadyTime now_ = SteadyTime::FromOrigin(absl::Seconds(1000));
  std::map<Ticket, Case> cases_;
  std::map<Ticket, SteadyTime> wants_;  // to be parked, until when
  const Work* work_ = nullptr;          // under way
  std::vector<Event> events_;
  int64_t n_events_ = 0, n_evictions_ = 0;
  int n_available_before_ = 0;
  std::map<Ticket, int> n_blocks_before_;
};

}  // namespace updraft::engine
