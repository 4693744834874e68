// Answers that the agent does not keep: what goes up, and what the client sees when the upstream fails.
#include <gmock/gmock.h>

#include <algorithm>
#include <random>

#include "absl/strings/str_format.h"
#include "common/serving/request_check.h"
#include "common/text/utf8.h"
#include "edge/agent/agent.h"
#include "tests/edge/agent/agent_fixture.h"

namespace updraft::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

v1::Chunk CloudChunk(const std::string& text, std::vector<int32_t> tokens) {
  v1::Chunk chunk;
  chunk.set_text(text);
  chunk.mutable_tokens()->Add(tokens.begin(), tokens.end());
  return chunk;
}

// ---- Handing over -------------------------------------------------------------------------------------------------

TEST_F(AgentTest, DoubtfulAnswerIsHandedOverAsTokens) {
  FakeUpstream cloud(Fingerprint());
  cloud.on_generate = [](const v1::GenerateRequest&) {
    Script script;
    script.chunks = {CloudChunk("from", {10, 11}), CloudChunk(" above", {12})};
    return script;
  };
  auto agent = MakeAgent(cloud.address(), {.threshold = 1.0});
  const v1::GenerateRequest request = ChatRequest("hello there");
  auto answer = Ask(*agent, request);
  ASSERT_TRUE(answer->status().ok()) << answer->status();
  EXPECT_EQ(answer->text(), "from above") << "nothing of the local draft may show";
  EXPECT_THAT(answer->tokens(), ElementsAre(10, 11, 12));
  EXPECT_THAT(answer->spans(), ElementsAre(Pair("cloud", 3)));
  const v1::Provenance& provenance = answer->provenance();
  EXPECT_EQ(provenance.decision(), v1::DECISION_KIND_HAND_OVER);
  EXPECT_THAT(provenance.reason(), HasSubstr("below"));
  EXPECT_GT(provenance.draft_tokens(), 0);
  EXPECT_GT(provenance.bytes_up(), 0u);
  EXPECT_GT(provenance.bytes_down(), 0u);
  EXPECT_FALSE(provenance.degraded());
  EXPECT_EQ(answer->done().finish_reason(), v1::FINISH_REASON_STOP);

  ASSERT_EQ(cloud.requests().size(), 1u);
  const v1::GenerateRequest sent = cloud.requests()[0];
  EXPECT_EQ(sent.tokens().tokenizer_fingerprint(), Fingerprint());
  const std::vector<int32_t> ids(sent.tokens().ids().begin(), sent.tokens().ids().end());
  EXPECT_EQ(ids, agent->model().served().MakePrompt(request)->tokens);
  EXPECT_EQ(sent.ByteSizeLong(), provenance.bytes_up());
  EXPECT_FALSE(sent.request_id().empty());
  EXPECT_EQ(sent.max_tokens(), 24);
}

TEST_F(AgentTest, OtherVocabularyGetsText) {
  FakeUpstream cloud("another fingerprint");
  cloud.on_generate = [](const v1::GenerateRequest&) {
    Script script;
    script.chunks = {CloudChunk("text", {70000, 70001})};
    return script;
  };
  auto agent = MakeAgent(cloud.address(), {.threshold = 1.0});
  auto answer = Ask(*agent, ChatRequest("hello there"));
  ASSERT_TRUE(answer->status().ok()) << answer->status();
  EXPECT_EQ(answer->text(), "text");
  EXPECT_THAT(answer->tokens(), IsEmpty()) << "ids of another vocabulary must not pass for ours";
  EXPECT_THAT(answer->spans(), ElementsAre(Pair("cloud", 2)));
  ASSERT_EQ(cloud.requests().size(), 1u);
  EXPECT_EQ(cloud.requests()[0].conversation().messages(0).content(), "hello there");
}

TEST_F(AgentTest, RefusedTokensAreSentAgainAsText) {
  FakeUpstream cloud(Fingerprint());
  cloud.on_generate = [](const v1::GenerateRequest& request) {
    Script script;
    if (request.has_tokens()) {
      script.end_after = 0;
      script.status = grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, "fingerprints differ");
    } else {
      script.chunks = {CloudChunk("text", {})};
    }
    return script;
  };
  auto agent = MakeAgent(cloud.address(), {.threshold = 1.0});
  auto answer = Ask(*agent, ChatRequest("hello there"));
  ASSERT_TRUE(answer->status().ok()) << answer->status();
  EXPECT_EQ(answer->text(), "text");
  EXPECT_FALSE(answer->provenance().degraded());
  EXPECT_EQ(cloud.requests().size(), 2u);
  EXPECT_EQ(answer->provenance().bytes_up(), cloud.requests()[0].ByteSizeLong() + cloud.requests()[1].ByteSizeLong());
}

// The most stop strings that a request may have leave no room for those of the chat format.
TEST_F(AgentTest, AllOfTheClientsStopStringsGoUp) {
  FakeUpstream cloud(Fingerprint());
  cloud.on_generate = [](const v1::GenerateRequest& request) {
    Script script;
    script.chunks = {CloudChunk("above", {1})};
    if (const absl::Status status = CheckRequest(request); !status.ok()) {
      script.end_after = 0;
      script.status = grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, std::string(status.message()));
    }
    return script;
  };
  auto agent = MakeAgent(cloud.address(), {.threshold = 1.0});
  v1::GenerateRequest request = ChatRequest("hello there");
  for (int i = 0; i < 16; ++i) request.add_stop(absl::StrFormat("never said %d", i));
  ASSERT_FALSE(agent->model().served().MakePrompt(request)->stops.empty()) << "the chat format adds none to test with";
  auto answer = Ask(*agent, request);
  ASSERT_TRUE(answer->status().ok()) << answer->status();
  EXPECT_EQ(answer->text(), "above") << answer->provenance().reason();
  EXPECT_FALSE(answer->provenance().degraded());
  ASSERT_EQ(cloud.requests().size(), 1u);
  EXPECT_TRUE(cloud.requests()[0].has_tokens());
  EXPECT_EQ(cloud.requests()[0].stop_size(), 16);
}

TEST_F(AgentTest, HopelessDraftIsGivenUpEarly) {
  FakeUpstream cloud(Fingerprint());
  cloud.on_generate = [](const v1::GenerateRequest&) {
    Script script;
    script.chunks = {CloudChunk("x", {1})};
    return script;
  };
  auto agent = MakeAgent(cloud.address(), {.threshold = 1.0});
  auto answer = Ask(*agent, ChatRequest("hello there", 200));
  ASSERT_TRUE(answer->status().ok()) << answer->status();
  EXPECT_EQ(answer->provenance().draft_tokens(), 8);
  EXPECT_THAT(answer->provenance().reason(), HasSubstr("after 8 tokens"));
}

TEST_F(AgentTest, TierChoiceIsHonoured) {
  FakeUpstream cloud(Fingerprint());
  cloud.on_generate = [](const v1::GenerateRequest&) {
    Script script;
    script.chunks = {CloudChunk("above", {1})};
    return script;
  };
  v1::GenerateRequest local = ChatRequest("hello there"), upstream = local;
  local.set_tier(v1::TIER_CHOICE_LOCAL_ONLY);
  upstream.set_tier(v1::TIER_CHOICE_UPSTREAM_ONLY);
  {
    auto agent = MakeAgent(cloud.address(), {.threshold = 1.0});
    auto answer = Ask(*agent, local);
    EXPECT_THAT(answer->spans(), ElementsAre(Pair("edge", ::testing::Gt(0))));
    EXPECT_THAT(cloud.requests(), IsEmpty());
    answer = Ask(*agent, upstream);
    EXPECT_EQ(answer->text(), "above");
    EXPECT_EQ(answer->provenance().decision(), v1::DECISION_KIND_STREAM_UPSTREAM);
    EXPECT_EQ(answer->provenance().draft_tokens(), 0);
    EXPECT_EQ(cloud.requests().size(), 1u);
    EXPECT_EQ(cloud.requests()[0].tier(), v1::TIER_CHOICE_UNSPECIFIED);
  }
  // What the configuration keeps private no request makes public.
  auto agent = MakeAgent(cloud.address(), {.threshold = 1.0, .mode = PolicyMode::kLocal});
  EXPECT_THAT(Ask(*agent, upstream)->spans(), ElementsAre(Pair("edge", ::testing::Gt(0))));
  EXPECT_EQ(cloud.requests().size(), 1u);
}

TEST_F(AgentTest, RequestIsPassedOnOnlySoOften) {
  FakeUpstream cloud(Fingerprint());
  cloud.on_generate = [](const v1::GenerateRequest&) {
    Script script;
    script.chunks = {CloudChunk("above", {1})};
    return script;
  };
  auto agent = MakeAgent(cloud.address(), {.threshold = 1.0, .kv_tokens = 64});
  v1::GenerateRequest request = ChatRequest("hi");
  for (int hops = 0; hops < 4; ++hops) {
    request.set_hops(hops);
    EXPECT_EQ(Ask(*agent, request)->text(), "above");
    EXPECT_EQ(cloud.requests().back().hops(), hops + 1);
  }
  request.set_hops(4);
  auto answer = Ask(*agent, request);
  ASSERT_TRUE(answer->status().ok()) << answer->status();
  EXPECT_THAT(answer->spans(), ElementsAre(Pair("edge", ::testing::Gt(0))));
  EXPECT_TRUE(answer->provenance().degraded());
  EXPECT_THAT(answer->provenance().reason(), HasSubstr("4 tiers have passed the request on"));
  // What this tier has no room for has nowhere to go.
  request.mutable_conversation()->mutable_messages(0)->set_content(std::string(300, 'q'));
  EXPECT_EQ(Ask(*agent, request)->status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(cloud.requests().size(), 4u);
}

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

// ---- Upstream fails -----------------------------------------------------------------------------------------------

struct Failure {
  const char* name;
  Script::End end;
  grpc::StatusCode code;
};

class UpstreamFailureTest : public AgentTest, public ::testing::WithParamInterface<Failure> {};

// Whatever happens after whichever token: the client sees the very answer, no token lost or doubled.
TEST_P(UpstreamFailureTest, AnswerIsFinishedLocally) {
  const v1::GenerateRequest request = ChatRequest("hello there", 20);
  auto truth = LocalTruth(request);
  const std::vector<v1::Chunk> chunks = AsUpstream(*truth);
  const int n = static_cast<int>(truth->tokens().size());
  ASSERT_GE(n, 10);
  for (int k : {0, 1, 2, 5, n - 1, static_cast<int>(chunks.size())}) {
    FakeUpstream cloud(Fingerprint());
    cloud.on_generate = [&](const v1::GenerateRequest&) {
      Script script;
      script.chunks = chunks;
      script.end_after = k;
      script.end = GetParam().end;
      script.status = grpc::Status(GetParam().code, "scripted");
      return script;
    };
    const absl::Duration stall_timeout =
        GetParam().end == Script::End::kStall ? absl::Milliseconds(300) : absl::Seconds(30);
    auto agent = MakeAgent(cloud.address(), {.threshold = 1.0, .stall_timeout = stall_timeout});
    auto answer = Ask(*agent, request);
    ASSERT_TRUE(answer->status().ok()) << answer->status();
    EXPECT_EQ(answer->tokens(), truth->tokens()) << "after " << k << " chunks";
    EXPECT_EQ(answer->text(), truth->text()) << "after " << k << " chunks";
    EXPECT_EQ(answer->done().finish_reason(), truth->done().finish_reason());
    EXPECT_TRUE(answer->provenance().degraded());
    EXPECT_THAT(answer->provenance().reason(), HasSubstr("upstream failed"));
    if (k == 0) {
      EXPECT_THAT(answer->spans(), ElementsAre(Pair("edge", n)));
      EXPECT_EQ(answer->provenance().decision(), v1::DECISION_KIND_KEEP);
    } else {
      ASSERT_GE(answer->spans().size(), 1u);
      EXPECT_EQ(answer->spans()[0].first, "cloud");
      EXPECT_EQ(answer->provenance().decision(), v1::DECISION_KIND_HAND_OVER);
    }
    const auto summary = agent->Status().routing();
    EXPECT_EQ(summary.degraded(), 1);
  }
}

INSTANTIATE_TEST_SUITE_P(Each, UpstreamFailureTest,
                         ::testing::Values(Failure{"Dies", Script::End::kStatus, grpc::StatusCode::UNAVAILABLE},
                                           Failure{"Breaks", Script::End::kStatus, grpc::StatusCode::INTERNAL},
                                           Failure{"IsFull", Script::End::kStatus,
                                                   grpc::StatusCode::RESOURCE_EXHAUSTED},
                                           Failure{"Stalls", Script::End::kStall, grpc::StatusCode::OK},
                                           Failure{"EndsWithoutDone", Script::End::kNoDone, grpc::StatusCode::OK}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_F(AgentTest, ServerThatVanishesMidStream) {
  const v1::GenerateRequest request = ChatRequest("hello there", 20);
  auto truth = LocalTruth(request);
  auto cloud = std::make_unique<FakeUpstream>(Fingerprint());
  cloud->on_generate = [&](const v1::GenerateRequest&) {
    Script script;
    script.chunks = AsUpstream(*truth);
    script.end_after = 3;
    script.end = Script::End::kStall;
    return script;
  };
  auto agent = MakeAgent(cloud->address(), {.threshold = 1.0});
  auto sink = std::make_shared<CollectingSink>();
  agent->Submit(request, absl::InfiniteFuture(), sink);
  ASSERT_TRUE(sink->WaitForChunks(3));
  cloud->Stop();
  ASSERT_TRUE(sink->Wait());
  ASSERT_TRUE(sink->status().ok()) << sink->status();
  EXPECT_EQ(sink->tokens(), truth->tokens());
  EXPECT_EQ(sink->text(), truth->text());
  // The next one does not wait for a tier that is known to be gone.
  auto next = Ask(*agent, request);
  EXPECT_EQ(next->text(), truth->text());
  EXPECT_TRUE(next->provenance().degraded());
  EXPECT_EQ(next->provenance().bytes_up(), 0u) << sink->provenance().reason() << "\n" << next->provenance().reason();
}

TEST_F(AgentTest, OtherVocabularyThatDiesIsGoneOnFromItsText) {
  FakeUpstream cloud("another fingerprint");
  cloud.on_generate = [](const v1::GenerateRequest&) {
    Script script;
    script.chunks = {CloudChunk("The win", {70000}), CloudChunk("dow is", {70001})};
    script.end_after = 2;
    return script;
  };
  auto agent = MakeAgent(cloud.address(), {.threshold = 1.0});
  auto answer = Ask(*agent, ChatRequest("hello there", 20));
  ASSERT_TRUE(answer->status().ok()) << answer->status();
  EXPECT_EQ(answer->text().substr(0, 13), "The window is");
  EXPECT_GT(answer->text().size(), 13u) << "nothing was added";
  ASSERT_EQ(answer->spans().size(), 2u);
  EXPECT_EQ(answer->spans()[1].first, "edge");
}

TEST_F(AgentTest, HalfACharacterFromUpstreamIsCompletedOnce) {
  // The upstream's last token ended within a character: its text was held back there, and must come from here.
  auto model = LoadModel();
  const auto euro = model->EncodeAnswer("\xe2\x82\xac");
  ASSERT_TRUE(euro.ok());
  if (euro->size() < 2) GTEST_SKIP() << "the vocabulary has the character as one token";
  FakeUpstream cloud(Fingerprint());
  cloud.on_generate = [&](const v1::GenerateRequest&) {
    Script script;
    script.chunks = {CloudChunk("ab", {'a' - '!', 'b' - '!'}), CloudChunk("", {(*euro)[0]})};
    script.chunks[0].clear_tokens();
    const auto ab = model->EncodeAnswer("ab");
    script.chunks[0].mutable_tokens()->Add(ab->begin(), ab->end());
    script.end_after = 2;
    return script;
  };
  auto agent = MakeAgent(cloud.address(), {.threshold = 1.0});
  auto answer = Ask(*agent, ChatRequest("hello there", 20));
  ASSERT_TRUE(answer->status().ok()) << answer->status();
  text::StreamDetokenizer detokenizer(*text::Tokenizer::FromGguf(*gguf::File::Open(*path_)), {.at_text_start = true});
  std::string expected;
  for (int32_t token : answer->tokens()) expected += detokenizer.Push(token);
  expected += detokenizer.Flush();
  EXPECT_EQ(answer->text(), expected);
}

TEST_F(AgentTest, RefusalWithADelayIsRespected) {
  FakeUpstream cloud(Fingerprint());
  cloud.on_generate = [](const v1::GenerateRequest&) {
    Script script;
    script.end_after = 0;
    script.status = grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "full");
    script.retry_delay_ms = 60000;
    return script;
  };
  auto agent = MakeAgent(cloud.address(), {.threshold = 1.0});
  EXPECT_TRUE(Ask(*agent, ChatRequest("hello there"))->provenance().degraded());
  auto second = Ask(*agent, ChatRequest("hello there"));
  EXPECT_TRUE(second->provenance().degraded());
  EXPECT_EQ(cloud.requests().size(), 1u) << second->provenance().reason();
}

// Even of a caller that wants upstream's answer: one from here, said to be so, is better than none.
TEST_F(AgentTest, RequestThatUpstreamCallsInvalidIsAnsweredHere) {
  FakeUpstream cloud(Fingerprint());
  cloud.on_generate = [](const v1::GenerateRequest&) {
    Script script;
    script.end_after = 0;
    script.status = grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "max_tokens: not today");
    return script;
  };
  auto agent = MakeAgent(cloud.address(), {.threshold = 0.0, .kv_tokens = 64});
  v1::GenerateRequest request = ChatRequest("hello there");
  request.set_tier(v1::TIER_CHOICE_UPSTREAM_ONLY);
  auto answer = Ask(*agent, request);
  ASSERT_TRUE(answer->status().ok()) << answer->status();
  EXPECT_EQ(answer->text(), LocalTruth(request)->text());
  EXPECT_TRUE(answer->provenance().degraded());
  EXPECT_EQ(answer->provenance().decision(), v1::DECISION_KIND_KEEP);
  EXPECT_THAT(answer->provenance().reason(), HasSubstr("INVALID_ARGUMENT: max_tokens: not today"));
  EXPECT_TRUE(agent->CurrentLink().reachable());
  // What has no room here ends with upstream's error.
  request.mutable_conversation()->mutable_messages(0)->set_content(std::string(300, 'q'));
  answer = Ask(*agent, request);
  EXPECT_EQ(answer->status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(answer->status().message()), HasSubstr("upstream failed"));
}

TEST_F(AgentTest, UnreachableUpstreamIsSaidSo) {
  std::string address;
  {
    FakeUpstream gone(Fingerprint());
    address = gone.address();
  }
  auto agent = MakeAgent(address, {.threshold = 1.0, .wait_for_probe = false});
  const v1::GenerateRequest request = ChatRequest("hello there");
  auto answer = Ask(*agent, request);
  ASSERT_TRUE(answer->status().ok()) << answer->status();
  EXPECT_TRUE(answer->provenance().degraded());
  EXPECT_THAT(answer->provenance().reason(), HasSubstr("upstream"));
  EXPECT_EQ(answer->text(), LocalTruth(request)->text());
  v1::GenerateRequest forced = request;
  forced.set_tier(v1::TIER_CHOICE_UPSTREAM_ONLY);
  answer = Ask(*agent, forced);
  EXPECT_TRUE(answer->status().ok());
  EXPECT_TRUE(answer->provenance().degraded());
  EXPECT_FALSE(agent->CurrentLink().reachable());
}

TEST_F(AgentTest, OfflineAnswersStream) {
  std::string address;
  {
    FakeUpstream gone(Fingerprint());
    address = gone.address();
  }
  auto agent = MakeAgent(address, {.threshold = 1.0, .wait_for_probe = false});
  Ask(*agent, ChatRequest("hello there"));  // the first one finds out
  auto answer = Ask(*agent, ChatRequest("hello there"));
  EXPECT_TRUE(answer->provenance().degraded());
  EXPECT_THAT(answer->provenance().reason(), HasSubstr("below"));
  EXPECT_LT(answer->provenance().first_token_ms(), answer->provenance().local_ms());
}

TEST_F(AgentTest, CancelReachesUpstream) {
  FakeUpstream cloud(Fingerprint());
  cloud.on_generate = [](const v1::GenerateRequest&) {
    Script script;
    script.chunks = {CloudChunk("x", {1})};
    script.end_after = 1;
    script.end = Script::End::kStall;
    return script;
  };
  auto agent = MakeAgent(cloud.address(), {.threshold = 1.0});
  auto sink = std::make_shared<CollectingSink>();
  RequestHandle handle = agent->Submit(ChatRequest("hello there"), absl::InfiniteFuture(), sink);
  ASSERT_TRUE(sink->WaitForChunks(1));
  handle.Cancel();
  ASSERT_TRUE(sink->Wait());
  EXPECT_EQ(sink->status().code(), absl::StatusCode::kCancelled);
  for (int i = 0; i < 2000 && cloud.n_cancelled() == 0; ++i) absl::SleepFor(absl::Milliseconds(5));
  EXPECT_EQ(cloud.n_cancelled(), 1);
}

TEST_F(AgentTest, LinkIsMeasured) {
  FakeUpstream cloud(Fingerprint());
  auto agent = MakeAgent(cloud.address(), {});
  for (int i = 0; i < 2000 && agent->CurrentLink().samples() == 0; ++i) absl::SleepFor(absl::Milliseconds(5));
  const v1::Link link = agent->CurrentLink();
  EXPECT_TRUE(link.reachable());
  EXPECT_GT(link.rtt_ms(), 0.0);
  EXPECT_LT(link.rtt_ms(), 1000.0);
  EXPECT_EQ(link.upstream(), cloud.address());
  EXPECT_EQ(agent->Status().upstream().tier(), "cloud");
}

// ---- Everything at once -------------------------------------------------------------------------------------------

TEST_F(AgentTest, ManyRequestsWithAFlakyUpstream) {
  const uint32_t seed = 20240607;
  SCOPED_TRACE(absl::StrFormat("seed %d", seed));
  const v1::GenerateRequest request = ChatRequest("hello there", 16);
  auto truth = LocalTruth(request);
  FakeUpstream cloud(Fingerprint());
  std::mutex mu;
  std::mt19937 upstream_random(seed);
  cloud.on_generate = [&](const v1::GenerateRequest&) {
    std::lock_guard lock(mu);
    Script script;
    script.chunks = AsUpstream(*truth);
    if (upstream_random() % 2 == 0) {
      script.end_after = static_cast<int>(upstream_random() % 16);
      // Not UNAVAILABLE: that would put the upstream out of use for the rest of the test.
      script.status = grpc::Status(grpc::StatusCode::INTERNAL, "scripted");
    }
    return script;
  };
  auto agent = MakeAgent(cloud.address(), {.threshold = 1.0, .max_queued = 1000});
  std::mt19937 random(seed);
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  std::vector<RequestHandle> cancelled;
  for (int i = 0; i < 120; ++i) {
    sinks.push_back(std::make_shared<CollectingSink>());
    RequestHandle handle = agent->Submit(request, absl::InfiniteFuture(), sinks.back());
    if (random() % 3 == 0) cancelled.push_back(handle);
    if (random() % 4 == 0 && !cancelled.empty()) cancelled[random() % cancelled.size()].Cancel();
  }
  int n_ok = 0;
  for (auto& sink : sinks) {
    ASSERT_TRUE(sink->Wait());
    if (!sink->status().ok()) {
      EXPECT_EQ(sink->status().code(), absl::StatusCode::kCancelled);
      continue;
    }
    ++n_ok;
    EXPECT_EQ(sink->tokens(), truth->tokens());
    EXPECT_EQ(sink->text(), truth->text());
  }
  EXPECT_GT(n_ok, 40);
  EXPECT_EQ(agent->CurrentLoad().running_requests(), 0);
  EXPECT_EQ(agent->CurrentLoad().queued_requests(), 0);
}

}  // namespace
}  // namespace updraft::testing
