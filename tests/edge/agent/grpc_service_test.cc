// The Inference service over an agent: what every backend answers, and agents on top of one another.
#include "tests/common/serving/grpc_front_cases.h"
#include "tests/edge/agent/agent_fixture.h"
#include "tests/edge/agent/edge_tier.h"

namespace updraft::testing {
namespace {

using ::testing::HasSubstr;

INSTANTIATE_TEST_SUITE_P(Edge, GrpcFrontCases, ::testing::Values(&EdgeTier::Make));
INSTANTIATE_TEST_SUITE_P(Edge, GrpcModelCases, ::testing::Values(&EdgeTier::Make));

class GrpcServiceTest : public AgentTest {
 protected:
  struct Tier {
    std::unique_ptr<Agent> agent;
    std::unique_ptr<GrpcServed> served;

    explicit Tier(std::unique_ptr<Agent> a) : agent(std::move(a)), served(std::make_unique<GrpcServed>(agent.get())) {}
    ~Tier() {
      served.reset();
      agent->Stop();
    }
    const std::string& address() const { return served->address(); }
  };
};

TEST_F(GrpcServiceTest, StatusTellsEverything) {
  FakeUpstream cloud(Fingerprint());
  Tier tier(MakeAgent(cloud.address(), {}));
  InferenceClient client(tier.address());
  ASSERT_TRUE(client.Generate(ChatRequest("hi"), absl::Seconds(60)).ok());
  auto status = client.GetStatus(absl::Seconds(60));
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(status->tier(), "edge");
  EXPECT_EQ(status->version(), "test");
  EXPECT_EQ(status->model().tokenizer_fingerprint(), Fingerprint());
  EXPECT_EQ(status->model().n_layer(), 4);
  EXPECT_EQ(status->routing().requests(), 1);
  EXPECT_EQ(status->routing().kept(), 1);
  EXPECT_EQ(status->routing().policy(), "auto");
  EXPECT_EQ(status->upstream().tier(), "cloud");
  EXPECT_TRUE(status->link().reachable());
  EXPECT_GT(status->resident_bytes(), 1u << 20);
}

// An error's text may be any bytes; a message with them could not be read, and the answer's last one would be lost.
TEST_F(GrpcServiceTest, ErrorTextFromAboveIsMadeOneLineOfUtf8) {
  FakeUpstream cloud(Fingerprint());
  cloud.on_generate = [](const v1::GenerateRequest&) {
    Script script;
    script.end_after = 0;
    script.status = grpc::Status(grpc::StatusCode::INTERNAL, "bad \xff\xfe text\nin \xe2\x82" + std::string(3000, '.'));
    return script;
  };
  Tier tier(MakeAgent(cloud.address(), {.threshold = 1.0}));
  InferenceClient client(tier.address());
  auto answer = client.Generate(ChatRequest("hello there"), absl::Seconds(60));
  ASSERT_TRUE(answer.ok()) << answer.status();
  const std::string& reason = answer->done.provenance().reason();
  EXPECT_THAT(reason, HasSubstr("INTERNAL: bad \ufffd\ufffd text in \ufffd..."));
  EXPECT_LT(reason.size(), 1500u);
}

TEST_F(GrpcServiceTest, ModelsWithNamesThatAreNotUtf8CanBeAskedFor) {
  std::string name;  // 10 + 247 bytes in the file: the first 256 end within a character
  for (int i = 0; i < 82; ++i) name += "\u20ac";
  const std::string path = ::testing::TempDir() + "updraft_\xff_" + std::to_string(getpid()) + ".gguf";
  for (const std::string& file_name : {"." + name, std::string("bad \xff")}) {
    SynthShape shape;
    shape.name = file_name;
    shape.n_layer = 1;
    shape.n_vocab = 512;
    ASSERT_TRUE(Synthesize(shape, kernels::DType::kF32, path, {.n_threads = 1}).ok());
    auto model = LocalModel::Load({.path = path, .load = {.n_threads = 1}});
    std::remove(path.c_str());
    ASSERT_TRUE(model.ok()) << model.status();
    Tier tier(std::make_unique<Agent>(AgentOptions(), *std::move(model), MakeSession(0), nullptr, &metrics_));
    auto status = InferenceClient(tier.address()).GetStatus(absl::Seconds(60));
    ASSERT_TRUE(status.ok()) << status.status();
    EXPECT_THAT(status->model().name(), HasSubstr(file_name[0] == '.' ? ".\u20ac\u20ac" : "bad \ufffd"));
    EXPECT_THAT(status->model().path(), HasSubstr("updraft_\ufffd_"));
  }
}

TEST_F(GrpcServiceTest, TiersChain) {
  Tier top(MakeAgent("", {}));
  Tier middle(MakeAgent(top.address(), {.threshold = 1.0}));
  const v1::GenerateRequest request = ChatRequest("hello there");
  auto truth = Ask(*top.agent, request);
  Tier bottom(MakeAgent(middle.address(), {.threshold = 1.0}));
  InferenceClient client(bottom.address());
  auto answer = client.Generate(request, absl::Seconds(60));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->text, truth->text());
  EXPECT_EQ(answer->tokens, truth->tokens());
  EXPECT_EQ(answer->done.provenance().decision(), v1::DECISION_KIND_HAND_OVER);
  EXPECT_EQ(top.agent->Status().routing().requests(), 2);
}

// The tier above would have had to pass it on, and could not: it answers everything else.
TEST_F(GrpcServiceTest, OnePromptTooLongForTheTierAboveIsNoReasonToLeaveItAlone) {
  std::string gone;
  { gone = FakeUpstream(Fingerprint()).address(); }
  Tier middle(MakeAgent(gone, {.kv_tokens = 64, .wait_for_probe = false}));
  Tier bottom(MakeAgent(middle.address(), {.threshold = 1.0}));
  InferenceClient client(bottom.address());
  for (int i = 0; i < 2; ++i) {  // one fails on the way up, one because the middle tier knows that already
    auto too_long = client.Generate(ChatRequest(std::string(200, 'q')), absl::Seconds(60));
    ASSERT_TRUE(too_long.ok()) << too_long.status();
    EXPECT_TRUE(too_long->done.provenance().degraded());
    EXPECT_THAT(too_long->done.provenance().reason(), HasSubstr("upstream failed (UNAVAILABLE"));
    auto other = client.Generate(ChatRequest("hello there"), absl::Seconds(60));
    ASSERT_TRUE(other.ok()) << other.status();
    EXPECT_EQ(other->done.provenance().decision(), v1::DECISION_KIND_HAND_OVER) << other->done.provenance().reason();
    EXPECT_FALSE(other->done.provenance().degraded()) << other->done.provenance().reason();
  }
}

// Above the tier is one that passes everything on to it: the request comes back while it is being served.
TEST_F(GrpcServiceTest, RequestThatComesBackIsRefusedAndAnsweredOnce) {
  FakeUpstream above(Fingerprint());
  Tier tier(MakeAgent(above.address(), {.threshold = 1.0}));
  above.on_generate = [&tier](const v1::GenerateRequest& request) {
    auto answer = InferenceClient(tier.address()).Generate(request, absl::Seconds(60));
    Script script;
    script.end_after = 0;
    script.status =
        grpc::Status(static_cast<grpc::StatusCode>(answer.status().code()), std::string(answer.status().message()));
    return script;
  };
  auto answer = InferenceClient(tier.address()).Generate(ChatRequest("hello there"), absl::Seconds(60));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(above.requests().size(), 1u) << "one query became many";
  EXPECT_TRUE(answer->done.provenance().degraded());
  EXPECT_THAT(answer->done.provenance().reason(), HasSubstr("leads back here"));
  EXPECT_EQ(answer->done.provenance().spans(0).tier(), "edge");

  // A client may use an id again, even at once: only what other tiers pass on can be a loop.
  v1::GenerateRequest request = ChatRequest("hello there");
  request.set_request_id("mine");
  request.set_tier(v1::TIER_CHOICE_LOCAL_ONLY);
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  for (int i = 0; i < 3; ++i) {
    sinks.push_back(std::make_shared<CollectingSink>());
    tier.agent->Submit(request, SteadyTime::InfiniteFuture(), sinks.back());
  }
  for (auto& sink : sinks) {
    ASSERT_TRUE(sink->Wait());
    EXPECT_TRUE(sink->status().ok()) << sink->status();
  }
}

}  // namespace
}  // namespace updraft::testing
