// The daemon with the paced executor: what happens when is known beforehand, to the step.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "common/clock/steady.h"
#include "tests/cloud/service/live_cloud.h"

namespace updraft {
namespace {

using testing::Answer;
using testing::Ask;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using testing::PromptRequest;

TEST(PacedCloud, AnAnswerTakesItsRowsAndHasTheLengthAskedFor) {
  const auto cloud = testing::StartCloud({"--paced-us-per-row=2000", "--paced-us-per-step=1000"});
  ASSERT_NE(cloud, nullptr);
  auto stub = v1::Inference::NewStub(testing::ChannelTo(*cloud));
  const SteadyTime begin = SteadyNow();
  const Answer answer = Ask(*stub, PromptRequest("hello", 40));
  const absl::Duration took = SteadyNow() - begin;
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.tokens.size(), 40u);
  EXPECT_EQ(answer.done.finish_reason(), v1::FINISH_REASON_LENGTH);
  // A step for the prompt, 39 for the rest of the answer; the last token is chosen and not run.
  const int n_rows = answer.done.usage().prompt_tokens() + 39;
  const absl::Duration least = n_rows * absl::Milliseconds(2) + 40 * absl::Milliseconds(1);
  EXPECT_GE(took, least);
  EXPECT_LE(took, least + absl::Seconds(3)) << "a busy machine takes some, not so much";
  EXPECT_EQ(cloud->stats().n_rows, n_rows);
  EXPECT_EQ(cloud->stats().n_steps, 40);
  EXPECT_GT(cloud->load().decode_tokens_per_s, 0.0);
  EXPECT_THAT(Ask(*stub, PromptRequest("hello", 40)).tokens, ElementsAreArray(answer.tokens));
}

// Two at a time, each for more than a second: the third waits for a place, and its deadline falls
// meanwhile.
TEST(PacedCloud, ADeadlineFallsWhileTheRequestIsQueued) {
  const auto cloud = testing::StartCloud({"--paced-us-per-row=5000", "--max-running=2", "--max-step-tokens=64"});
  ASSERT_NE(cloud, nullptr);
  auto stub = v1::Inference::NewStub(testing::ChannelTo(*cloud));
  std::vector<Answer> answers(2);
  std::vector<std::thread> clients;
  for (Answer& answer : answers) {
    clients.emplace_back([&] { answer = Ask(*stub, PromptRequest("abc", 150)); });
  }
  while (cloud->load().running_requests < 2) absl::SleepFor(absl::Milliseconds(1));
  const Answer late = Ask(*stub, PromptRequest("abc", 2), absl::Milliseconds(100));
  EXPECT_EQ(late.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(late.tokens.empty());
  for (std::thread& client : clients) client.join();
  for (const Answer& answer : answers) {
    EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
    EXPECT_EQ(answer.tokens.size(), 150u);
  }
  EXPECT_TRUE(testing::WaitForFreeBlocks(*cloud));
}

TEST(PacedCloud, RefusesPacesThatCannotBe) {
  for (const char* flag : {"--paced-us-per-row=-1", "--paced-us-per-step=10000001", "--paced-us-per-row=fast"}) {
    v1::CloudConfig config;
    const auto loaded = LoadConfig(std::vector<const char*>{"--model=m.gguf", flag}, &config);
    EXPECT_EQ(loaded.status().code(), absl::StatusCode::kInvalidArgument) << flag;
    EXPECT_THAT(std::string(loaded.status().message()), HasSubstr("paced")) << flag;
  }
}

}  // namespace
}  // namespace updraft
