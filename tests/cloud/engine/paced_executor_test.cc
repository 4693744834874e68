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

// On a clock of its own, whose sleeps are all too long.
TEST(PacedExecutor, StepsWithoutAPauseKeepThePaceAndAPauseIsNotMadeUpFor) {
  SteadyTime now;
  PacedExecutor executor(
      100, 1000, {.per_step = absl::Microseconds(500), .per_row = absl::Microseconds(100)}, {}, [&] { return now; },
      [&](absl::Duration d) { now = now + d + absl::Microseconds(700); });
  const std::vector<int32_t> tokens(10, 1), positions(10, 0);
  const std::vector<const int32_t*> tables(10, nullptr);
  const SamplingOptions sampling;
  const std::vector<SampleRow> samples = {{.row = 9, .sampling = &sampling, .context = {.tokens = tokens}}};
  std::vector<SampledToken> sampled(1);
  const auto run = [&] {
    const Step step{
        .moves = {}, .batch = {.tokens = tokens, .positions = positions, .block_tables = tables}, .samples = samples};
    ASSERT_TRUE(executor.Run(step, std::span<SampledToken>(sampled)).ok());
    now = now + absl::Microseconds(50);  // what the engine does between steps
  };
  constexpr absl::Duration kStep = absl::Microseconds(1500), kSlack = absl::Microseconds(750);
  SteadyTime begin = now;
  for (int i = 1; i <= 50; ++i) {
    run();
    EXPECT_GE(now - begin, i * kStep);
    EXPECT_LE(now - begin, i * kStep + kSlack) << i;
  }
  now = now + absl::Milliseconds(10);
  begin = now;
  run();
  EXPECT_GE(now - begin, kStep) << "a step after a pause takes its whole time";
  EXPECT_EQ(sampled[0].token, executor.NextToken(tokens, 0));
}

}  // namespace
}  // namespace updraft::engine
