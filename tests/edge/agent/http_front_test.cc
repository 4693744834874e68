// The agent's HTTP face over real sockets: answers, streams, and what hostile or impatient clients do.
#include "edge/agent/http_front.h"

#include <gmock/gmock.h>

#include <thread>

#include "absl/strings/str_format.h"
#include "tests/common/http/raw_client.h"
#include "tests/edge/agent/agent_fixture.h"

namespace updraft::testing {
namespace {

using http::Json;
using http::testing::Fetch;
using http::testing::RawClient;
using http::testing::RawResponse;
using http::testing::RequestText;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kChat[] = "/v1/chat/completions";

std::string Body(const std::string& rest = "") {
  return R"({"model":"updraft","messages":[{"role":"user","content":"hello there"}],"max_tokens":24)" +
         (rest.empty() ? "" : "," + rest) + "}";
}

// The JSON objects of a stream, without the end mark.
std::vector<Json> Events(const std::string& body) {
  std::vector<Json> events;
  for (size_t at = 0; (at = body.find("data: ", at)) != std::string::npos;) {
    at += 6;
    const size_t end = body.find("\n\n", at);
    const std::string data = body.substr(at, end - at);
    if (data != "[DONE]") events.push_back(*http::ParseJson(data));
  }
  return events;
}

class HttpFrontTest : public AgentTest {
 protected:
  void Serve(const std::string& upstream = "", const Setup& setup = {}) {
    agent_ = MakeAgent(upstream, setup);
    http::ServerOptions options;
    options.listen = "127.0.0.1:0";
    options.max_body_bytes = 64 << 10;
    options.read_timeout = absl::Seconds(2);
    auto server = http::Server::Start(options, MakeHttpFront(agent_.get(), &metrics_));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  void TearDown() override {
    if (server_ != nullptr) server_->Stop(absl::ZeroDuration());
    if (agent_ != nullptr) agent_->Stop();
  }
  int port() const { return server_->port(); }
  Json Post(const std::string& path, const std::string& body, int* status = nullptr) {
    const RawResponse response = Fetch(port(), "POST", path, body);
    if (status != nullptr) *status = response.status;
    auto json = http::ParseJson(response.body);
    EXPECT_TRUE(json.ok()) << response.status << " " << response.body;
    return json.ok() ? *json : Json();
  }

  std::unique_ptr<Agent> agent_;
  std::unique_ptr<http::Server> server_;
};

TEST_F(HttpFrontTest, ChatCompletion) {
  Serve();
  auto truth = Ask(*agent_, ChatRequest("hello there"));
  int status = 0;
  const Json answer = Post(kChat, Body(), &status);
  EXPECT_EQ(status, 200);
  EXPECT_EQ(answer["object"], "chat.completion");
  EXPECT_EQ(answer["choices"][0]["message"]["content"], truth->text());
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(answer["usage"]["completion_tokens"], 24);
  EXPECT_EQ(answer["updraft"]["decision"], "keep");
  EXPECT_EQ(answer["updraft"]["spans"][0]["tier"], "edge");
  EXPECT_EQ(answer["model"], "synthetic agent-test");
}

TEST_F(HttpFrontTest, StreamedChatIsTheSameAnswer) {
  Serve();
  auto truth = Ask(*agent_, ChatRequest("hello there"));
  const RawResponse response =
      Fetch(port(), "POST", kChat, Body(R"("stream":true,"stream_options":{"include_usage":true})"));
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.headers.at("content-type"), "text/event-stream");
  EXPECT_TRUE(response.complete);
  EXPECT_EQ(response.body.substr(response.body.size() - 14), "data: [DONE]\n\n");
  const std::vector<Json> events = Events(response.body);
  ASSERT_GE(events.size(), 4u);
  EXPECT_EQ(events.front()["choices"][0]["delta"]["role"], "assistant");
  std::string text;
  for (const Json& event : events) {
    if (!event["choices"].empty()) text += event["choices"][0]["delta"].value("content", "");
  }
  EXPECT_EQ(text, truth->text());
  const Json& closing = events[events.size() - 2];
  EXPECT_EQ(closing["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(closing["updraft"]["decision"], "keep");
  EXPECT_EQ(events.back()["usage"]["completion_tokens"], 24);
}

TEST_F(HttpFrontTest, CompletionsModelsHealthMetrics) {
  Serve();
  const Json answer = Post("/v1/completions", R"({"prompt":"once upon","max_tokens":5,"logprobs":1})");
  EXPECT_EQ(answer["object"], "text_completion");
  EXPECT_EQ(answer["choices"][0]["logprobs"]["tokens"].size(), 5u);
  EXPECT_LE(answer["choices"][0]["logprobs"]["token_logprobs"][0].get<double>(), 0.0);
  EXPECT_EQ(http::ParseJson(Fetch(port(), "GET", "/v1/models").body)->at("data")[0]["id"], "synthetic agent-test");
  EXPECT_EQ(Fetch(port(), "GET", "/healthz").status, 200);
  const std::string metrics = Fetch(port(), "GET", "/metrics").body;
  EXPECT_THAT(metrics, HasSubstr(R"(updraft_requests_total{tier="edge",decision="keep",outcome="ok"} 1)"));
  EXPECT_THAT(metrics, HasSubstr(R"(updraft_tokens_total{tier="edge"} 5)"));
  EXPECT_THAT(metrics, HasSubstr("vllm:num_requests_waiting"));
  EXPECT_THAT(metrics, Not(HasSubstr("updraft_link_reachable")));
  agent_->BeginDrain();
  EXPECT_EQ(Fetch(port(), "GET", "/healthz").status, 503);
  const RawResponse refused = Fetch(port(), "POST", kChat, Body());
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.headers.count("retry-after"), 1u);
}

TEST_F(HttpFrontTest, LogprobsOfAChat) {
  Serve();
  const Json answer = Post(kChat, Body(R"("logprobs":true,"top_logprobs":1)"));
  const Json& content = answer["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 24u);
  std::string bytes;
  for (const Json& token : content) {
    for (const Json& byte : token["bytes"]) bytes += static_cast<char>(byte.get<int>());
    EXPECT_EQ(token["top_logprobs"].size(), 1u);
  }
  EXPECT_FALSE(bytes.empty());
}

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
    const RawResponse response = Fetch(port(), "POST", kChat, Body(), "X-Updraft-Tier: " + tier + "\r\n");
    return std::make_pair(response.status, *http::ParseJson(response.body));
  };
  EXPECT_EQ(ask("upstream").second["updraft"]["decision"], "stream-upstream");
  EXPECT_EQ(ask("auto").second["updraft"]["decision"], "hand-over");
  EXPECT_EQ(ask("auto").second["choices"][0]["message"]["content"], "from above");
  EXPECT_EQ(ask("local").second["updraft"]["spans"][0]["tier"], "edge");
  EXPECT_EQ(ask("moon").first, 400);
  EXPECT_EQ(ask("moon").second["error"]["param"], "X-Updraft-Tier");
}

TEST_F(HttpFrontTest, HostileRequestsGetTheirStatusAndHurtNobody) {
  Serve();
  struct Case {
    const char* path;
    std::string body;
    int status;
  };
  const Case cases[] = {
      {kChat, "", 400},
      {kChat, "{", 400},
      {kChat, "[]", 400},
      {kChat, std::string(30000, '['), 400},
      {kChat, std::string("{\"messages\":[{\"role\":\"user\",\"content\":\"\xff\xfe\xfd\"}]}"), 400},
      {kChat, R"({"messages":[]})", 400},
      {kChat, R"({"messages":[{"role":"wizard","content":"x"}]})", 400},
      {kChat, R"({"messages":[{"role":"user","content":""}]})", 400},
      {kChat, R"({"messages":[{"role":"assistant","content":"I begin"}],"max_tokens":4})", 200},
      {kChat, Body(R"("temperature":"warm")"), 400},
      {kChat, Body(R"("n":3)"), 400},
      {kChat, R"({"model":"gpt-9","messages":[{"role":"user","content":"x"}]})", 404},
      {kChat, R"({"messages":[{"role":"user","content":")" + std::string(20000, 'x') + R"("}]})", 400},
      {kChat, Body(R"("x":")" + std::string(70000, 'x') + "\""), 413},
      {"/v1/completions", R"({"prompt":""})", 400},
      {"/v1/completions", R"({"prompt":"\u0000\u0000","max_tokens":3})", 200},
      {"/v1/nothing", "{}", 404},
      {"/v1/models", "{}", 405},
      {"/../../etc/passwd", "{}", 404},
  };
  for (const Case& bad : cases) {
    const RawResponse response = Fetch(port(), "POST", bad.path, bad.body);
    EXPECT_EQ(response.status, bad.status) << bad.body.substr(0, 100) << "\n" << response.body;
    auto json = http::ParseJson(response.body);
    ASSERT_TRUE(json.ok()) << response.body;
    if (bad.status >= 400) {
      EXPECT_TRUE((*json)["error"]["message"].is_string()) << response.body;
      EXPECT_FALSE((*json)["error"]["message"].get<std::string>().empty());
    }
  }
  RawClient bad_chunk(port());
  bad_chunk.Send("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nXYZ\r\n");
  EXPECT_EQ(bad_chunk.Receive().status, 400);
  int status = 0;
  Post(kChat, Body(), &status);
  EXPECT_EQ(status, 200);
}

TEST_F(HttpFrontTest, SlowlorisIsCutOffWhileOthersAreServed) {
  Serve();
  RawClient slow(port());
  slow.Send("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{");
  int status = 0;
  Post(kChat, Body(), &status);
  EXPECT_EQ(status, 200);
  EXPECT_TRUE(slow.WaitClosed(absl::Seconds(20)));
}

TEST_F(HttpFrontTest, PipelinedCompletionsComeInOrder) {
  Serve();
  RawClient client(port());
  std::string all;
  for (int n = 1; n <= 4; ++n) {
    all += RequestText("POST", "/v1/completions", absl::StrFormat(R"({"prompt":"once","max_tokens":%d})", n));
  }
  ASSERT_TRUE(client.Send(all));
  for (int n = 1; n <= 4; ++n) {
    const RawResponse response = client.Receive();
    ASSERT_EQ(response.status, 200);
    EXPECT_EQ((*http::ParseJson(response.body))["usage"]["completion_tokens"], n);
  }
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
  size_t n_asked = 0;
  for (const char* stream : {R"("stream":true)", R"("stream":false)"}) {
    RawClient client(port());
    ASSERT_TRUE(client.Send(RequestText("POST", kChat, Body(stream))));
    if (std::string(stream) == R"("stream":true)") {
      ASSERT_TRUE(client.WaitFor("first words"));
    }
    ++n_asked;
    for (int i = 0; i < 4000 && cloud.requests().size() < n_asked; ++i) absl::SleepFor(absl::Milliseconds(5));
    ASSERT_EQ(agent_->CurrentLoad().running_requests(), 1);
    client.Close();
    for (int i = 0; i < 4000 && agent_->CurrentLoad().running_requests() > 0; ++i)
      absl::SleepFor(absl::Milliseconds(5));
    EXPECT_EQ(agent_->CurrentLoad().running_requests(), 0);
  }
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
  Serve("", {.max_queued = 1});
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

TEST_F(HttpFrontTest, ManyStreamingClientsSomeLeaving) {
  Serve("", {.max_queued = 1000});
  auto truth = Ask(*agent_, ChatRequest("hello there"));
  std::atomic<int> complete{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < 24; ++c) {
    clients.emplace_back([&, c] {
      RawClient client(port());
      client.Send(RequestText("POST", kChat, Body(R"("stream":true)")));
      if (c % 3 == 0) return client.Reset();
      const RawResponse response = client.Receive(absl::Seconds(60));
      std::string text;
      for (const Json& event : Events(response.body)) text += event["choices"][0]["delta"].value("content", "");
      if (response.complete && text == truth->text()) ++complete;
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(complete, 16);
}

}  // namespace
}  // namespace updraft::testing
