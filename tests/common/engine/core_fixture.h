// A core driven by hand: what is planned, in which order, and what comes of a step.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <ostream>
#include <utility>
#include <vector>

#include "common/engine/core.h"
#include "tests/common/engine/fake_model.h"

namespace updraft::engine {

inline constexpr int kVocab = 50;

// Tickets and the rows they get, continued ones included.
struct Rows {
  Ticket ticket;
  int n_rows;
  bool operator==(const Rows&) const = default;
  friend void PrintTo(const Rows& rows, std::ostream* out) { *out << rows.ticket << ": " << rows.n_rows; }
};

class CoreTest : public ::testing::Test {
 protected:
  void Make(CoreOptions options) {
    ASSERT_TRUE(options.Validate().ok()) << options.Validate();
    core_ = std::make_unique<Core>(options);
    model_ = std::make_unique<FakeModel>(options, kVocab);
    answers_.clear();
    ended_.clear();
  }

  SequenceSpec Spec(int n_tokens, int n_answer, uint64_t seed = 1) {
    return {.tokens = SomeTokens(n_tokens, seed, kVocab), .n_total_max = n_tokens + n_answer};
  }

  void Admit(Ticket ticket, SequenceSpec spec) {
    ASSERT_TRUE(core_->Check(spec).ok()) << core_->Check(spec);
    core_->Admit(ticket, std::move(spec), now_);
    Check();
  }

  void Check() { ASSERT_TRUE(core_->CheckInvariants().ok()) << core_->CheckInvariants(); }

  const Work* Begin() {
    events_.clear();
    const Work* work = core_->Begin(now_, &events_);
    Note(StepResult());
    Check();
    return work;
  }

  // What was planned; the step is under way when it is not empty.
  std::vector<Rows> Plan() {
    std::vector<Rows> rows;
    if (const Work* work = Begin(); work != nullptr) {
      work_ = *work;
      for (const RowRun& run : work->rows) rows.push_back({run.ticket, run.n_rows});
    }
    return rows;
  }
  void Commit() { CommitResult(model_->Run(work_)); }
  void CommitResult(const StepResult& result) {
    now_ = now_ + absl::Milliseconds(1);
    events_.clear();
    core_->Commit(work_.step, result, now_, &events_);
    Note(result);
    Check();
  }
  // events_ are those of both halves.
  bool Step() {
    if (Plan().empty()) return false;
    std::vector<Event> events = std::move(events_);
    Commit();
    events.insert(events.end(), events_.begin(), events_.end());
    events_ = std::move(events);
    return true;
  }
  void RunToIdle(int max_steps = 10000) {
    while (Step()) ASSERT_GT(max_steps--, 0) << "no forward progress";
    ASSERT_TRUE(core_->idle());
  }

  void Note(const StepResult& result) {
    for (const Event& event : events_) {
      if (event.kind == Event::Kind::kTokens) {
        const auto tokens = result.sampled.subspan(event.first_sampled, event.n_tokens);
        answers_[event.ticket].insert(answers_[event.ticket].end(), tokens.begin(), tokens.end());
      } else if (event.kind == Event::Kind::kEnded) {
        EXPECT_TRUE(ended_.emplace(event.ticket, event.status).second) << "ended twice";
      }
    }
  }
  std::vector<Ticket> Of(Event::Kind kind) const {
    std::vector<Ticket> tickets;
    for (const Event& event : events_) {
      if (event.kind == kind) tickets.push_back(event.ticket);
    }
    return tickets;
  }
  std::vector<int32_t> Alone(const SequenceSpec& spec) {
    const std::vector<int32_t> all = SequenceAlone(spec, kVocab);
    return {all.begin() + spec.tokens.size(), all.end()};
  }

  SteadyTime now_ = SteadyTime::FromOrigin(absl::Seconds(1000));
  std::unique_ptr<Core> core_;
  std::unique_ptr<FakeModel> model_;
  Work work_;
  std::vector<Event> events_;
  std::map<Ticket, std::vector<int32_t>> answers_;
  std::map<Ticket, absl::Status> ended_;
};

}  // namespace updraft::engine
