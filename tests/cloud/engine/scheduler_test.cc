#include "cloud/engine/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

namespace updraft::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const absl::Time kNow = absl::FromUnixSeconds(1000);

SequenceView Running(uint64_t ticket, int n_tokens, int n_computed, int block_tokens) {
  const int n_blocks = (n_computed + block_tokens - 1) / block_tokens;
  return {
      .ticket = ticket, .n_tokens = n_tokens, .n_computed = n_computed, .n_blocks = n_blocks, .n_releasable = n_blocks};
}

SequenceView Waiting(uint64_t ticket, int n_tokens) { return {.ticket = ticket, .n_tokens = n_tokens}; }

Plan Next(const SchedulerOptions& options, const std::vector<SequenceView>& running,
          const std::vector<SequenceView>& waiting, int n_free, int block_tokens = 4) {
  return Scheduler(options).Next(
      {.running = running, .waiting = waiting, .n_free_blocks = n_free, .block_tokens = block_tokens, .now = kNow});
}

testing::Matcher<const PlannedRows&> Rows(uint64_t ticket, int n_rows) {
  return testing::AllOf(testing::Field(&PlannedRows::ticket, ticket), testing::Field(&PlannedRows::n_rows, n_rows));
}

TEST(Scheduler, IdleGivesAnEmptyPlan) {
  const Plan plan = Next({.max_running = 4, .max_step_tokens = 8}, {}, {}, 10);
  EXPECT_THAT(plan.rows, IsEmpty());
  EXPECT_THAT(plan.admitted, IsEmpty());
}

TEST(Scheduler, AdmitsInOrderAndChunksThePrefill) {
  const Plan plan =
      Next({.max_running = 4, .max_step_tokens = 8}, {}, {Waiting(1, 5), Waiting(2, 10), Waiting(3, 1)}, 100);
  EXPECT_THAT(plan.admitted, ElementsAre(1, 2));
  EXPECT_THAT(plan.rows, ElementsAre(Rows(1, 5), Rows(2, 3)));
}

TEST(Scheduler, DecodeRowsComeBeforePrefill) {
  const Plan plan = Next({.max_running = 4, .max_step_tokens = 4},
                         {Running(1, 30, 8, 4), Running(2, 9, 8, 4), Running(3, 5, 4, 4)}, {}, 100);
  EXPECT_THAT(plan.rows, ElementsAre(Rows(1, 2), Rows(2, 1), Rows(3, 1)));
}

TEST(Scheduler, ALargeRequestAtTheHeadIsNotOvertaken) {
  const Plan plan =
      Next({.max_running = 4, .max_step_tokens = 64}, {Running(1, 9, 8, 4)}, {Waiting(2, 40), Waiting(3, 1)}, 5);
  EXPECT_THAT(plan.admitted, IsEmpty());
  EXPECT_THAT(plan.rows, ElementsAre(Rows(1, 1)));
}

TEST(Scheduler, MaxRunningHolds) {
  const Plan plan =
      Next({.max_running = 2, .max_step_tokens = 64}, {Running(1, 9, 8, 4)}, {Waiting(2, 3), Waiting(3, 3)}, 100);
  EXPECT_THAT(plan.admitted, ElementsAre(2));
}

TEST(Scheduler, TheYoungestIsPreemptedForAnOlderOne) {
  const Plan plan = Next({.max_running = 4, .max_step_tokens = 64},
                         {Running(1, 9, 8, 4), Running(2, 6, 5, 4), Running(3, 7, 6, 4)}, {Waiting(4, 1)}, 0);
  EXPECT_THAT(plan.preempted, ElementsAre(3));
  EXPECT_THAT(plan.rows, ElementsAre(Rows(1, 1), Rows(2, 1)));
  EXPECT_THAT(plan.admitted, IsEmpty()) << "nobody is admitted into blocks that were just taken away";
}

TEST(Scheduler, TheYoungestItselfJustWaits) {
  const Plan plan = Next({.max_running = 4, .max_step_tokens = 64}, {Running(1, 6, 5, 4), Running(2, 9, 8, 4)}, {}, 0);
  EXPECT_THAT(plan.preempted, IsEmpty());
  EXPECT_THAT(plan.rows, ElementsAre(Rows(1, 1)));
}

TEST(Scheduler, ExpiredRequestsMakeRoomInTheSamePlan) {
  std::vector<SequenceView> running = {Running(1, 9, 8, 4), Running(2, 9, 8, 4)};
  running[1].deadline = kNow;
  std::vector<SequenceView> waiting = {Waiting(3, 2), Waiting(4, 2)};
  waiting[0].deadline = kNow - absl::Seconds(1);
  waiting[1].deadline = kNow + absl::Nanoseconds(1);
  const Plan plan = Next({.max_running = 4, .max_step_tokens = 64}, running, waiting, 1);
  EXPECT_THAT(plan.expired, ElementsAre(2, 3));
  EXPECT_THAT(plan.admitted, ElementsAre(4));
  EXPECT_THAT(plan.rows, ElementsAre(Rows(1, 1), Rows(4, 2)));
}

TEST(Scheduler, SharedBlocksAreNotCountedAsFreed) {
  std::vector<SequenceView> running = {Running(1, 9, 8, 4), Running(2, 9, 8, 4), Running(3, 9, 8, 4)};
  running[2].n_releasable = 0;
  const Plan plan = Next({.max_running = 4, .max_step_tokens = 64}, running, {}, 0);
  EXPECT_THAT(plan.preempted, ElementsAre(3, 2));
  EXPECT_THAT(plan.rows, ElementsAre(Rows(1, 1)));
}

// Random states that the engine could be in; every rule of CONTRACT.md that speaks of plans.
TEST(Scheduler, PlansKeepTheContract) {
  const uint32_t seed = 4711;
  std::mt19937 random(seed);
  const auto draw = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  for (int round = 0; round < 20000; ++round) {
    SCOPED_TRACE(testing::Message() << "seed " << seed << " round " << round);
    const int block_tokens = draw(1, 8), n_blocks = draw(4, 40);
    const SchedulerOptions options{.max_running = draw(1, 6), .max_step_tokens = draw(6, 40)};
    const int capacity = n_blocks * block_tokens;
    const auto blocks_for = [&](int n) { return (n + block_tokens - 1) / block_tokens; };
    std::vector<SequenceView> running, waiting;
    std::map<uint64_t, SequenceView> by_ticket;
    uint64_t ticket = 1;
    int n_free = n_blocks;
    for (int n = draw(0, options.max_running); n > 0; --n) {
      const int n_tokens = draw(1, capacity);
      const int n_computed = draw(0, 1) ? n_tokens - 1 : draw(0, n_tokens - 1);
      if (blocks_for(n_computed) > n_free) continue;
      SequenceView view = Running(ticket++, n_tokens, n_computed, block_tokens);
      if (draw(0, 9) == 0) view.deadline = kNow - absl::Seconds(draw(0, 1));
      n_free -= view.n_blocks;
      running.push_back(view);
      by_ticket[view.ticket] = view;
    }
    for (int n = draw(0, 5); n > 0; --n) {
      SequenceView view = Waiting(ticket++, draw(1, capacity));
      if (draw(0, 9) == 0) view.deadline = kNow;
      waiting.push_back(view);
      by_ticket[view.ticket] = view;
    }
    const Plan plan = Next(options, running, waiting, n_free, block_tokens);

    const std::set<uint64_t> expired(plan.expired.begin(), plan.expired.end());
    for (const auto& [t, view] : by_ticket) EXPECT_EQ(expired.count(t) == 1, view.deadline <= kNow);
    std::vector<uint64_t> alive, queue;
    for (const auto& view : running) {
      if (expired.count(view.ticket))
        n_free += view.n_blocks;
      else
        alive.push_back(view.ticket);
    }
    for (const auto& view : waiting) {
      if (!expired.count(view.ticket)) queue.push_back(view.ticket);
    }
    // Preempted: youngest first.
    for (const uint64_t t : plan.preempted) {
      ASSERT_FALSE(alive.empty());
      ASSERT_EQ(alive.back(), t);
      n_free += by_ticket[t].n_blocks;
      alive.pop_back();
    }
    // Admitted: a prefix of the queue, within max_running, never beside a preemption.
    ASSERT_LE(plan.admitted.size(), queue.size());
    EXPECT_TRUE(std::equal(plan.admitted.begin(), plan.admitted.end(), queue.begin()));
    EXPECT_LE(alive.size() + plan.admitted.size(), static_cast<size_t>(options.max_running));
    if (!plan.preempted.empty()) {
      EXPECT_THAT(plan.admitted, IsEmpty());
    }
    // Rows: ascending tickets of running or admitted sequences, within the budget, within the blocks.
    std::set<uint64_t> may_run(alive.begin(), alive.end());
    may_run.insert(plan.admitted.begin(), plan.admitted.end());
    uint64_t previous = 0;
    int n_rows = 0;
    std::map<uint64_t, int> rows_of;
    for (const PlannedRows& rows : plan.rows) {
      EXPECT_GT(rows.ticket, previous);
      previous = rows.ticket;
      EXPECT_TRUE(may_run.count(rows.ticket));
      const SequenceView& view = by_ticket[rows.ticket];
      EXPECT_GE(rows.n_rows, 1);
      EXPECT_LE(rows.n_rows, view.n_tokens - view.n_computed);
      n_rows += rows.n_rows;
      n_free -= std::max(0, blocks_for(view.n_computed + rows.n_rows) - view.n_blocks);
      rows_of[rows.ticket] = rows.n_rows;
    }
    EXPECT_LE(n_rows, options.max_step_tokens);
    EXPECT_GE(n_free, 0);
    for (const uint64_t t : plan.admitted) EXPECT_EQ(rows_of.count(t), 1u) << "admitted without rows";
    // Forward progress: the oldest running one advances; with nothing running, the head of the queue does.
    if (!alive.empty()) {
      EXPECT_EQ(rows_of.count(alive.front()), 1u);
    } else if (!queue.empty() && plan.preempted.empty()) {
      EXPECT_THAT(plan.admitted, testing::Not(IsEmpty()));
    }
    // A decoding sequence that has room in its own last block is never held up.
    for (const uint64_t t : alive) {
      const SequenceView& view = by_ticket[t];
      const bool decoding = view.n_tokens - view.n_computed == 1;
      if (decoding && view.n_computed < view.n_blocks * block_tokens) {
        EXPECT_EQ(rows_of[t], 1);
      }
    }
    if (testing::Test::HasFailure()) break;
  }
}

}  // namespace
}  // namespace updraft::engine
