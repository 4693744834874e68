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

}  // namespace
}  // namespace updraft::engine
