// Rows ahead of what is known, by example: drafts, and rows that an executor left half-run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/common/engine/core_fixture.h"

namespace updraft::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::IsEmpty;

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

// Without its drafts the first has 2 of the 8 blocks, room for one draft in them, and a third in reserve.
TEST_F(CoreTest, HalfRunDraftsGiveTheirBlocksBackToTheHeadOfTheQueueWhereThatSuffices) {
  for (const auto& [n_tokens, plan] :
       {std::pair(10, std::vector<Rows>{{1, 2}, {2, 10}}), {11, std::vector<Rows>{{1, 9}}}}) {
    SCOPED_TRACE(n_tokens);
    Make({.n_blocks = 8, .block_tokens = 2, .max_running = 2, .max_step_tokens = 64});
    Admit(1, Spec(2, 10));
    Step();
    model_->n_complete = [](const RowRun&) { return 0; };
    model_->n_chosen = [](const RowRun&) { return 0; };
    core_->Grow(1, std::vector<int32_t>(8, 9));
    EXPECT_THAT(Plan(), ElementsAre(Rows{1, 9}));
    EXPECT_EQ(core_->blocks(1).size(), 6u);
    Commit();
    Admit(2, Spec(n_tokens, 2, 5));
    EXPECT_THAT(Plan(), ElementsAreArray(plan));
    EXPECT_EQ(work_.rows[0].n_continued, plan.size() == 1 ? 9 : 1) << "drafts that stay are not run anew";
    Commit();
    model_->n_complete = [](const RowRun& run) { return run.n_rows; };
    model_->n_chosen = [](const RowRun& run) { return run.n_sampled; };
    RunToIdle();
    EXPECT_THAT(answers_[1], ElementsAreArray(Alone(Spec(2, 10))));
    EXPECT_THAT(answers_[2], ElementsAreArray(Alone(Spec(n_tokens, 2, 5))));
  }
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

}  // namespace
}  // namespace updraft::engine
