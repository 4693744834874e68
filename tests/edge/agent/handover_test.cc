// Answers that the agent does not keep: what goes up, and what the client sees when the upstream fails.
#include <gmock/gmock.h>

#include <random>

#include "absl/strings/str_format.h"
#include "common/serving/request_check.h"
#include "common/text/detokenizer.h"
#include "edge/agent/agent.h"
#include "tests/edge/agent/agent_fixture.h"

namespace updraft::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

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

// Ids of the tier that was asked: whoever reads others must not take them for its own.
TEST_F(AgentTest, SamplingGoesUpAndABiasSaysWhoseIdsItHas) {
  for (const std::string& fingerprint : {Fingerprint(), std::string("another fingerprint")}) {
    FakeUpstream cloud(fingerprint);
    cloud.on_generate = [&](const v1::GenerateRequest& request) {
      Script script;
      script.chunks = {CloudChunk("above", {1})};
      if (request.sampling().logit_bias().tokenizer_fingerprint() != fingerprint) {
        script.end_after = 0;
        script.status = grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, "other words");
      }
      return script;
    };
    auto agent = MakeAgent(cloud.address(), {.threshold = 1.0});
    v1::GenerateRequest request = ChatRequest("hello there");
    request.mutable_sampling()->set_presence_penalty(0.5f);
    request.mutable_sampling()->set_frequency_penalty(-0.25f);
    v1::LogitBias::Entry* entry = request.mutable_sampling()->mutable_logit_bias()->add_entries();
    entry->set_token(7);
    entry->set_bias(-100);
    auto answer = Ask(*agent, request);
    ASSERT_TRUE(answer->status().ok()) << answer->status();
    ASSERT_FALSE(cloud.requests().empty());
    const v1::Sampling sent = cloud.requests()[0].sampling();
    EXPECT_EQ(sent.presence_penalty(), 0.5f);
    EXPECT_EQ(sent.frequency_penalty(), -0.25f);
    ASSERT_EQ(sent.logit_bias().entries_size(), 1);
    EXPECT_EQ(sent.logit_bias().entries(0).token(), 7);
    EXPECT_EQ(sent.logit_bias().entries(0).bias(), -100);
    EXPECT_EQ(sent.logit_bias().tokenizer_fingerprint(), Fingerprint());
    const bool same = fingerprint == Fingerprint();
    EXPECT_EQ(answer->provenance().degraded(), !same) << "a tier that cannot read the ids is done without, aloud";
    EXPECT_EQ(answer->text() == "above", same);
  }
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
  agent->Submit(request, SteadyTime::InfiniteFuture(), sink);
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
  const auto euro = model->EncodeAnswer("\xe2\x82\xac", /*begins_text=*/false);
  ASSERT_TRUE(euro.ok());
  if (euro->size() < 2) GTEST_SKIP() << "the vocabulary has the character as one token";
  FakeUpstream cloud(Fingerprint());
  cloud.on_generate = [&](const v1::GenerateRequest&) {
    Script script;
    script.chunks = {CloudChunk("ab", {'a' - '!', 'b' - '!'}), CloudChunk("", {(*euro)[0]})};
    script.chunks[0].clear_tokens();
    const auto ab = model->EncodeAnswer("ab", /*begins_text=*/true);
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
    script.retry_delay_ms = 9000;  // less than a request may wait for upstream
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
  // An answer that is held back has its first token after all local work, always; one that streams has it before,
  // unless its work began late.
  bool streamed = false;
  for (int attempt = 0; attempt < 20 && !streamed; ++attempt) {
    auto answer = Ask(*agent, ChatRequest("hello there"));
    EXPECT_TRUE(answer->provenance().degraded());
    EXPECT_THAT(answer->provenance().reason(), HasSubstr("below"));
    streamed = answer->provenance().first_token_ms() < answer->provenance().local_ms();
  }
  EXPECT_TRUE(streamed);
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
  RequestHandle handle = agent->Submit(ChatRequest("hello there"), SteadyTime::InfiniteFuture(), sink);
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
    RequestHandle handle = agent->Submit(request, SteadyTime::InfiniteFuture(), sinks.back());
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
