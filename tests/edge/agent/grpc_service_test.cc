// The agent's gRPC face, and agents on top of one another.
#include "edge/agent/grpc_service.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <thread>

#include "common/rpc/inference_client.h"
#include "common/rpc/server.h"
#include "tests/edge/agent/agent_fixture.h"

namespace updraft::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

class GrpcServiceTest : public AgentTest {
 protected:
  struct Tier {
    std::unique_ptr<Agent> agent;
    std::unique_ptr<EdgeService> service;
    std::unique_ptr<ServerHandle> server;

    explicit Tier(std::unique_ptr<Agent> a)
        : agent(std::move(a)), service(std::make_unique<EdgeService>(agent.get(), absl::Now(), "test")) {
      auto started = ServerHandle::Start({.listen = "127.0.0.1:0"}, {service.get()});
      EXPECT_TRUE(started.ok()) << started.status();
      server = *std::move(started);
    }
    ~Tier() {
      server->Shutdown(absl::ZeroDuration());
      agent->Stop();
    }
    const std::string& address() const { return server->address(); }
  };
};

TEST_F(GrpcServiceTest, StreamsTheAnswerWithItsAccount) {
  Tier tier(MakeAgent("", {}));
  const v1::GenerateRequest request = ChatRequest("hello there");
  auto truth = Ask(*tier.agent, request);
  auto stub = v1::Inference::NewStub(grpc::CreateChannel(tier.address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  auto reader = stub->Generate(&context, request);
  std::vector<v1::GenerateResponse> responses;
  v1::GenerateResponse response;
  while (reader->Read(&response)) responses.push_back(response);
  ASSERT_TRUE(reader->Finish().ok());
  ASSERT_GE(responses.size(), 2u);
  std::string text;
  uint64_t last_us = 0;
  for (const auto& r : responses) {
    text += r.chunk().text();
    EXPECT_GE(r.server_us(), last_us);
    last_us = r.server_us();
  }
  EXPECT_EQ(text, truth->text());
  EXPECT_EQ(responses.front().request_id().size(), 32u);
  EXPECT_TRUE(responses.front().has_load());
  EXPECT_TRUE(responses.back().has_load());
  EXPECT_TRUE(responses.back().has_done());
  EXPECT_EQ(responses.back().done().provenance().spans(0).tier(), "edge");
}

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

// Calls may come the moment the server listens: what they read must be final by then.
TEST_F(GrpcServiceTest, ReadyTimeIsThereWithTheFirstCall) {
  auto agent = MakeAgent("", {});
  EdgeService service(agent.get(), absl::Now() - absl::Seconds(5), "test");
  auto server = ServerHandle::Start({.listen = "127.0.0.1:0"}, {&service});
  ASSERT_TRUE(server.ok()) << server.status();
  InferenceClient client((*server)->address());
  auto first = client.GetStatus(absl::Seconds(60)), second = client.GetStatus(absl::Seconds(60));
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_GE(first->ready_after_ms(), 5000.0);
  EXPECT_LE(first->ready_after_ms(), first->uptime_s() * 1000);
  EXPECT_EQ(first->ready_after_ms(), second->ready_after_ms());
  (*server)->Shutdown(absl::ZeroDuration());
}

TEST_F(GrpcServiceTest, ErrorsKeepTheirCode) {
  Tier tier(MakeAgent("", {}));
  InferenceClient client(tier.address());
  auto bad = client.Generate(ChatRequest("hi", -1), absl::Seconds(60));
  EXPECT_EQ(bad.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(bad.status().message()), HasSubstr("max_tokens"));
  auto late = client.Generate(ChatRequest("hello there", 400), absl::Milliseconds(1));
  EXPECT_EQ(late.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(client.Generate(ChatRequest("hi"), absl::Seconds(60)).ok());
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

TEST_F(GrpcServiceTest, MalformedMessagesAreTheCallersFault) {
  Tier tier(MakeAgent("", {}));
  auto channel = grpc::CreateChannel(tier.address(), grpc::InsecureChannelCredentials());
  grpc::GenericStub stub(channel);
  // Field 3 (prompt) with text that is not UTF-8, and bytes that are no message at all.
  for (const std::string& bytes :
       {std::string("\x1a\x02\xff\xfe"), std::string("\xff\xff\xff"), std::string("\x1a\x7f")}) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    const grpc::Slice slice(bytes);
    grpc::ByteBuffer request(&slice, 1), response;
    grpc::CompletionQueue queue;
    grpc::Status status;
    auto call = stub.PrepareUnaryCall(&context, "/updraft.v1.Inference/Generate", request, &queue);
    call->StartCall();
    call->Finish(&response, &status, nullptr);
    void* tag;
    bool ok;
    ASSERT_TRUE(queue.Next(&tag, &ok));
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr("UTF-8"));
  }
  InferenceClient client(tier.address());
  EXPECT_TRUE(client.Generate(ChatRequest("hi"), absl::Seconds(60)).ok());
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

TEST_F(GrpcServiceTest, CancelledAndSlowClientsDoNotDisturbOthers) {
  Tier tier(MakeAgent("", {.max_queued = 1000}));
  auto truth = Ask(*tier.agent, ChatRequest("hello there"));
  std::atomic<int> n_ok{0}, n_cancelled{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < 16; ++c) {
    clients.emplace_back([&, c] {
      InferenceClient client(tier.address());
      int n_chunks = 0;
      auto answer = client.Generate(ChatRequest("hello there"), absl::Seconds(120), [&](const v1::Chunk&) {
        if (c % 4 == 1) absl::SleepFor(absl::Milliseconds(3));
        return c % 4 != 0 || ++n_chunks < 3;
      });
      if (answer.ok() && answer->text == truth->text()) ++n_ok;
      if (absl::IsCancelled(answer.status())) ++n_cancelled;
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_GE(n_ok, 12);
  EXPECT_EQ(n_ok + n_cancelled, 16);
  for (int i = 0; i < 2000 && tier.agent->CurrentLoad().running_requests() > 0; ++i)
    absl::SleepFor(absl::Milliseconds(5));
  EXPECT_EQ(tier.agent->CurrentLoad().running_requests(), 0);
}

}  // namespace
}  // namespace updraft::testing
