// What goes up when a prompt is too long for a tier, and what an upstream that breaks the contract can do to an answer.
#include <gmock/gmock.h>

#include "common/status/this_request.h"
#include "common/text/utf8.h"
#include "edge/agent/agent.h"
#include "tests/edge/agent/agent_fixture.h"

namespace updraft::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

// ---- Sizes --------------------------------------------------------------------------------------------------------

TEST_F(AgentTest, PromptTooLongForTheDeviceGoesUp) {
  FakeUpstream cloud(Fingerprint());
  cloud.on_generate = [](const v1::GenerateRequest&) {
    Script script;
    script.chunks = {CloudChunk("above", {1})};
    return script;
  };
  auto agent = MakeAgent(cloud.address(), {.kv_tokens = 64});
  const v1::GenerateRequest request = ChatRequest(std::string(300, 'q'));
  auto answer = Ask(*agent, request);
  ASSERT_TRUE(answer->status().ok()) << answer->status();
  EXPECT_EQ(answer->text(), "above");
  auto alone = MakeAgent("", {.kv_tokens = 64});
  auto refused = Ask(*alone, request);
  EXPECT_EQ(refused->status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(refused->status().message()), HasSubstr("kv-tokens"));
}

TEST_F(AgentTest, PromptTooLongForBothTiersIsRefusedAtOnce) {
  FakeUpstream cloud(Fingerprint());
  cloud.context_length = 600;
  auto agent = MakeAgent(cloud.address(), {.threshold = 0.0});
  std::string text;
  while (text.size() < 4000) text += "hello there ";
  auto answer = Ask(*agent, ChatRequest(text));
  EXPECT_EQ(answer->status().code(), absl::StatusCode::kOutOfRange) << answer->status();
  EXPECT_THAT(std::string(answer->status().message()), HasSubstr("shorten the conversation"));
  EXPECT_THAT(cloud.requests(), IsEmpty());
}

// A megabyte takes long to tokenize: what no tier has room for is refused by its bytes.
TEST_F(AgentTest, PromptFarTooLongIsRefusedWithoutTokenizingIt) {
  FakeUpstream cloud(Fingerprint());
  cloud.context_length = 600;
  auto alone = MakeAgent("", {}), below = MakeAgent(cloud.address(), {});
  v1::GenerateRequest chat = ChatRequest(std::string(1 << 20, 'x')), prompt = chat;
  prompt.set_prompt(chat.conversation().messages(0).content());
  for (Agent* agent : {alone.get(), below.get()}) {
    for (const v1::GenerateRequest& request : {chat, prompt}) {
      auto answer = Ask(*agent, request);
      EXPECT_EQ(answer->status().code(), absl::StatusCode::kOutOfRange);
      EXPECT_THAT(std::string(answer->status().message()), HasSubstr("1048576 bytes are at least"));
    }
  }
  EXPECT_THAT(cloud.requests(), IsEmpty());
}

TEST_F(AgentTest, RoomAboveIsCountedEvenWhileTheLinkIsDown) {
  FakeUpstream cloud(Fingerprint());
  cloud.context_length = 1 << 20;
  cloud.on_generate = [](const v1::GenerateRequest&) {
    Script script;
    script.end_after = 0;
    return script;
  };
  auto agent = MakeAgent(cloud.address(), {.threshold = 1.0});
  for (int i = 0; i < 2; ++i) {  // the first one finds the link down
    auto answer = Ask(*agent, ChatRequest(std::string(200000, 'x')));
    EXPECT_EQ(answer->status().code(), absl::StatusCode::kUnavailable) << answer->status();
    EXPECT_TRUE(IsOfThisRequestAlone(answer->status())) << "others are answered here";
  }
}

// Refused for its size, not for want of room: the next request must not wait for anything.
TEST_F(AgentTest, RequestTooLargeForUpstreamSaysNothingOfItsLoad) {
  FakeUpstream cloud(Fingerprint());
  cloud.on_generate = [](const v1::GenerateRequest&) {
    Script script;
    script.end_after = 0;
    script.status = grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "Received message larger than max");
    return script;
  };
  auto agent = MakeAgent(cloud.address(), {.threshold = 1.0});
  EXPECT_TRUE(Ask(*agent, ChatRequest("hello there"))->provenance().degraded());
  Ask(*agent, ChatRequest("hello there"));
  EXPECT_EQ(cloud.requests().size(), 2u);
}

// ---- Upstream breaks the contract ---------------------------------------------------------------------------------

// A script that says `chunk` over and over, far more often than any answer needs.
Script Endless(const v1::Chunk& chunk) {
  Script script;
  script.chunks.assign(200000, chunk);
  return script;
}

TEST_F(AgentTest, MoreTokensThanWereAskedForAreCutOff) {
  FakeUpstream cloud(Fingerprint());
  cloud.on_generate = [](const v1::GenerateRequest&) { return Endless(CloudChunk("spam ", {5, 6, 7})); };
  auto agent = MakeAgent(cloud.address(), {.threshold = 1.0});
  auto answer = Ask(*agent, ChatRequest("hello there", 10));
  ASSERT_TRUE(answer->status().ok()) << answer->status();
  EXPECT_THAT(answer->tokens(), ElementsAre(5, 6, 7, 5, 6, 7, 5, 6, 7, 5));
  EXPECT_EQ(answer->text(), "spam spam spam spam ");
  EXPECT_EQ(answer->done().finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(answer->done().usage().completion_tokens(), 10);
  EXPECT_THAT(answer->spans(), ElementsAre(Pair("cloud", 10)));
  EXPECT_FALSE(answer->provenance().degraded());
  EXPECT_TRUE(agent->CurrentLink().reachable()) << "an answer that we ended says nothing of the link";
  for (int i = 0; i < 2000 && cloud.n_cancelled() == 0; ++i) absl::SleepFor(absl::Milliseconds(5));
  EXPECT_EQ(cloud.n_cancelled(), 1);
}

TEST_F(AgentTest, EndlessTextWithoutTokensIsCutOff) {
  FakeUpstream cloud("another fingerprint");
  cloud.on_generate = [](const v1::GenerateRequest&) { return Endless(CloudChunk("100 \u20ac and more ", {})); };
  auto agent = MakeAgent(cloud.address(), {.threshold = 1.0});
  auto answer = Ask(*agent, ChatRequest("hello there", 10));
  ASSERT_TRUE(answer->status().ok()) << answer->status();
  EXPECT_GT(answer->text().size(), 1000u);
  EXPECT_LT(answer->text().size(), 10000u);
  EXPECT_EQ(answer->text(), text::LossyUtf8(answer->text())) << "cut within a character";
  EXPECT_EQ(answer->done().finish_reason(), v1::FINISH_REASON_LENGTH);
}

// An upstream that calls itself otherwise with every chunk would make provenance, and the work of keeping it, endless.
TEST_F(AgentTest, WriterThatChangesItsNameAllTheTimeKeepsTheLastOne) {
  constexpr int kChunks = 3000;
  FakeUpstream cloud(Fingerprint());
  cloud.on_generate = [](const v1::GenerateRequest&) {
    Script script;
    for (int i = 0; i < kChunks; ++i) {
      script.chunks.push_back(CloudChunk("x", {5}));
      script.chunks.back().set_tier(i % 2 == 0 ? "one" : "two");
    }
    return script;
  };
  auto agent = MakeAgent(cloud.address(), {.mode = PolicyMode::kUpstream});
  auto answer = Ask(*agent, ChatRequest("hello there", 2 * kChunks));
  ASSERT_TRUE(answer->status().ok()) << answer->status();
  EXPECT_EQ(answer->text(), std::string(kChunks, 'x'));
  EXPECT_LE(answer->spans().size(), 257u);
  int n_tokens = 0;
  for (const auto& [tier, n] : answer->spans()) n_tokens += n;
  EXPECT_EQ(n_tokens, kChunks);
}

TEST_F(AgentTest, AcceptedPrefixCountsTowardsTheLimitFromAbove) {
  FakeUpstream cloud(Fingerprint());
  cloud.on_generate = [](const v1::GenerateRequest&) { return Endless(CloudChunk("x", {5})); };
  auto agent = MakeAgent(cloud.address(), {.mode = PolicyMode::kUpstream});
  v1::GenerateRequest request;
  request.set_max_tokens(8);
  request.mutable_tokens()->set_tokenizer_fingerprint(Fingerprint());
  for (int id : {10, 11, 12}) request.mutable_tokens()->add_ids(id);
  for (int id : {20, 21}) request.add_accepted_prefix(id);
  auto answer = Ask(*agent, request);
  ASSERT_TRUE(answer->status().ok()) << answer->status();
  EXPECT_EQ(answer->tokens(), std::vector<int32_t>(6, 5));
}

// Ids that no vocabulary of ours has cannot be gone on from; the text can.
TEST_F(AgentTest, TokensOutsideTheVocabularyCountAsTextAlone) {
  for (const int32_t bad : {-5, 512, 2000000000}) {
    FakeUpstream cloud(Fingerprint());
    cloud.on_generate = [bad](const v1::GenerateRequest&) {
      Script script;
      script.chunks = {CloudChunk("The win", {10}), CloudChunk("dow", {11, bad}), CloudChunk(" is", {12})};
      script.end_after = 3;
      return script;
    };
    auto agent = MakeAgent(cloud.address(), {.threshold = 1.0});
    auto answer = Ask(*agent, ChatRequest("hello there", 20));
    ASSERT_TRUE(answer->status().ok()) << bad << ": " << answer->status();
    EXPECT_EQ(answer->text().substr(0, 13), "The window is");
    EXPECT_GT(answer->text().size(), 13u) << "nothing was added";
    const std::vector<int32_t> tokens = answer->tokens();
    EXPECT_EQ(std::count(tokens.begin(), tokens.end(), bad), 0);
    ASSERT_EQ(answer->spans().size(), 2u);
    EXPECT_THAT(answer->spans()[0], Pair("cloud", 4));
  }
}

TEST_F(AgentTest, TheAcceptedPrefixStaysWhenTheAnswerIsGoneOnFromItsText) {
  const v1::GenerateRequest chat = ChatRequest("hello there", 20);
  auto truth = LocalTruth(chat);
  ASSERT_GE(truth->tokens().size(), 8u);
  FakeUpstream cloud(Fingerprint());
  cloud.on_generate = [](const v1::GenerateRequest&) {
    Script script;
    script.chunks = {CloudChunk("", {-1})};
    script.end_after = 1;
    script.status = grpc::Status(grpc::StatusCode::INTERNAL, "scripted");
    return script;
  };
  auto agent = MakeAgent(cloud.address(), {.mode = PolicyMode::kUpstream});
  v1::GenerateRequest request;
  request.set_max_tokens(20);
  request.mutable_tokens()->set_tokenizer_fingerprint(Fingerprint());
  const std::vector<int32_t> ids = agent->model().served().MakePrompt(chat)->tokens;
  request.mutable_tokens()->mutable_ids()->Add(ids.begin(), ids.end());
  const std::vector<int32_t> tokens = truth->tokens();
  request.mutable_accepted_prefix()->Add(tokens.begin(), tokens.begin() + 5);
  auto rest = Ask(*agent, request);
  ASSERT_TRUE(rest->status().ok()) << rest->status();
  EXPECT_EQ(rest->tokens(), std::vector<int32_t>(tokens.begin() + 5, tokens.end()));
}

TEST_F(AgentTest, WhatFollowsTheEndIsIgnored) {
  FakeUpstream cloud(Fingerprint());
  cloud.on_generate = [](const v1::GenerateRequest&) {
    Script script;
    script.chunks = {CloudChunk("whole", {5})};
    script.after_done.assign(200000, CloudChunk("more", {6}));
    return script;
  };
  auto agent = MakeAgent(cloud.address(), {.threshold = 1.0});
  auto answer = Ask(*agent, ChatRequest("hello there"));
  ASSERT_TRUE(answer->status().ok()) << answer->status();
  EXPECT_EQ(answer->text(), "whole");
  EXPECT_EQ(answer->done().finish_reason(), v1::FINISH_REASON_STOP);
  for (int i = 0; i < 2000 && cloud.n_cancelled() == 0; ++i) absl::SleepFor(absl::Milliseconds(5));
  EXPECT_EQ(cloud.n_cancelled(), 1);
}

TEST_F(AgentTest, LongTierNamesAreCut) {
  FakeUpstream cloud(Fingerprint());
  cloud.on_generate = [](const v1::GenerateRequest&) {
    Script script;
    script.chunks = {CloudChunk("x", {5})};
    for (int i = 0; i < 40000; ++i) script.chunks[0].mutable_tier()->append("\u20ac");
    return script;
  };
  auto agent = MakeAgent(cloud.address(), {.threshold = 1.0});
  auto answer = Ask(*agent, ChatRequest("hello there"));
  ASSERT_TRUE(answer->status().ok()) << answer->status();
  ASSERT_EQ(answer->spans().size(), 1u);
  EXPECT_EQ(answer->spans()[0].first.size(), 126u) << "whole characters within 128 bytes";
  EXPECT_EQ(answer->chunks()[0].tier(), answer->spans()[0].first);
}

}  // namespace
}  // namespace updraft::testing
