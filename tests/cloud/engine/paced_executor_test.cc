#include "cloud/engine/paced_executor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace updraft::engine {
namespace {

TEST(PacedExecutor, TokensDependOnTheSequenceAndAvoidTheEnds) {
  const PacedExecutor executor(100, 1000, {}, /*avoid=*/{0, 7, 99, -1, 100});
  std::vector<int32_t> context = {5};
  std::set<int32_t> seen;
  for (int i = 0; i < 2000; ++i) {
    const int32_t next = executor.NextToken(context, 3);
    ASSERT_EQ(next, executor.NextToken(context, 3));
    ASSERT_GE(next, 0);
    ASSERT_LT(next, 100);
    ASSERT_TRUE(next != 0 && next != 7 && next != 99) << next;
    seen.insert(next);
    context.push_back(next);
  }
  EXPECT_GT(seen.size(), 50u);
  EXPECT_NE(executor.NextToken(std::vector<int32_t>{1, 2}, 1), executor.NextToken(std::vector<int32_t>{1, 2}, 2));
}

TEST(PacedExecutor, AStepTakesItsTimeAndManyKeepThePace) {
  PacedExecutor executor(100, 1000, {.per_step = absl::Microseconds(500), .per_row = absl::Microseconds(100)});
  const std::vector<int32_t> tokens(10, 1), positions(10, 0);
  const std::vector<const int32_t*> tables(10, nullptr);
  const SamplingOptions sampling;
  const std::vector<SampleRow> samples = {{.row = 9, .sampling = &sampling, .context = tokens}};
  std::vector<SampledToken> sampled(1);
  const SteadyTime begin = SteadyNow();
  constexpr int kSteps = 50;
  for (int i = 0; i < kSteps; ++i) {
    const Step step{
        .moves = {}, .batch = {.tokens = tokens, .positions = positions, .block_tables = tables}, .samples = samples};
    ASSERT_TRUE(executor.Run(step, std::span<SampledToken>(sampled)).ok());
  }
  const absl::Duration took = SteadyNow() - begin;
  // What one sleep is too long, the next is shorter: late by one sleep at most, but for what a busy machine takes away.
  EXPECT_GE(took, kSteps * absl::Microseconds(1500));
  EXPECT_LE(took, kSteps * absl::Microseconds(1500) + absl::Milliseconds(75)) << "twice the time that was set";
  EXPECT_EQ(sampled[0].token, executor.NextToken(tokens, 0));
}

}  // namespace
}  // namespace updraft::engine
