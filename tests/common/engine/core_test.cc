// The core by example: order, admission, preemption, ends, parking, load.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/common/engine/core_fixture.h"
#include "tests/common/engine/load_of_two.h"

namespace updraft::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

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

// Those who park when their step is over are among the times that are kept.
TEST_F(CoreTest, TheEndOfAParkingMayBeMovedWhileItsStepRuns) {
  Make({.n_blocks = 16, .block_tokens = 4, .max_running = 4, .max_step_tokens = 64});
  Admit(1, Spec(5, 9));
  Admit(2, Spec(5, 9, 2));
  Plan();
  core_->Park(2, now_ + absl::Seconds(5));
  for (int i = 0; i < 100; ++i) {
    core_->Park(1, now_ + absl::Seconds(20) - absl::Milliseconds(i));
    Check();
  }
  Commit();
  EXPECT_EQ(core_->n_parked(), 2);
  now_ = now_ + absl::Seconds(5);
  EXPECT_THAT(Plan(), ElementsAre(Rows{2, 1}));
}

// ---- Load ----

TEST_F(CoreTest, LoadSaysWhatIsGoingOn) {
  Make({.n_blocks = 8, .block_tokens = 4, .max_running = 1, .max_step_tokens = 8});
  EXPECT_EQ(core_->load().predicted_wait_ms, 0.0);
  Admit(1, Spec(12, 4));
  Admit(2, Spec(5, 3));
  Step();
  ExpectOneRunsAndOneWaits(core_->load());
  RunToIdle();
  ExpectNothingLeft(core_->load());
}

}  // namespace
}  // namespace updraft::engine
