// OpenAI's HTTP over an agent: what every backend answers, and what only a tier with an upstream can.
#include "absl/strings/str_format.h"
#include "tests/common/serving/http_front_cases.h"
#include "tests/common/serving/http_model_cases.h"
#include "tests/edge/agent/agent_fixture.h"
#include "tests/edge/agent/edge_tier.h"

namespace updraft::testing {
namespace {

using ::testing::HasSubstr;

INSTANTIATE_TEST_SUITE_P(Edge, HttpFrontCases, ::testing::Values(&EdgeTier::Make));
INSTANTIATE_TEST_SUITE_P(Edge, HttpModelCases, ::testing::Values(&EdgeTier::Make));

class HttpFrontTest : public AgentTest {
 protected:
  void Serve(const std::string& upstream = "", const Setup& setup = {}) {
    agent_ = MakeAgent(upstream, setup);
    server_ = ServeHttp(*agent_, metrics_);
  }
  void TearDown() override {
    if (server_ != nullptr) server_->Stop(absl::ZeroDuration());
    if (agent_ != nullptr) agent_->Stop();
  }
  int port() const { return server_->port(); }

  std::unique_ptr<Agent> agent_;
  std::unique_ptr<http::Server> server_;
};

TEST_F(HttpFrontTest, TierHeaderIsHonoured) {
  FakeUpstream cloud(Fingerprint());
  cloud.on_generate = [](const v1::GenerateRequest&) {
    Script script;
    v1::Chunk chunk;
    chunk.set_text("from above");
    chunk.add_tokens(1);
    script.chunks = {chunk};
    return script;
  };
  Serve(cloud.address(), {.threshold = 1.0});
  const auto ask = [this](const std::string& tier) {
    const RawResponse response = Fetch(port(), "POST", kChat, ChatBody(), "X-Updraft-Tier: " + tier + "\r\n");
    return std::make_pair(response.status, *http::ParseJson(response.body));
  };
  EXPECT_EQ(ask("upstream").second["updraft"]["decision"], "stream-upstream");
  EXPECT_EQ(cloud.requests().back().max_tokens(), 24);
  Fetch(port(), "POST", kChat, R"({"messages":[{"role":"user","content":"x"}]})", "X-Updraft-Tier: upstream\r\n");
  EXPECT_EQ(cloud.requests().back().max_tokens(), 0) << "until the end, as far as the tier above has room";
  EXPECT_EQ(ask("auto").second["updraft"]["decision"], "hand-over");
  EXPECT_EQ(ask("auto").second["choices"][0]["message"]["content"], "from above");
  EXPECT_EQ(ask("local").second["updraft"]["spans"][0]["tier"], "edge");
  EXPECT_EQ(ask("moon").first, 400);
  EXPECT_EQ(ask("moon").second["error"]["param"], "X-Updraft-Tier");
}

TEST_F(HttpFrontTest, DisconnectFreesTheWorker) {
  // The upstream stalls, so only the client's leaving can end the request.
  FakeUpstream cloud(Fingerprint());
  cloud.on_generate = [](const v1::GenerateRequest&) {
    Script script;
    v1::Chunk chunk;
    chunk.set_text("first words");
    script.chunks = {chunk};
    script.end_after = 1;
    script.end = Script::End::kStall;
    return script;
  };
  Serve(cloud.address(), {.threshold = 1.0});
  ClientsAskAndLeave(
      port(), [&](int n) { return cloud.requests().size() >= static_cast<size_t>(n); },
      [&](int) { return agent_->CurrentLoad().running_requests() == 0; });
  // A request is counted once its end has been reported, just after its worker is free.
  const std::string counted = R"(decision="hand-over",outcome="cancelled"} 2)";
  std::string metrics;
  for (int i = 0; i < 400 && metrics.find(counted) == std::string::npos; ++i) {
    if (i > 0) absl::SleepFor(absl::Milliseconds(5));
    metrics = Fetch(port(), "GET", "/metrics").body;
  }
  EXPECT_THAT(metrics, HasSubstr(counted));
}

TEST_F(HttpFrontTest, FullQueueIs429) {
  FakeUpstream cloud(Fingerprint());
  Serve("", {.max_queued = 1, .answers_at_once = 1});
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 10; ++i) {
    clients.push_back(std::make_unique<RawClient>(port()));
    ASSERT_TRUE(clients.back()->Send(
        RequestText("POST", kChat, R"({"messages":[{"role":"user","content":"x"}],"max_tokens":400})")));
  }
  int n_refused = 0, n_served = 0;
  for (auto& client : clients) {
    const RawResponse response = client->Receive(absl::Seconds(60));
    if (response.status == 429) {
      ++n_refused;
      EXPECT_EQ(response.headers.count("retry-after"), 1u);
      EXPECT_EQ((*http::ParseJson(response.body))["error"]["code"], "rate_limit_exceeded");
    }
    n_served += response.status == 200 ? 1 : 0;
  }
  EXPECT_GT(n_refused, 0);
  EXPECT_GT(n_served, 0);
  EXPECT_EQ(n_refused + n_served, 10);
}

}  // namespace
}  // namespace updraft::testing
