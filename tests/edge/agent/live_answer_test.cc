// The agent on an upstream that is no link: called back before its own call returns, and from other threads.
#include <gmock/gmock.h>

#include <random>

#include "absl/strings/str_cat.h"
#include "edge/agent/agent.h"
#include "edge/agent/mailbox.h"
#include "tests/edge/agent/agent_fixture.h"
#include "tests/edge/agent/scripted_upstream.h"

namespace updraft::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;
using From = ScriptedUpstream::From;
using Play = ScriptedUpstream::Play;

v1::GenerateResponse Chunk(const std::string& text, std::vector<int32_t> tokens) {
  v1::GenerateResponse response;
  *response.mutable_chunk() = CloudChunk(text, std::move(tokens));
  response.mutable_chunk()->set_tier("cloud");
  return response;
}

v1::GenerateResponse Done() {
  v1::GenerateResponse response;
  response.mutable_done()->set_finish_reason(v1::FINISH_REASON_STOP);
  return response;
}

class LiveAnswerTest : public AgentTest, public ::testing::WithParamInterface<From> {
 protected:
  std::unique_ptr<Agent> MakeScripted(std::function<Play(const v1::GenerateRequest&)> play) {
    AgentOptions options;
    options.policy.confidence_threshold = 1.0;
    options.max_queued = 1000;
    return std::make_unique<Agent>(options, LoadModel(), MakeSession(1),
                                   std::make_unique<ScriptedUpstream>(GetParam(), Fingerprint(), std::move(play)),
                                   &metrics_);
  }
};

TEST_P(LiveAnswerTest, WholeAnswerFromAbove) {
  auto agent = MakeScripted([](const v1::GenerateRequest&) {
    return Play{{Chunk("from", {10, 11}), Chunk(" above", {12}), Done()}, absl::OkStatus()};
  });
  auto answer = Ask(*agent, ChatRequest("hello there"));
  ASSERT_TRUE(answer->status().ok()) << answer->status();
  EXPECT_EQ(answer->text(), "from above");
  EXPECT_THAT(answer->spans(), ElementsAre(Pair("cloud", 3)));
  EXPECT_EQ(answer->provenance().bytes_up(), 7u);
}

TEST_P(LiveAnswerTest, DiesAfterEveryTokenAndIsFinishedHere) {
  const v1::GenerateRequest request = ChatRequest("hello there", 20);
  auto truth = LocalTruth(request);
  const std::vector<v1::Chunk> chunks = AsUpstream(*truth);
  for (size_t k = 0; k <= chunks.size(); ++k) {
    auto agent = MakeScripted([&](const v1::GenerateRequest&) {
      Play play;
      for (size_t i = 0; i < k; ++i) play.responses.emplace_back().mutable_chunk()->CopyFrom(chunks[i]);
      play.end = absl::InternalError("scripted");
      return play;
    });
    auto answer = Ask(*agent, request);
    ASSERT_TRUE(answer->status().ok()) << answer->status();
    EXPECT_EQ(answer->tokens(), truth->tokens()) << "after " << k;
    EXPECT_EQ(answer->text(), truth->text()) << "after " << k;
  }
}

// Refused as ids it is called again, from within the end of the first call.
TEST_P(LiveAnswerTest, CalledAgainFromWithinTheEndOfACall) {
  int n_calls = 0;
  auto agent = MakeScripted([&](const v1::GenerateRequest& request) {
    ++n_calls;
    if (request.has_tokens()) return Play{{}, absl::FailedPreconditionError("fingerprints differ")};
    return Play{{Chunk("text", {}), Done()}, absl::OkStatus()};
  });
  auto answer = Ask(*agent, ChatRequest("hello there"));
  ASSERT_TRUE(answer->status().ok()) << answer->status();
  EXPECT_EQ(answer->text(), "text");
  EXPECT_EQ(n_calls, 2);
}

TEST_P(LiveAnswerTest, ReaderThatRefusesEndsItsOwnAnswerOnly) {
  auto agent = MakeScripted([](const v1::GenerateRequest&) {
    Play play;
    for (int i = 0; i < 20; ++i) play.responses.push_back(Chunk("x", {1}));
    play.responses.push_back(Done());
    return play;
  });
  auto sink = std::make_shared<CollectingSink>();
  sink->set_accepts(3);
  agent->Submit(ChatRequest("hello there", 30), SteadyTime::InfiniteFuture(), sink);
  auto other = Ask(*agent, ChatRequest("hello there", 30));
  ASSERT_TRUE(sink->Wait());
  EXPECT_EQ(sink->status().code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(other->status().ok());
  EXPECT_EQ(other->text(), std::string(20, 'x'));
}

INSTANTIATE_TEST_SUITE_P(From, LiveAnswerTest, ::testing::Values(From::kCaller, From::kAnotherThread),
                         [](const auto& info) {
                           return info.param == From::kCaller ? "TheCallItself" : "AnotherThread";
                         });

// ---- Mailbox ------------------------------------------------------------------------------------------------------

TEST(MailboxTest, HandlesOneAtATimeInOrderWhoeverPosts) {
  Mailbox<int> mailbox;
  std::vector<int> seen;  // touched by handlers alone: the mailbox orders them
  int inside = 0;
  const auto handle = [&](int message) {
    EXPECT_EQ(inside++, 0) << "two handlers at once";
    seen.push_back(message);
    --inside;
  };
  constexpr int kThreads = 8, kEach = 2000;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) mailbox.Post(t * kEach + i, handle);
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_EQ(seen.size(), static_cast<size_t>(kThreads * kEach)) << "handled by the time the last post returns";
  std::vector<int> next(kThreads, 0);
  for (const int message : seen) EXPECT_EQ(message % kEach, next[message / kEach]++) << "out of order";
}

TEST(MailboxTest, HandlerMayPost) {
  Mailbox<int> mailbox;
  std::vector<int> seen;
  std::function<void(int)> handle = [&](int message) {
    seen.push_back(message);
    if (message < 5) mailbox.Post(message + 1, handle);
  };
  mailbox.Post(0, handle);
  EXPECT_THAT(seen, ElementsAre(0, 1, 2, 3, 4, 5));
}

}  // namespace
}  // namespace updraft::testing
