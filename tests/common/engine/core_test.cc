// The core by example: what is planned, in which order, and what comes of a step.
#include "common/engine/core.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/common/engine/fake_model.h"

namespace updraft::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kVocab = 50;

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
  bool Step() {
    if (Plan().empty()) return false;
    Commit();
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

TEST_F(CoreTest, IdlePlansNothing) {
  Make({.n_blocks = 10, .block_tokens = 4, .max_running = 4, .max_step_tokens = 8});
  EXPECT_EQ(Begin(), nullptr);
  EXPECT_TRUE(core_->idle());
}

TEST_F(CoreTest, OneSequenceGivesItsAnswerAndFreesItsBlocks) {
  Make({.n_blocks = 16, .block_tokens = 4, .max_running = 8, .max_step_tokens = 32});
  Admit(1, Spec(5, 10));
  RunToIdle();
  EXPECT_THAT(answers_[1], ElementsAreArray(Alone(Spec(5, 10))));
  EXPECT_TRUE(ended_.at(1).ok());
  EXPECT_FALSE(core_->contains(1));
  EXPECT_EQ(core_->pool().n_free(), 16);
  EXPECT_EQ(core_->stats().n_rows, 5 + 9) << "the last token is chosen and not run";
}

TEST_F(CoreTest, AdmitsInOrderAndChunksThePrefill) {
  Make({.n_blocks = 100, .block_tokens = 4, .max_running = 4, .max_step_tokens = 8});
  for (const auto& [ticket, n] : {std::pair(1, 5), {2, 10}, {3, 1}}) Admit(ticket, Spec(n, 9));
  EXPECT_THAT(Plan(), ElementsAre(Rows{1, 5}, Rows{2, 3}));
  EXPECT_THAT(Of(Event::Kind::kStarted), ElementsAre(1, 2));
  EXPECT_EQ(work_.rows[0].n_sampled, 1);
  EXPECT_EQ(work_.rows[1].n_sampled, 0) << "a part of a prompt chooses nothing";
}

TEST_F(CoreTest, DecodeRowsComeBeforePrefill) {
  Make({.n_blocks = 100, .block_tokens = 4, .max_running = 4, .max_step_tokens = 4});
  Admit(2, Spec(2, 9));
  Admit(3, Spec(2, 9));
  Step();
  SequenceSpec urgent = Spec(30, 9);
  urgent.priority = 1;
  Admit(1, urgent);
  EXPECT_THAT(Plan(), ElementsAre(Rows{2, 1}, Rows{3, 1}, Rows{1, 2}));
  Commit();
  EXPECT_THAT(Plan(), ElementsAre(Rows{1, 2}, Rows{2, 1}, Rows{3, 1})) << "in order, but each with its own row";
}

TEST_F(CoreTest, ALargeRequestAtTheHeadIsNotOvertaken) {
  Make({.n_blocks = 11, .block_tokens = 4, .max_running = 4, .max_step_tokens = 64});
  Admit(1, Spec(20, 9));
  Step();
  Admit(2, Spec(40, 4));
  Admit(3, Spec(1, 4));
  EXPECT_THAT(Plan(), ElementsAre(Rows{1, 1}));
}

TEST_F(CoreTest, MaxRunningHolds) {
  Make({.n_blocks = 100, .block_tokens = 4, .max_running = 2, .max_step_tokens = 64});
  Admit(1, Spec(8, 9));
  Step();
  Admit(2, Spec(3, 9));
  Admit(3, Spec(3, 9));
  EXPECT_THAT(Plan(), ElementsAre(Rows{1, 1}, Rows{2, 3}));
}

TEST_F(CoreTest, TheLastInOrderIsPreemptedForAnEarlierOne) {
  Make({.n_blocks = 6, .block_tokens = 4, .max_running = 4, .max_step_tokens = 64});
  Admit(1, Spec(5, 15));
  Admit(2, Spec(2, 15));
  Admit(3, Spec(3, 15));
  for (int i = 0; i < 4; ++i) Step();  // 1 has 8 rows in 2 blocks, 2 has 5 in 2, 3 has 6 in 2
  EXPECT_EQ(core_->pool().n_available(), 0);
  Admit(4, Spec(1, 4));
  EXPECT_THAT(Plan(), ElementsAre(Rows{1, 1}, Rows{2, 1}))
      << "nobody is admitted into blocks that were just taken away";
  EXPECT_THAT(Of(Event::Kind::kPreempted), ElementsAre(3));
  Commit();
  RunToIdle();
  EXPECT_THAT(answers_[3], ElementsAreArray(Alone(Spec(3, 15)))) << "recomputing changes nothing";
}

TEST_F(CoreTest, TheLastItselfJustWaits) {
  Make({.n_blocks = 4, .block_tokens = 4, .max_running = 4, .max_step_tokens = 64});
  Admit(1, Spec(2, 9));
  Admit(2, Spec(5, 9));
  for (int i = 0; i < 4; ++i) Step();
  EXPECT_THAT(Plan(), ElementsAre(Rows{1, 1}));
  EXPECT_THAT(Of(Event::Kind::kPreempted), IsEmpty());
}

TEST_F(CoreTest, ExpiredSequencesMakeRoomInTheSamePlan) {
  Make({.n_blocks = 4, .block_tokens = 4, .max_running = 4, .max_step_tokens = 64});
  SequenceSpec second = Spec(4, 9), third = Spec(12, 2);
  second.deadline = now_ + absl::Milliseconds(2);
  third.deadline = now_ + absl::Milliseconds(1);
  Admit(1, Spec(3, 9));
  Admit(2, second);
  Step();
  Admit(3, third);
  SequenceSpec fourth = Spec(2, 2);
  fourth.deadline = now_ + absl::Milliseconds(1) + absl::Nanoseconds(1);
  Admit(4, fourth);
  now_ = now_ + absl::Milliseconds(1);
  EXPECT_THAT(Plan(), ElementsAre(Rows{1, 1}, Rows{4, 2}));
  EXPECT_THAT(Of(Event::Kind::kEnded), ElementsAre(3, 2)) << "in the order of their deadlines";
  EXPECT_EQ(ended_.at(2).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(ended_.at(2).message()), HasSubstr("before the answer was complete"));
  EXPECT_THAT(std::string(ended_.at(3).message()), HasSubstr("queued"));
  EXPECT_FALSE(core_->contains(2));
}

TEST_F(CoreTest, WhatCanNeverFitIsRefusedWithTheNumbers) {
  Make({.n_blocks = 4, .block_tokens = 4, .max_running = 4, .max_step_tokens = 64});
  EXPECT_TRUE(core_->Check(Spec(10, 7)).ok()) << "the last token of an answer needs no room";
  const absl::Status too_large = core_->Check(Spec(10, 8));
  EXPECT_EQ(too_large.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(too_large.message()),
              HasSubstr("need room for 17 tokens (5 blocks of 4), the KV pool holds 16 (4 blocks); lower max_tokens"));
  EXPECT_FALSE(core_->Check(Spec(0, 4)).ok());
  EXPECT_FALSE(core_->Check(Spec(4, 0)).ok());
  EXPECT_FALSE(core_->Check(Spec(4, -5)).ok());
  SequenceSpec spec = Spec(1, 1);
  spec.priority = 1001;
  EXPECT_THAT(std::string(core_->Check(spec).message()), HasSubstr("priority: expected -1000 to 1000, found 1001"));
}

TEST(CoreOptions, RefusesWhatCannotWork) {
  EXPECT_TRUE(CoreOptions().Validate().ok());
  EXPECT_FALSE((CoreOptions{.n_blocks = 0}).Validate().ok());
  EXPECT_FALSE((CoreOptions{.block_tokens = 0}).Validate().ok());
  EXPECT_FALSE((CoreOptions{.n_blocks = 1 << 30, .block_tokens = 16}).Validate().ok());
  EXPECT_FALSE((CoreOptions{.max_running = 0}).Validate().ok());
  EXPECT_FALSE((CoreOptions{.max_running = 8, .max_step_tokens = 7}).Validate().ok());
  EXPECT_FALSE((CoreOptions{.class_rise = absl::ZeroDuration()}).Validate().ok());
}

// ---- Order ----

TEST_F(CoreTest, AWaitingSequenceRisesOneClassPerInterval) {
  for (const bool in_time : {true, false}) {
    Make({.n_blocks = 100, .block_tokens = 4, .max_running = 1, .max_step_tokens = 8, .class_rise = absl::Seconds(10)});
    Admit(2, Spec(2, 4));
    now_ = now_ + absl::Seconds(10) + (in_time ? -1 : 1) * absl::Milliseconds(1);
    SequenceSpec urgent = Spec(2, 4);
    urgent.priority = 1;
    Admit(3, urgent);
    EXPECT_THAT(Plan(), ElementsAre(Rows{in_time ? 3u : 2u, 2}));
    Commit();
    RunToIdle();
  }
}

TEST_F(CoreTest, WithinAClassTheOrderIsThatOfArrival) {
  Make({.n_blocks = 100, .block_tokens = 4, .max_running = 8, .max_step_tokens = 64});
  for (const Ticket ticket : {9, 4, 7}) Admit(ticket, Spec(2, 4));  // tickets are names, not places
  EXPECT_THAT(Plan(), ElementsAre(Rows{9, 2}, Rows{4, 2}, Rows{7, 2}));
}

TEST_F(CoreTest, ThePreemptedKeepTheirPlace) {
  Make({.n_blocks = 6, .block_tokens = 4, .max_running = 4, .max_step_tokens = 64});
  Admit(1, Spec(5, 12));
  Admit(2, Spec(2, 15));
  Admit(3, Spec(3, 15));
  for (int i = 0; i < 4; ++i) Step();
  Admit(4, Spec(1, 4));
  Step();  // preempts 3
  std::vector<Ticket> returned;
  while (Step()) {
    for (const RowRun& run : work_.rows) {
      if (run.ticket >= 3 && run.first == 0) returned.push_back(run.ticket);
    }
  }
  ASSERT_FALSE(returned.empty());
  EXPECT_EQ(returned.front(), 3u) << "it came before 4";
}

// ---- Ends ----

TEST_F(CoreTest, FinishFreesBlocksAtOnceAndTellsNobody) {
  Make({.n_blocks = 16, .block_tokens = 4, .max_running = 4, .max_step_tokens = 64});
  Admit(1, Spec(20, 9));
  Admit(2, Spec(4, 9));
  Admit(3, Spec(4, 9));
  Step();
  const int used = core_->pool().n_held();
  core_->Finish(1, absl::CancelledError(""));
  core_->Finish(99, absl::OkStatus());
  EXPECT_EQ(core_->pool().n_held(), used - 5);
  EXPECT_FALSE(core_->contains(1));
  Check();
  RunToIdle();
  EXPECT_EQ(ended_.count(1), 0u);
  EXPECT_EQ(ended_.size(), 2u);
}

TEST_F(CoreTest, FinishDuringAStepFreesBlocksBeforeTheNext) {
  Make({.n_blocks = 16, .block_tokens = 4, .max_running = 4, .max_step_tokens = 64});
  Admit(1, Spec(20, 9));
  Admit(2, Spec(4, 9));
  ASSERT_EQ(Plan().size(), 2u);
  core_->Finish(1, absl::OkStatus());
  EXPECT_FALSE(core_->contains(1));
  Check();
  EXPECT_EQ(core_->pool().n_held(), 6) << "the model is writing into them";
  Admit(1, Spec(3, 3, 5));  // the ticket is free again
  Commit();
  EXPECT_EQ(core_->pool().n_held(), 1);
  EXPECT_TRUE(answers_[1].empty());
  RunToIdle();
  EXPECT_THAT(answers_[1], ElementsAreArray(Alone(Spec(3, 3, 5))));
}

TEST_F(CoreTest, AFailedStepEndsThoseWhoHadRowsInIt) {
  Make({.n_blocks = 32, .block_tokens = 4, .max_running = 2, .max_step_tokens = 64});
  for (const Ticket ticket : {1, 2, 3}) Admit(ticket, Spec(6, 5, ticket));
  ASSERT_EQ(Plan().size(), 2u);
  CommitResult({.status = absl::InternalError("device lost")});
  EXPECT_EQ(ended_.at(1), absl::InternalError("device lost"));
  EXPECT_EQ(ended_.at(2), absl::InternalError("device lost"));
  EXPECT_EQ(core_->pool().n_free(), 32);
  RunToIdle();
  EXPECT_TRUE(ended_.at(3).ok()) << "who only waited is served";
}

TEST_F(CoreTest, AfterALossOfAllKvNobodyTrustsABlock) {
  for (const bool kv_lost : {false, true}) {
    SCOPED_TRACE(kv_lost);
    Make({.n_blocks = 32, .block_tokens = 4, .max_running = 2, .max_step_tokens = 16, .reuse_prefixes = true});
    Admit(1, Spec(9, 3, 1));
    RunToIdle();
    Admit(2, Spec(9, 9, 2));
    Step();
    core_->Park(2, SteadyTime::InfiniteFuture());
    Admit(3, Spec(9, 9, 3));
    ASSERT_EQ(Plan().size(), 1u);
    Admit(4, Spec(9, 9, 1));  // while the step is under way
    CommitResult({.status = absl::InternalError("device lost"), .kv_lost = kv_lost});
    EXPECT_THAT(ended_.count(3), 1);
    const std::vector<Ticket> evicted = Of(Event::Kind::kEvicted);
    EXPECT_EQ(core_->pool().n_free() == 32, kv_lost) << "nothing held, nothing sealed";
    if (kv_lost) model_->LoseAll();
    core_->Wake(2);
    RunToIdle();
    EXPECT_THAT(evicted, kv_lost ? ElementsAreArray({Ticket{2}}) : ElementsAreArray(std::vector<Ticket>()));
    EXPECT_THAT(answers_[2], ElementsAreArray(Alone(Spec(9, 9, 2))));
    EXPECT_THAT(answers_[4], ElementsAreArray(Alone(Spec(9, 9, 1))));
    EXPECT_EQ(core_->stats().n_cached_tokens, kv_lost ? 0 : 8);
  }
}

// ---- Drafts ----

TEST_F(CoreTest, ConfirmedDraftsAreKnownAtOnceAndTheFirstWrongOneTakesTheRestAlong) {
  Make({.n_blocks = 16, .block_tokens = 4, .max_running = 4, .max_step_tokens = 64});
  const std::vector<int32_t> answer = Alone(Spec(3, 20));
  Admit(1, Spec(3, 20));
  Step();
  core_->Grow(1, std::vector<int32_t>{answer[1], answer[2], (answer[3] + 1) % kVocab, answer[4]});
  EXPECT_EQ(core_->tokens(1).size(), 4u) << "drafts are not known";
  EXPECT_THAT(Plan(), ElementsAre(Rows{1, 5}));
  EXPECT_EQ(work_.rows[0].n_sampled, 5);
  EXPECT_EQ(core_->blocks(1).size(), 2u);
  Commit();
  EXPECT_THAT(answers_[1], ElementsAreArray(answer.begin(), answer.begin() + 4));
  ASSERT_EQ(events_.size(), 1u);
  EXPECT_EQ(events_[0].n_accepted, 2);
  EXPECT_EQ(events_[0].n_tokens, 3);
  EXPECT_EQ(core_->stats().n_drafts_accepted, 2);
  EXPECT_EQ(core_->stats().n_drafts_rejected, 2);
  RunToIdle();
  EXPECT_THAT(answers_[1], ElementsAreArray(answer));
}

TEST_F(CoreTest, DraftsBeyondTheBudgetWaitForTheNextStep) {
  Make({.n_blocks = 16, .block_tokens = 4, .max_running = 1, .max_step_tokens = 4});
  const std::vector<int32_t> answer = Alone(Spec(3, 20));
  Admit(1, Spec(3, 20));
  Step();
  core_->Grow(1, std::span<const int32_t>(answer).subspan(1, 7));
  EXPECT_THAT(Plan(), ElementsAre(Rows{1, 4}));
  Commit();
  EXPECT_EQ(core_->tokens(1).size(), 3u + 5);
  EXPECT_THAT(Plan(), ElementsAre(Rows{1, 4}));
  Commit();
  EXPECT_EQ(core_->tokens(1).size(), 3u + 9);
  EXPECT_EQ(core_->stats().n_drafts_accepted, 7);
}

TEST_F(CoreTest, APromptAndItsDraftRunTogether) {  // verification: somebody else's answer is judged in one step
  Make({.n_blocks = 16, .block_tokens = 4, .max_running = 1, .max_step_tokens = 64});
  const std::vector<int32_t> answer = Alone(Spec(6, 8));
  Admit(1, Spec(6, 8));
  core_->Grow(1, answer);
  EXPECT_THAT(Plan(), ElementsAre(Rows{1, 6 + 7})) << "the last token of the answer is never run";
  Commit();
  EXPECT_THAT(answers_[1], ElementsAreArray(answer));
  EXPECT_TRUE(ended_.at(1).ok());
}

TEST_F(CoreTest, DraftsThatComeWhileAStepIsUnderWayAreHeldAgainstItsChoice) {
  Make({.n_blocks = 16, .block_tokens = 4, .max_running = 1, .max_step_tokens = 64});
  const std::vector<int32_t> answer = Alone(Spec(3, 20));
  Admit(1, Spec(3, 20));
  Plan();
  core_->Grow(1, std::span<const int32_t>(answer).first(3));
  Commit();
  EXPECT_EQ(core_->tokens(1).size(), 4u);
  EXPECT_THAT(Plan(), ElementsAre(Rows{1, 3})) << "the first was confirmed, two are left";
  core_->Grow(1, std::vector<int32_t>{(answer[3] + 1) % kVocab});
  Commit();
  EXPECT_THAT(Plan(), ElementsAre(Rows{1, 1}));
}

TEST_F(CoreTest, DraftsTakeNobodysBlocks) {
  Make({.n_blocks = 7, .block_tokens = 4, .max_running = 4, .max_step_tokens = 64});
  const std::vector<int32_t> answer = Alone(Spec(3, 16));
  Admit(3, Spec(3, 12, 4));
  Step();
  core_->Park(3, SteadyTime::InfiniteFuture());
  Admit(1, Spec(3, 16));
  Admit(2, Spec(3, 12, 9));
  Step();
  core_->Grow(1, std::span<const int32_t>(answer).subspan(1, 14));
  EXPECT_THAT(Plan(), ElementsAre(Rows{1, 9}, Rows{2, 1}))
      << "of 4 blocks left, 2 are for the next tokens of those who run: positions 3 to 11";
  EXPECT_THAT(Of(Event::Kind::kPreempted), IsEmpty());
  EXPECT_THAT(Of(Event::Kind::kEvicted), IsEmpty()) << "not those of a parked one either";
  Commit();
  core_->Finish(3, absl::OkStatus());
  RunToIdle();
  EXPECT_THAT(answers_[1], ElementsAreArray(answer));
}

// On pools of all kinds: what is preempted, admitted and run of known tokens is the same with drafts that are all
// wrong.
TEST_F(CoreTest, WrongDraftsChangeNothingOfThePlanOfKnownTokens) {
  using Known = std::vector<std::pair<Ticket, int>>;  // per run, its rows of known tokens
  const auto plans = [&](int n_prompt, int n_answer, bool drafts) {
    std::vector<Known> plans;
    for (Ticket t = 1; t <= 3; ++t) {
      SequenceSpec spec{.tokens = std::vector<int32_t>(n_prompt + t, 1),
                        .n_total_max = n_prompt + static_cast<int>(t) + n_answer};
      if (!core_->Check(spec).ok()) return plans;
      Admit(t, std::move(spec));
    }
    while (plans.size() < 400) {
      for (Ticket t = 1; drafts && t <= 3; ++t) {
        if (core_->contains(t)) core_->Grow(t, std::vector<int32_t>(20, 9));
      }
      if (Plan().empty()) break;
      Known known;
      int n_sampled = 0;
      for (const RowRun& run : work_.rows) {
        n_sampled += run.n_sampled;
        known.emplace_back(run.ticket,
                           std::min(run.n_rows, static_cast<int>(core_->tokens(run.ticket).size()) - run.first));
      }
      plans.push_back(std::move(known));
      const std::vector<int32_t> sampled(n_sampled, 7);
      CommitResult({.sampled = sampled});
    }
    return plans;
  };
  int n_worlds = 0;
  int64_t n_preemptions = 0;
  for (const int n_blocks : {3, 4, 5, 7, 9, 12}) {
    for (const int block_tokens : {1, 2, 3, 4}) {
      for (int n_answer = 4; n_answer < 30; n_answer += 3) {
        for (int n_prompt = 1; n_prompt < 8; ++n_prompt) {
          const CoreOptions options{
              .n_blocks = n_blocks, .block_tokens = block_tokens, .max_running = 4, .max_step_tokens = 24};
          Make(options);
          const std::vector<Known> without = plans(n_prompt, n_answer, false);
          n_preemptions += core_->stats().n_preemptions;
          Make(options);
          ASSERT_EQ(plans(n_prompt, n_answer, true), without)
              << n_blocks << " blocks of " << block_tokens << ", prompts " << n_prompt << ", answers " << n_answer;
          n_worlds += without.size() > 0;
        }
      }
    }
  }
  EXPECT_GT(n_worlds, 100);
  EXPECT_GT(n_preemptions, 100);
}

TEST_F(CoreTest, HalfRunDraftsGiveTheirBlocksBackBeforeAnybodyIsPreempted) {
  Make({.n_blocks = 8, .block_tokens = 2, .max_running = 2, .max_step_tokens = 64});
  Admit(1, Spec(2, 10));
  Admit(2, Spec(2, 10, 5));
  Step();
  model_->n_complete = [](const RowRun& run) { return run.ticket == 1 ? run.n_rows : 0; };
  model_->n_chosen = [](const RowRun& run) { return run.ticket == 1 ? run.n_sampled : 0; };
  core_->Grow(2, std::vector<int32_t>(4, 9));
  EXPECT_THAT(Plan(), ElementsAre(Rows{1, 1}, Rows{2, 5}));
  EXPECT_EQ(core_->blocks(2).size(), 4u);
  Commit();
  while (core_->contains(1)) {
    Step();
    EXPECT_THAT(Of(Event::Kind::kPreempted), IsEmpty());
  }
  EXPECT_EQ(core_->blocks(2).size(), 2u) << "the first one needed 6 of the 8";
  model_->n_complete = [](const RowRun& run) { return run.n_rows; };
  model_->n_chosen = [](const RowRun& run) { return run.n_sampled; };
  RunToIdle();
  EXPECT_THAT(answers_[1], ElementsAreArray(Alone(Spec(2, 10))));
  EXPECT_THAT(answers_[2], ElementsAreArray(Alone(Spec(2, 10, 5))));
}

// ---- Half-run rows ----

TEST_F(CoreTest, HalfRunRowsAreContinuedAndChooseEarly) {
  Make({.n_blocks = 16, .block_tokens = 4, .max_running = 1, .max_step_tokens = 64});
  Admit(1, Spec(3, 8));
  Step();
  model_->n_complete = [](const RowRun&) { return 0; };
  EXPECT_THAT(Plan(), ElementsAre(Rows{1, 1}));
  Commit();
  EXPECT_THAT(Plan(), ElementsAre(Rows{1, 2}));
  EXPECT_EQ(work_.rows[0].first, 3);
  EXPECT_EQ(work_.rows[0].n_continued, 1);
  EXPECT_EQ(work_.rows[0].n_sampled, 1);
  Commit();
  EXPECT_EQ(core_->load().running_tokens, 3);
  model_->n_complete = [](const RowRun& run) { return run.n_rows; };
  EXPECT_THAT(Plan(), ElementsAre(Rows{1, 3}));
  Commit();
  EXPECT_EQ(core_->load().running_tokens, 6);
  RunToIdle();
  EXPECT_THAT(answers_[1], ElementsAreArray(Alone(Spec(3, 8))));
}

TEST_F(CoreTest, ARowThatDidNotChooseIsAskedAgain) {
  Make({.n_blocks = 16, .block_tokens = 4, .max_running = 1, .max_step_tokens = 64});
  Admit(1, Spec(3, 8));
  model_->n_complete = [](const RowRun&) { return 1; };
  model_->n_chosen = [](const RowRun&) { return 0; };
  Step();
  EXPECT_THAT(answers_[1], IsEmpty());
  EXPECT_THAT(Plan(), ElementsAre(Rows{1, 2}));
  EXPECT_EQ(work_.rows[0].n_continued, 2);
  EXPECT_EQ(work_.rows[0].n_sampled, 1);
  model_ = std::make_unique<FakeModel>(core_->options(), kVocab);  // another one, which knows of no half-run rows
  CommitResult({.status = absl::OkStatus(), .sampled = std::vector<int32_t>{Alone(Spec(3, 8))[0]}});
  EXPECT_EQ(core_->tokens(1).size(), 4u);
}

TEST_F(CoreTest, ARowThatDidNotChooseIsNotCompleteWhateverTheExecutorSays) {
  Make({.n_blocks = 16, .block_tokens = 4, .max_running = 1, .max_step_tokens = 64});
  Admit(1, Spec(3, 8));
  Plan();
  CommitResult({.status = absl::OkStatus(), .sampled = std::vector<int32_t>{kNoToken}});
  EXPECT_THAT(Plan(), ElementsAre(Rows{1, 1}));
  EXPECT_EQ(work_.rows[0].first, 2);
  EXPECT_EQ(work_.rows[0].n_continued, 1);
}

// ---- Parking ----

TEST_F(CoreTest, AParkedSequenceRunsNoRowsAndGoesOnWhereItWas) {
  Make({.n_blocks = 16, .block_tokens = 4, .max_running = 4, .max_step_tokens = 64});
  Admit(1, Spec(6, 12));
  Step();
  Step();
  core_->Park(1, SteadyTime::InfiniteFuture());
  Check();
  EXPECT_EQ(Begin(), nullptr);
  EXPECT_TRUE(core_->idle());
  EXPECT_EQ(core_->n_parked(), 1);
  EXPECT_EQ(core_->blocks(1).size(), 2u) << "nobody needs them";
  core_->Wake(1);
  Check();
  EXPECT_THAT(Plan(), ElementsAre(Rows{1, 1})) << "nothing is computed again";
  core_->Park(1, now_ + absl::Seconds(1));  // while its step is under way
  Commit();
  EXPECT_EQ(core_->n_parked(), 1);
  EXPECT_EQ(Begin(), nullptr);
  EXPECT_EQ(core_->next_time(), now_ - absl::Milliseconds(1) + absl::Seconds(1));
  now_ = now_ + absl::Seconds(1);
  RunToIdle();
  EXPECT_THAT(answers_[1], ElementsAreArray(Alone(Spec(6, 12))));
}

TEST_F(CoreTest, ParkedBlocksGoBeforeARunningSequenceIsPreempted) {
  Make({.n_blocks = 6, .block_tokens = 4, .max_running = 4, .max_step_tokens = 64});
  Admit(1, Spec(5, 15));
  Admit(2, Spec(2, 15));
  Admit(3, Spec(3, 15));
  Step();
  core_->Park(1, SteadyTime::InfiniteFuture());
  while (core_->pool().n_available() > 0) Step();
  std::vector<Ticket> evicted;
  while (evicted.empty()) {
    Plan();
    evicted = Of(Event::Kind::kEvicted);
    EXPECT_THAT(Of(Event::Kind::kPreempted), IsEmpty());
    Commit();
  }
  EXPECT_THAT(evicted, ElementsAre(1));
  core_->Wake(1);
  RunToIdle();
  for (const Ticket ticket : {1, 2, 3}) EXPECT_TRUE(ended_.at(ticket).ok());
  EXPECT_THAT(answers_[1], ElementsAreArray(Alone(Spec(5, 15)))) << "its tokens stayed";
}

TEST_F(CoreTest, ParkedBlocksAreNotTakenWhenTheyDoNotSuffice) {
  Make({.n_blocks = 64, .block_tokens = 4, .max_running = 8, .max_step_tokens = 512});
  Admit(1, Spec(200, 50));
  Admit(2, Spec(12, 48));
  Step();
  core_->Park(2, SteadyTime::InfiniteFuture());
  Admit(3, Spec(120, 10));
  Step();
  EXPECT_THAT(Of(Event::Kind::kEvicted), IsEmpty());
  EXPECT_EQ(core_->n_waiting(), 1);
  EXPECT_EQ(core_->blocks(2).size(), 3u) << "30 blocks are wanted, 13 could be had";
  core_->Finish(1, absl::OkStatus());
  Step();
  EXPECT_EQ(core_->n_running(), 1);
  EXPECT_EQ(core_->blocks(2).size(), 3u) << "and now they are not needed";
}

TEST_F(CoreTest, AParkedSequenceExpires) {
  Make({.n_blocks = 6, .block_tokens = 4, .max_running = 4, .max_step_tokens = 64});
  SequenceSpec spec = Spec(5, 9);
  spec.deadline = now_ + absl::Seconds(5);
  Admit(1, spec);
  Step();
  core_->Park(1, SteadyTime::InfiniteFuture());
  now_ = now_ + absl::Seconds(5);
  EXPECT_EQ(Begin(), nullptr);
  EXPECT_EQ(ended_.at(1).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(core_->pool().n_free(), 6);
}

// Times that mean nothing any more are dropped: the list of them does not grow, and the one that counts is kept.
TEST_F(CoreTest, TheEndOfAParkingMayBeMoved) {
  Make({.n_blocks = 16, .block_tokens = 4, .max_running = 4, .max_step_tokens = 64});
  Admit(1, Spec(5, 9));
  SequenceSpec other = Spec(5, 9, 2);
  other.deadline = now_ + absl::Seconds(30);
  Admit(2, other);
  core_->Park(2, now_ + absl::Seconds(25));
  for (int i = 0; i < 1000; ++i) {
    core_->Park(1, now_ + absl::Seconds(20) - absl::Milliseconds(i));
    if (i % 3 == 0) core_->Wake(1);
    Check();
  }
  core_->Park(1, now_ + absl::Seconds(22));
  now_ = now_ + absl::Seconds(21);
  EXPECT_EQ(Begin(), nullptr);
  now_ = now_ + absl::Seconds(1);
  EXPECT_THAT(Plan(), ElementsAre(Rows{1, 5}));
  core_->Park(1, SteadyTime::InfiniteFuture());
  Commit();
  EXPECT_EQ(core_->n_parked(), 2);
  now_ = now_ + absl::Seconds(3);
  EXPECT_THAT(Plan(), ElementsAre(Rows{2, 5}));
  Commit();
  now_ = now_ + absl::Seconds(10);
  EXPECT_EQ(Begin(), nullptr);
  EXPECT_EQ(ended_.at(2).code(), absl::StatusCode::kDeadlineExceeded);
}

// ---- Shared prefixes ----

class PrefixTest : public CoreTest {
 protected:
  void SetUp() override {
    Make({.n_blocks = 16, .block_tokens = 4, .max_running = 4, .max_step_tokens = 64, .reuse_prefixes = true});
  }
};

TEST_F(PrefixTest, APrefixIsAdoptedAndNotComputedAgain) {
  Admit(1, Spec(10, 4));
  RunToIdle();
  EXPECT_EQ(core_->pool().n_evictable(), 3) << "positions 0 to 12 were computed";
  EXPECT_EQ(core_->pool().n_held(), 0);
  SequenceSpec longer = Spec(10, 4);
  longer.tokens.push_back(3);
  longer.n_total_max = 20;
  Admit(2, longer);
  EXPECT_THAT(Plan(), ElementsAre(Rows{2, 3})) << "8 of 11 were there";
  EXPECT_EQ(core_->n_cached_tokens(2), 8);
  Commit();
  RunToIdle();
  EXPECT_THAT(answers_[2], ElementsAreArray(Alone(longer)));
  EXPECT_EQ(core_->stats().n_cached_tokens, 8);
}

// The edge of a full hit: somebody has to choose the next token.
TEST_F(PrefixTest, AFullHitStillRunsItsLastRow) {
  Admit(1, Spec(8, 4));
  RunToIdle();
  Admit(2, Spec(8, 4));
  EXPECT_THAT(Plan(), ElementsAre(Rows{2, 1}));
  EXPECT_EQ(work_.rows[0].first, 7);
  EXPECT_THAT(work_.moves, IsEmpty()) << "it is the only holder, so it may write in place";
  Commit();
  RunToIdle();
  EXPECT_THAT(answers_[2], ElementsAreArray(Alone(Spec(8, 4))));
}

TEST_F(PrefixTest, ABlockThatOthersHoldIsCopiedBeforeItIsWritten) {
  Admit(1, Spec(8, 9));
  Step();
  Admit(2, Spec(8, 9));
  const int32_t shared = core_->blocks(1)[1];
  EXPECT_THAT(Plan(), ElementsAre(Rows{1, 1}, Rows{2, 1}));
  ASSERT_EQ(work_.moves.size(), 1u);
  EXPECT_EQ(work_.moves[0].from, shared);
  EXPECT_EQ(work_.moves[0].to, core_->blocks(2)[1]);
  EXPECT_EQ(core_->blocks(1)[0], core_->blocks(2)[0]);
  Commit();
  EXPECT_EQ(core_->blocks(2)[1], shared) << "what turned out the same is one block again";
  RunToIdle();
  EXPECT_THAT(answers_[1], ElementsAreArray(Alone(Spec(8, 9))));
  EXPECT_THAT(answers_[2], ElementsAreArray(Alone(Spec(8, 9))));
}

// Its last row is written in place: what others computed behind the block stays within reach.
TEST_F(PrefixTest, AShortPromptLeavesTheLongOneThatBeginsWithItCached) {
  const auto cached = [&](Ticket ticket, int n_tokens) {
    Admit(ticket, Spec(n_tokens, 2));
    Plan();
    const int n_cached = core_->n_cached_tokens(ticket);
    Commit();
    RunToIdle();
    return n_cached;
  };
  EXPECT_EQ(cached(1, 17), 0);
  EXPECT_EQ(cached(2, 17), 16);
  EXPECT_EQ(cached(3, 4), 3);
  EXPECT_EQ(cached(4, 17), 16);
  // It ends while the block is open, so that the block itself is lost; what stands behind it is sealed anew.
  Admit(5, Spec(4, 2));
  Plan();
  core_->Finish(5, absl::CancelledError("test"));
  Commit();
  EXPECT_EQ(cached(6, 17), 0);
  EXPECT_EQ(cached(7, 17), 16);
}

TEST_F(PrefixTest, AnotherSaltSharesNothing) {
  Admit(1, Spec(10, 4));
  RunToIdle();
  SequenceSpec other = Spec(10, 4);
  other.cache_salt = 7;
  Admit(2, other);
  EXPECT_THAT(Plan(), ElementsAre(Rows{2, 10}));
  Commit();
  RunToIdle();
  Admit(3, other);
  EXPECT_THAT(Plan(), ElementsAre(Rows{3, 2})) << "each salt has its own";
}

TEST_F(PrefixTest, DraftsAreNotSealed) {
  const std::vector<int32_t> answer = Alone(Spec(3, 12));
  Admit(1, Spec(3, 12));
  core_->Grow(1, std::vector<int32_t>{answer[0], (answer[1] + 1) % kVocab, 5, 6, 7, 8, 9});
  Step();
  EXPECT_EQ(core_->tokens(1).size(), 5u);
  EXPECT_EQ(core_->blocks(1).size(), 1u) << "blocks of refuted drafts are free again";
  EXPECT_TRUE(core_->pool().sealed(core_->blocks(1)[0])) << "positions 0 to 3 are final";
  RunToIdle();
  EXPECT_THAT(answers_[1], ElementsAreArray(answer));
}

TEST_F(PrefixTest, HalfRunBlocksAreNotSealed) {
  Admit(1, Spec(8, 4));
  model_->n_complete = [](const RowRun&) { return 5; };
  Step();
  EXPECT_TRUE(core_->pool().sealed(core_->blocks(1)[0]));
  EXPECT_FALSE(core_->pool().sealed(core_->blocks(1)[1]));
}

// Adopted blocks that are taken from a sequence before it ran are no event: it never had anything of its own.
TEST_F(PrefixTest, WhoNeverStartedIsNotEvicted) {
  Admit(1, Spec(16, 1, 1));
  RunToIdle();
  Admit(2, Spec(30, 30, 2));
  Step();
  SequenceSpec like_first = Spec(16, 1, 1);
  like_first.tokens.resize(40, 3);
  like_first.n_total_max = 44;
  Admit(3, like_first);
  Step();
  ASSERT_EQ(core_->n_waiting(), 1);
  ASSERT_EQ(core_->blocks(3).size(), 4u) << "it holds what it adopted";
  for (bool lost = false; core_->contains(2);) {
    Step();
    EXPECT_THAT(Of(Event::Kind::kEvicted), IsEmpty());
    lost |= core_->contains(3) && core_->blocks(3).size() < 4;
    EXPECT_TRUE(lost || core_->contains(2)) << "the case was meant to be met";
  }
  RunToIdle();
  EXPECT_EQ(core_->stats().n_evictions, 0);
  EXPECT_THAT(answers_[3], ElementsAreArray(Alone(like_first)));
}

TEST_F(PrefixTest, ThePreemptedAdoptWhatIsLeftOfTheirOwn) {
  Make({.n_blocks = 6, .block_tokens = 4, .max_running = 4, .max_step_tokens = 64, .reuse_prefixes = true});
  Admit(1, Spec(5, 15, 1));
  Admit(2, Spec(2, 15, 2));
  Admit(3, Spec(6, 15, 3));
  RunToIdle();
  EXPECT_GT(core_->stats().n_preemptions, 0);
  for (const Ticket ticket : {1, 2, 3}) EXPECT_TRUE(ended_.at(ticket).ok());
  EXPECT_THAT(answers_[3], ElementsAreArray(Alone(Spec(6, 15, 3))));
}

// A hash is no proof. Two contents that pass for one: the index tells them apart by tokens, by salt and by what is
// before.
TEST(PrefixIndex, AHitIsOneOfTokensNotOfHashes) {
  PrefixIndex index(4, 2);
  const std::vector<int32_t> a = {1, 2}, b = {1, 3};
  index.Record(0, -1, 0, a);
  index.Record(1, 0, 0, b);
  EXPECT_TRUE(index.Holds(0, -1, 0, a));
  EXPECT_FALSE(index.Holds(0, -1, 0, b)) << "other tokens";
  EXPECT_FALSE(index.Holds(0, -1, 9, a)) << "another salt";
  EXPECT_TRUE(index.Holds(1, 0, 0, b));
  EXPECT_FALSE(index.Holds(1, 2, 0, b)) << "after another block";
  index.Record(0, -1, 0, a);
  EXPECT_TRUE(index.Holds(1, 0, 0, b)) << "sealed again with the same";
  index.Record(0, -1, 0, b);
  EXPECT_FALSE(index.Holds(1, 0, 0, b)) << "after the same block, which holds something else by now";
}

// Three sequences with one prompt of two blocks, each with a block of its own behind it: one that is preempted frees
// one block, not three.
TEST_F(CoreTest, SharedBlocksAreNotCountedAsFreed) {
  Make({.n_blocks = 7, .block_tokens = 4, .max_running = 4, .max_step_tokens = 64, .reuse_prefixes = true});
  for (const Ticket ticket : {1, 2, 3}) {
    Admit(ticket, Spec(8, 16));
    Step();
  }
  Step();
  EXPECT_EQ(core_->n_running(), 3);
  EXPECT_EQ(core_->pool().n_held(), 2 + 3);
  while (Of(Event::Kind::kPreempted).empty()) {
    Plan();
    if (!Of(Event::Kind::kPreempted).empty()) break;
    Commit();
  }
  EXPECT_THAT(Of(Event::Kind::kPreempted), ElementsAre(3));
  EXPECT_EQ(core_->pool().n_held(), 7) << "the last of 7 blocks went to a third one's row";
  Commit();
  RunToIdle();
  for (const Ticket ticket : {1, 2, 3}) EXPECT_THAT(answers_[ticket], ElementsAreArray(Alone(Spec(8, 16))));
}

// ---- Load ----

TEST_F(CoreTest, LoadSaysWhatIsGoingOn) {
  Make({.n_blocks = 8, .block_tokens = 4, .max_running = 1, .max_step_tokens = 8});
  EXPECT_EQ(core_->load().predicted_wait_ms, 0.0);
  Admit(1, Spec(12, 4));
  Admit(2, Spec(5, 3));
  Step();
  const LoadReport load = core_->load();
  EXPECT_EQ(load.running_requests, 1);
  EXPECT_EQ(load.queued_requests, 1);
  EXPECT_EQ(load.running_tokens, 8);
  EXPECT_EQ(load.queued_tokens, 4 + 5);
  EXPECT_EQ(load.kv_used_fraction, 2.0 / 8.0);
  EXPECT_GT(load.predicted_wait_ms, 0.0);
  RunToIdle();
  EXPECT_NEAR(core_->load().decode_tokens_per_s, 1000.0, 1e-6) << "one step takes a millisecond of the fake clock";
  EXPECT_EQ(core_->load().kv_used_fraction, 0.0);
}

}  // namespace
}  // namespace updraft::engine
