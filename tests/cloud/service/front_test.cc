// The fronts over a cloud: what every backend answers, and the cloud's own HTTP as its flags start it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "absl/strings/str_format.h"
#include "tests/cloud/service/live_cloud.h"
#include "tests/common/serving/call_cases.h"
#include "tests/common/serving/grpc_front_cases.h"
#include "tests/common/serving/http_front_cases.h"
#include "tests/common/serving/http_model_cases.h"

namespace updraft::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Whose greedy answer to "hello there" is long enough for the common cases.
const std::string& ModelPath() {
  static const ModelFile file("front", [] {
    SynthShape shape;
    shape.name = "cloud-test";
    shape.architecture = Architecture::kQwen2;
    shape.n_layer = 4;
    shape.n_vocab = 512;
    shape.context_length = 512;
    return shape;
  }());
  return file.path;
}

class CloudTier final : public TierUnderTest {
 public:
  CloudTier() : cloud_(StartCloud({"--kv-tokens=4096"}, ModelPath())) {}
  CloudBackend& backend() override { return cloud_->backend(); }
  Metrics& metrics() override { return cloud_->metrics(); }
  void BeginDrain() override { cloud_->backend().BeginDrain(); }
  void Stop() override {
    EXPECT_TRUE(WaitForFreeBlocks(*cloud_)) << "leaked blocks";
    cloud_->Shutdown(absl::ZeroDuration());
  }
  std::string tier() const override { return "cloud"; }
  std::string model_name() const override { return "synthetic cloud-test"; }

  static std::unique_ptr<TierUnderTest> Make() { return std::make_unique<CloudTier>(); }

 private:
  std::unique_ptr<CloudServer> cloud_;
};

INSTANTIATE_TEST_SUITE_P(Cloud, HttpFrontCases, ::testing::Values(&CloudTier::Make));
INSTANTIATE_TEST_SUITE_P(Cloud, HttpModelCases, ::testing::Values(&CloudTier::Make));
INSTANTIATE_TEST_SUITE_P(Cloud, GrpcFrontCases, ::testing::Values(&CloudTier::Make));
INSTANTIATE_TEST_SUITE_P(Cloud, GrpcModelCases, ::testing::Values(&CloudTier::Make));

TEST(CloudHttp, IsThereWhenAskedForAndAnswersAsGrpcDoes) {
  EXPECT_EQ(StartCloud()->http_port(), 0) << "no HTTP unless asked for";
  EXPECT_THAT(StartCloud()->ports(), Not(HasSubstr(" ")));
  const auto cloud = StartCloud({"--http-listen=127.0.0.1:0"}, ModelPath());
  ASSERT_NE(cloud, nullptr);
  ASSERT_GT(cloud->http_port(), 0);
  EXPECT_EQ(cloud->ports(), absl::StrFormat("%d %d", cloud->port(), cloud->http_port()));
  auto stub = v1::Inference::NewStub(ChannelTo(*cloud));
  const Answer truth = Ask(*stub, ChatRequest("hello there"));
  ASSERT_TRUE(truth.status.ok()) << truth.status.error_message();
  const Json answer = Post(cloud->http_port(), kChat, ChatBody());
  EXPECT_EQ(answer["choices"][0]["message"]["content"], truth.text);
  EXPECT_EQ(answer["usage"]["prompt_tokens"], truth.done.usage().prompt_tokens());
  EXPECT_EQ(answer["updraft"]["reason"], "the last tier answers everything itself");
  EXPECT_EQ(answer["updraft"]["mean_exit_layer"], 4);
}

TEST(CloudHttp, CallsOfToolsAreHeldToTheirForm) {
  SynthShape shape = FindShape("tiny-llama").value();
  shape.context_length = 4096;  // what is said of tools has some hundred tokens
  const ModelFile model("calls", shape);
  const auto cloud = StartCloud({"--http-listen=127.0.0.1:0", "--chat-template=hermes"}, model.path);
  ASSERT_NE(cloud, nullptr);
  ExpectHeldCalls(cloud->http_port());
}

TEST(CloudHttp, MetricsTellOfRequestsAndTheEngine) {
  const auto cloud = StartCloud({"--http-listen=127.0.0.1:0", "--kv-tokens=1024", "--tier=top"}, ModelPath());
  ASSERT_NE(cloud, nullptr);
  Post(cloud->http_port(), kChat, ChatBody());
  Ask(*v1::Inference::NewStub(ChannelTo(*cloud)), ChatRequest("hello there"));
  Ask(*v1::Inference::NewStub(ChannelTo(*cloud)), ChatRequest("hello there", -1));
  ASSERT_TRUE(WaitForFreeBlocks(*cloud));
  const std::string metrics = Fetch(cloud->http_port(), "GET", "/metrics").body;
  EXPECT_THAT(metrics, HasSubstr(R"(updraft_requests_total{tier="top",decision="keep",outcome="ok"} 2)"));
  EXPECT_THAT(metrics, HasSubstr(R"(updraft_requests_total{tier="top",decision="none",outcome="invalid_argument"} 1)"));
  EXPECT_THAT(metrics, HasSubstr(R"(updraft_tokens_total{tier="top"} 48)"));
  EXPECT_THAT(metrics, HasSubstr(R"(updraft_engine_kv_blocks{tier="top",state="free"} 64)"));
  EXPECT_THAT(metrics, HasSubstr(R"(updraft_engine_kv_blocks{tier="top",state="used"} 0)"));
  EXPECT_THAT(metrics, HasSubstr("updraft_engine_preemptions_total"));
  EXPECT_THAT(metrics,
              HasSubstr(absl::StrFormat(R"(updraft_engine_steps_total{tier="top"} %d)", cloud->stats().n_steps)));
  EXPECT_THAT(metrics, HasSubstr(R"(vllm:kv_cache_usage_perc{model_name="synthetic cloud-test"} 0)"));
}

TEST(CloudHttp, AFullQueueIs429) {
  const auto cloud = StartCloud(
      {"--http-listen=127.0.0.1:0", "--max-queued=1", "--max-running=1", "--max-step-tokens=4"}, ModelPath());
  ASSERT_NE(cloud, nullptr);
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 10; ++i) {
    clients.push_back(std::make_unique<RawClient>(cloud->http_port()));
    ASSERT_TRUE(clients.back()->Send(
        RequestText("POST", kChat, R"({"messages":[{"role":"user","content":"x"}],"max_tokens":400})")));
  }
  int n_refused = 0, n_served = 0;
  for (auto& client : clients) {
    const RawResponse response = client->Receive(absl::Seconds(60));
    n_served += response.status == 200 ? 1 : 0;
    if (response.status != 429) continue;
    ++n_refused;
    EXPECT_EQ(response.headers.count("retry-after"), 1u);
    EXPECT_EQ((*http::ParseJson(response.body))["error"]["code"], "rate_limit_exceeded");
  }
  EXPECT_GT(n_refused, 0);
  EXPECT_GT(n_served, 0);
  EXPECT_EQ(n_refused + n_served, 10);
}

// A drain as HTTP clients see it: who comes is refused with the reason, health turns, and what is being answered ends
// whole, or with an error event when it does not end in time.
TEST(CloudHttp, ADrainIsSaidAloud) {
  for (const absl::Duration grace : {absl::ZeroDuration(), absl::Seconds(60)}) {
    SCOPED_TRACE(absl::FormatDuration(grace));
    const auto cloud =
        StartCloud({"--http-listen=127.0.0.1:0", "--max-running=4", "--max-step-tokens=4"}, SlowModelPath());
    ASSERT_NE(cloud, nullptr);
    // Answers that end within the grace, also under a sanitizer; or that surely do not end at once.
    const int max_tokens = grace > absl::ZeroDuration() ? 60 : 400;
    std::vector<std::unique_ptr<RawClient>> clients;
    for (int i = 0; i < 12; ++i) {
      clients.push_back(std::make_unique<RawClient>(cloud->http_port()));
      ASSERT_TRUE(clients.back()->Send(
          RequestText("POST", kChat,
                      absl::StrFormat(R"({"messages":[{"role":"user","content":"hello %d"}],"temperature":1,"seed":%d,)"
                                      R"("stream":true,"max_tokens":%d})",
                                      i, i, max_tokens))));
    }
    while (cloud->stats().n_submitted < 12) absl::SleepFor(absl::Milliseconds(1));
    std::thread drain([&] { cloud->Shutdown(grace); });
    if (grace > absl::ZeroDuration()) {
      int health = 200;
      for (int i = 0; i < 500 && health == 200; ++i) {
        health = Fetch(cloud->http_port(), "GET", "/healthz").status;
        if (health == 200) absl::SleepFor(absl::Milliseconds(1));
      }
      EXPECT_NE(health, 200) << "503, or nobody there when all had ended already";
    }
    int n_ended = 0, n_told = 0;
    for (const auto& client : clients) {
      const RawResponse response = client->Receive(absl::Seconds(60));
      if (response.body.find("data: [DONE]") != std::string::npos) {
        ++n_ended;
      } else {
        EXPECT_THAT(response.body, HasSubstr("\"error\""));
        EXPECT_THAT(response.body, HasSubstr("shutting down"));
        ++n_told;
      }
    }
    drain.join();
    EXPECT_EQ(n_ended + n_told, 12);
    if (grace > absl::ZeroDuration()) {
      EXPECT_EQ(n_ended, 12) << "a drain lets answers finish";
    } else {
      EXPECT_GT(n_told, 0);
    }
    EXPECT_EQ(cloud->stats().n_free_blocks, cloud->stats().n_blocks);
  }
}

TEST(CloudHttp, ACallThatDoesNotParseIsCounted) {
  const auto cloud = StartCloud({"--http-listen=127.0.0.1:0"});
  ASSERT_NE(cloud, nullptr);
  EXPECT_EQ(GenerateRaw(cloud->address(), "\xff\xff\xff").error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(Fetch(cloud->http_port(), "GET", "/metrics").body,
              HasSubstr(R"(updraft_refused_total{tier="cloud",front="grpc",status="invalid_argument"} 1)"));
}

TEST(CloudHttp, TheModelHasTheNameThatItIsServedBy) {
  const auto cloud =
      StartCloud({"--http-listen=127.0.0.1:0", "--served-model-name=acme/small", "--kv-tokens=128"}, ModelPath());
  ASSERT_NE(cloud, nullptr);
  for (const char* path : {"/v1/models/acme/small", "/v1/models/acme%2Fsmall"}) {
    const Json entry = *http::ParseJson(Fetch(cloud->http_port(), "GET", path).body);
    EXPECT_EQ(entry["id"], "acme/small");
    EXPECT_EQ(entry["max_model_len"], 129) << "the pool of 128, and the last token, which needs no room";
  }
  const std::string ask = R"({"model":"acme/small","messages":[{"role":"user","content":"hello there"}],"max_tokens":)";
  int status = 0;
  EXPECT_EQ(Post(cloud->http_port(), kChat, ask + "3}", &status)["model"], "acme/small");
  EXPECT_EQ(status, 200);
  Post(cloud->http_port(), kChat, R"({"model":"synthetic cloud-test","messages":[{"role":"user","content":"x"}]})",
       &status);
  EXPECT_EQ(status, 404);
  EXPECT_THAT(Fetch(cloud->http_port(), "GET", "/metrics").body, HasSubstr(R"(model_name="acme/small")"));
  // What the pool never holds.
  const Json error = Post(cloud->http_port(), kChat, ask + "400}", &status)["error"];
  EXPECT_EQ(status, 400);
  EXPECT_EQ(error["code"], "context_length_exceeded");
  EXPECT_THAT(error["message"].get<std::string>(),
              HasSubstr("This model's maximum context length is 129 tokens. However, you requested 4"));
}

// What people write in flags reaches the front.
TEST(CloudHttp, HostsAndOriginsOfFlagsPass) {
  const auto cloud = StartCloud({"--http-listen=127.0.0.1:0", "--allow-host=car.example.com", "--allow-host=*.local",
                                 "--allow-origin=https://ui.example.com"});
  ASSERT_NE(cloud, nullptr);
  const std::pair<const char*, int> cases[] = {
      {"Host: car.example.com:8080\r\n", 200},
      {"Host: hub.local\r\n", 200},
      {"Host: evil.com\r\n", 403},
      {"Host: localhost\r\nOrigin: https://ui.example.com\r\n", 200},
      {"Host: localhost\r\nOrigin: https://evil.com\r\n", 403},
  };
  for (const auto& [headers, status] : cases) {
    RawClient client(cloud->http_port());
    ASSERT_TRUE(client.Send(absl::StrFormat("GET /v1/models HTTP/1.1\r\n%s\r\n", headers)));
    EXPECT_EQ(client.Receive().status, status) << headers;
  }
  v1::CloudConfig config;
  for (const auto& [flag, said] : {std::pair("--allow-host=http://a", "allow_host: expected a host's name"),
                                   std::pair("--allow-origin=a.com", "allow_origin: expected SCHEME://HOST")}) {
    const std::vector<const char*> args = {"--model=/nonexistent/m.gguf", "--http-listen=127.0.0.1:0", flag};
    ASSERT_TRUE(LoadConfig(args, &config).ok());
    const absl::Status status = CloudServer::Start(config).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(said));
  }
}

TEST(CloudHttp, AnAddressThatCannotBeIsToldBeforeTheModelLoads) {
  v1::CloudConfig config;
  const std::vector<const char*> args = {"--model=/nonexistent/m.gguf", "--http-listen=nonsense"};
  ASSERT_TRUE(LoadConfig(args, &config).ok());
  const absl::Status status = CloudServer::Start(config).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("http_listen: expected HOST:PORT"));
  const auto first = StartCloud({"--http-listen=127.0.0.1:0"});
  const std::string busy = absl::StrFormat("--http-listen=127.0.0.1:%d", first->http_port());
  const std::string model = "--model=" + TinyModelPath();
  const std::vector<const char*> again = {model.c_str(), "--listen=127.0.0.1:0", busy.c_str()};
  ASSERT_TRUE(LoadConfig(again, &config).ok());
  EXPECT_THAT(std::string(CloudServer::Start(config).status().message()), HasSubstr("the port is in use"));
}

}  // namespace
}  // namespace updraft::testing
