// OpenAI's HTTP over real sockets, the same for every backend: answers, streams, headers, and what hostile or impatient
// clients do. Included by one file of a test program, which instantiates HttpFrontCases.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "tests/common/serving/collecting_sink.h"
#include "tests/common/serving/http_talk.h"
#include "tests/common/serving/serve_http.h"
#include "tests/common/serving/tier_under_test.h"

namespace updraft::testing {

// A client of a stream and one of a whole answer ask and leave, one after the other. waits(n): whether the n-th request
// is on its way and waits, after its first words; ended(n): whether it is over.
inline void ClientsAskAndLeave(int port, const std::function<bool(int)>& waits, const std::function<bool(int)>& ended) {
  const auto eventually = [](const auto& done) {
    for (int i = 0; i < 4000 && !done(); ++i) absl::SleepFor(absl::Milliseconds(5));
    return done();
  };
  for (const int n : {1, 2}) {
    RawClient client(port);
    ASSERT_TRUE(client.Send(RequestText("POST", kChat, ChatBody(n == 1 ? R"("stream":true)" : R"("stream":false)"))));
    if (n == 1) {
      ASSERT_TRUE(client.WaitFor("first words"));
    }
    ASSERT_TRUE(eventually([&] { return waits(n); })) << n;
    ASSERT_FALSE(ended(n)) << n;
    client.Close();
    EXPECT_TRUE(eventually([&] { return ended(n); })) << n;
  }
}

class HttpFrontCases : public ::testing::TestWithParam<MakeTier> {
 protected:
  void SetUp() override {
    tier_ = GetParam()();
    ASSERT_NE(tier_, nullptr);
    server_ = ServeHttp(tier_->backend(), tier_->metrics());
  }
  void TearDown() override {
    if (server_ != nullptr) server_->Stop(absl::ZeroDuration());
    if (tier_ != nullptr) tier_->Stop();
  }
  int port() const { return server_->port(); }
  Json Post(const std::string& path, const std::string& body, int* status = nullptr) {
    return testing::Post(port(), path, body, status);
  }
  RawResponse Chat(const std::string& headers, const std::string& rest = "") {
    return Fetch(port(), "POST", kChat, ChatBody(rest), headers);
  }

  std::unique_ptr<TierUnderTest> tier_;
  std::unique_ptr<http::Server> server_;
};

TEST_P(HttpFrontCases, ChatCompletion) {
  auto truth = AskOf(tier_->backend(), ChatRequest("hello there"));
  int status = 0;
  const Json answer = Post(kChat, ChatBody(), &status);
  EXPECT_EQ(status, 200);
  EXPECT_EQ(answer["object"], "chat.completion");
  EXPECT_EQ(answer["choices"][0]["message"]["content"], truth->text());
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(answer["usage"]["completion_tokens"], 24);
  EXPECT_EQ(answer["updraft"]["decision"], "keep");
  EXPECT_EQ(answer["updraft"]["spans"][0]["tier"], tier_->tier());
  EXPECT_FALSE(answer["updraft"].contains("disposition")) << "nothing says that this answer acts";
  EXPECT_EQ(answer["model"], tier_->model_name());
}

TEST_P(HttpFrontCases, StreamedChatIsTheSameAnswer) {
  auto truth = AskOf(tier_->backend(), ChatRequest("hello there"));
  const RawResponse response = Chat("", R"("stream":true,"stream_options":{"include_usage":true})");
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

// The client has said all that it will, and reads on.
TEST_P(HttpFrontCases, AHalfClosedClientGetsItsWholeAnswer) {
  auto truth = AskOf(tier_->backend(), ChatRequest("hello there"));
  for (const bool stream : {false, true}) {
    RawClient client(port());
    ASSERT_TRUE(client.Send(RequestText("POST", kChat, ChatBody(stream ? R"("stream":true)" : R"("stream":false)"))));
    client.HalfClose();
    const RawResponse response = client.Receive();
    EXPECT_EQ(response.status, 200);
    EXPECT_TRUE(response.complete);
    std::string text;
    for (const Json& event : stream ? Events(response.body) : std::vector<Json>{*http::ParseJson(response.body)}) {
      text += event["choices"][0][stream ? "delta" : "message"].value("content", "");
    }
    EXPECT_EQ(text, truth->text());
  }
}

TEST_P(HttpFrontCases, CompletionsModelsHealthMetrics) {
  const Json answer = Post("/v1/completions", R"({"prompt":"once upon","max_tokens":5,"logprobs":1})");
  EXPECT_EQ(answer["object"], "text_completion");
  EXPECT_EQ(answer["choices"][0]["logprobs"]["tokens"].size(), 5u);
  EXPECT_LE(answer["choices"][0]["logprobs"]["token_logprobs"][0].get<double>(), 0.0);
  for (const char* health : {"/healthz", "/health", "/health/"}) EXPECT_EQ(Fetch(port(), "GET", health).status, 200);
  const std::string metrics = Fetch(port(), "GET", "/metrics").body;
  EXPECT_THAT(metrics, ::testing::HasSubstr(absl::StrFormat(
                           R"(updraft_requests_total{tier="%s",decision="keep",outcome="ok"} 1)", tier_->tier())));
  EXPECT_THAT(metrics, ::testing::HasSubstr(absl::StrFormat(R"(updraft_tokens_total{tier="%s"} 5)", tier_->tier())));
  EXPECT_THAT(metrics, ::testing::HasSubstr("vllm:num_requests_waiting"));
  EXPECT_THAT(metrics, ::testing::HasSubstr("updraft_resident_bytes"));
  EXPECT_THAT(metrics, ::testing::Not(::testing::HasSubstr("updraft_link_reachable")));
  tier_->BeginDrain();
  EXPECT_EQ(Fetch(port(), "GET", "/healthz").status, 503);
  const RawResponse refused = Chat("");
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.headers.count("retry-after"), 1u);
}

TEST_P(HttpFrontCases, ModelsAreListedAndFoundByName) {
  const Json entry = http::ParseJson(Fetch(port(), "GET", "/v1/models").body)->at("data")[0];
  EXPECT_EQ(entry["id"], tier_->model_name());
  EXPECT_EQ(entry["object"], "model");
  EXPECT_EQ(entry["max_model_len"], tier_->backend().max_sequence_tokens());
  EXPECT_EQ(http::ParseJson(Fetch(port(), "GET", "/v1/models/").body)->at("data")[0], entry);
  const std::string escaped = absl::StrReplaceAll(tier_->model_name(), {{" ", "%20"}});
  for (const std::string& name : {escaped, escaped + "/", std::string("updraft"), std::string("%75pdraft")}) {
    const RawResponse found = Fetch(port(), "GET", "/v1/models/" + name);
    EXPECT_EQ(found.status, 200) << name;
    EXPECT_EQ(*http::ParseJson(found.body), entry) << name;
  }
  for (const char* name : {"gpt-9", "updraft%2", "updraft/x", "%"}) {
    const RawResponse none = Fetch(port(), "GET", std::string("/v1/models/") + name);
    EXPECT_EQ(none.status, 404) << name;
    EXPECT_EQ((*http::ParseJson(none.body))["error"]["code"], "model_not_found");
  }
  EXPECT_EQ(Fetch(port(), "POST", "/v1/models/updraft", "{}").status, 405);
}

TEST_P(HttpFrontCases, AnOverflowIsSaidInTheWordsThatClientsKnow) {
  for (const char* path : {kChat, "/v1/completions"}) {
    const std::string text(20000, 'x');
    const std::string body = path == std::string(kChat)
                                 ? R"({"messages":[{"role":"user","content":")" + text + R"("}]})"
                                 : R"({"prompt":")" + text + R"("})";
    int status = 0;
    const Json error = Post(path, body, &status)["error"];
    EXPECT_EQ(status, 400);
    EXPECT_EQ(error["code"], "context_length_exceeded");
    EXPECT_EQ(error["type"], "invalid_request_error");
    EXPECT_THAT(error["message"].get<std::string>(),
                ::testing::StartsWith(absl::StrFormat("This model's maximum context length is %d tokens. However, ",
                                                      tier_->backend().max_sequence_tokens())));
  }
}

TEST_P(HttpFrontCases, ACompressedBodyIs415) {
  for (const char* coding : {"gzip", "br", "deflate, gzip", "zstd"}) {
    const RawResponse response = Chat(absl::StrFormat("Content-Encoding: %s\r\n", coding));
    EXPECT_EQ(response.status, 415) << coding;
    EXPECT_EQ((*http::ParseJson(response.body))["error"]["param"], "Content-Encoding");
    EXPECT_EQ(response.headers.at("accept-encoding"), "identity");
  }
  EXPECT_EQ(Chat("Content-Encoding: identity\r\n").status, 200);
}

// Whoever refuses: the backend counts its own among its requests.
TEST_P(HttpFrontCases, RefusalsAreCounted) {
  Chat("", R"("n":0)");
  Fetch(port(), "POST", kChat, "{");
  Fetch(port(), "GET", "/v2/none");
  const std::string metrics = Fetch(port(), "GET", "/metrics").body;
  for (const auto& [status, n] : {std::pair(400, 2), std::pair(404, 1)}) {
    EXPECT_THAT(metrics,
                ::testing::HasSubstr(absl::StrFormat(R"(updraft_refused_total{tier="%s",front="http",status="%d"} %d)",
                                                     tier_->tier(), status, n)));
  }
}

TEST_P(HttpFrontCases, LogprobsOfAChat) {
  const Json answer = Post(kChat, ChatBody(R"("logprobs":true,"top_logprobs":1)"));
  const Json& content = answer["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 24u);
  std::string bytes;
  for (const Json& token : content) {
    for (const Json& byte : token["bytes"]) bytes += static_cast<char>(byte.get<int>());
    EXPECT_EQ(token["top_logprobs"].size(), 1u);
  }
  EXPECT_FALSE(bytes.empty());
}

TEST_P(HttpFrontCases, RequestIdIsTheCallersOrMadeAndGivenBack) {
  const RawResponse mine = Chat("X-Request-Id: order-66/a\r\n");
  EXPECT_EQ(mine.status, 200) << mine.body;
  EXPECT_EQ(mine.headers.at("x-request-id"), "order-66/a");
  EXPECT_EQ((*http::ParseJson(mine.body))["id"], "chatcmpl-order-66/a");
  const RawResponse stream = Chat("X-Request-Id: two\r\n", R"("stream":true)");
  EXPECT_EQ(stream.headers.at("x-request-id"), "two");
  EXPECT_EQ(Events(stream.body).front()["id"], "chatcmpl-two");
  const RawResponse made = Chat("");
  const std::string id = made.headers.at("x-request-id");
  EXPECT_EQ(id.size(), 32u);
  EXPECT_EQ((*http::ParseJson(made.body))["id"], "chatcmpl-" + id);
  // A refusal is a response, too, whoever refuses.
  for (const char* rest : {R"("n":0)", R"("stop":7)"}) {
    const RawResponse refused = Chat("X-Request-Id: three\r\n", rest);
    EXPECT_EQ(refused.status, 400);
    EXPECT_EQ(refused.headers.at("x-request-id"), "three");
    EXPECT_EQ((*http::ParseJson(refused.body))["error"]["request_id"], "three");
  }
  tier_->BeginDrain();
  for (const char* rest : {R"("stream":false)", R"("stream":true)"}) {
    const RawResponse late = Chat("X-Request-Id: four\r\n", rest);
    EXPECT_EQ(late.status, 503) << "a refusal has its status, of a stream too";
    EXPECT_EQ(late.headers.at("x-request-id"), "four");
    EXPECT_EQ((*http::ParseJson(late.body))["error"]["request_id"], "four");
  }
}

// Code points.
inline size_t CharactersOf(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

// They cover the text that is given: of tokens that a stop string cut off there are none.
TEST_P(HttpFrontCases, LogprobsAndStopStringsCoverTheSameText) {
  const std::string body = R"({"prompt":"once upon","max_tokens":24,"logprobs":1)";
  const Json whole = Post("/v1/completions", body + "}")["choices"][0];
  const std::string text = whole["text"];
  const Json& offsets = whole["logprobs"]["text_offset"];
  ASSERT_EQ(offsets.size(), 24u);
  // A stop string of several tokens, in characters that JSON takes as they are.
  std::string stop;
  for (size_t at = text.size() / 3; stop.size() < 4 && at < text.size(); ++at) {
    const bool plain = absl::ascii_isalnum(static_cast<unsigned char>(text[at]));
    stop = plain ? stop + text[at] : "";
  }
  if (stop.size() < 4) GTEST_SKIP() << "the random model's answer has no four letters in a row: " << text;
  const std::string cut = text.substr(0, text.find(stop));
  size_t n_covered = 0;
  while (offsets[n_covered].get<size_t>() < CharactersOf(cut)) ++n_covered;
  for (const bool stream : {false, true}) {
    const std::string asked = body + absl::StrFormat(R"(,"stop":"%s","stream":%s})", stop, stream ? "true" : "false");
    const std::string response = Fetch(port(), "POST", "/v1/completions", asked).body;
    std::string given;
    std::vector<size_t> at;
    for (const Json& object : stream ? Events(response) : std::vector<Json>{*http::ParseJson(response)}) {
      const Json& choice = object["choices"][0];
      given += choice["text"].get<std::string>();
      if (choice["logprobs"].is_null()) continue;
      for (const Json& offset : choice["logprobs"]["text_offset"]) {
        at.push_back(offset.get<size_t>());
        EXPECT_LT(at.back(), CharactersOf(given)) << "its text was not given yet";
      }
    }
    EXPECT_EQ(given, cut);
    ASSERT_EQ(at.size(), n_covered) << response;
    for (size_t i = 0; i < n_covered; ++i) EXPECT_EQ(at[i], offsets[i].get<size_t>()) << i;
  }
}

// Of the server's own refusals too; where the request could not be read, one is made.
TEST_P(HttpFrontCases, EveryRefusalHasAnId) {
  struct Case {
    const char* what;
    std::string request;
    int status;
    bool readable = true;
  };
  const std::string id = "X-Request-Id: mine\r\n";
  const Case cases[] = {
      {"no such path", RequestText("GET", "/v2/none", "", id), 404},
      {"wrong method", RequestText("GET", kChat, "", id), 405},
      {"too large", RequestText("POST", kChat, std::string(65 << 10, ' '), id), 413},
      {"two hosts", "GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\n" + id + "\r\n", 400},
      {"header too large",
       "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n" + id + "X: " + std::string(20000, 'x') + "\r\n\r\n", 431,
       false},
      {"no HTTP", "hello there\r\n\r\n", 400, false},
  };
  for (const Case& c : cases) {
    RawClient client(port());
    ASSERT_TRUE(client.Send(c.request)) << c.what;
    const RawResponse response = client.Receive();
    EXPECT_EQ(response.status, c.status) << c.what;
    ASSERT_EQ(response.headers.count("x-request-id"), 1u) << c.what << " " << response.status;
    if (c.readable) {
      EXPECT_EQ(response.headers.at("x-request-id"), "mine") << c.what;
    } else {
      EXPECT_FALSE(response.headers.at("x-request-id").empty()) << c.what;
    }
    const auto body = http::ParseJson(response.body);
    ASSERT_TRUE(body.ok()) << c.what << ": " << response.body;
    EXPECT_EQ((*body)["error"]["request_id"], response.headers.at("x-request-id")) << c.what;
  }
  tier_->BeginDrain();
  const RawResponse health = Fetch(port(), "GET", "/healthz", "", id);
  EXPECT_EQ(health.status, 503);
  EXPECT_EQ(health.headers.at("x-request-id"), "mine");
}

TEST_P(HttpFrontCases, HeadersThatCannotBeAre400AndNamed) {
  const std::pair<std::string, std::string> cases[] = {
      {"X-Request-Id", std::string(129, 'x')},
      {"X-Request-Id", "two words"},
      {"X-Request-Id", "caf\xc3\xa9"},
      {"X-Updraft-Deadline-Ms", "soon"},
      {"X-Updraft-Deadline-Ms", "0"},
      {"X-Updraft-Deadline-Ms", "-5"},
      {"X-Updraft-Deadline-Ms", "1.5"},
      {"X-Updraft-Deadline-Ms", "1e3"},
      {"X-Updraft-Deadline-Ms", "86400001"},
      {"X-Updraft-Deadline-Ms", "99999999999999999999"},
      {"X-Updraft-Tier", "moon"},
      {"X-Updraft-Priority", "11"},
      {"X-Updraft-Priority", "-11"},
      {"X-Updraft-Priority", "high"},
      {"X-Updraft-Tenant", "two words"},
      {"X-Updraft-Budget-Tokens", "few"},
      {"X-Updraft-Budget-Tokens", "0"},
      {"X-Updraft-Budget-Tokens", "-1"},
      {"X-Updraft-Budget-Tokens", "2.5"},
      {"X-Updraft-Budget-Tokens", "1048577"},
  };
  for (const auto& [name, value] : cases) {
    const RawResponse response = Chat(name + ": " + value + "\r\n");
    EXPECT_EQ(response.status, 400) << name << ": " << value;
    const Json error = *http::ParseJson(response.body);
    EXPECT_EQ(error["error"]["param"], name) << response.body;
    EXPECT_THAT(error["error"]["message"].get<std::string>(), ::testing::HasSubstr("expected"));
    ASSERT_EQ(response.headers.count("x-request-id"), 1u);
    EXPECT_NE(response.headers.at("x-request-id"), value);
  }
  for (const char* fine :
       {"X-Updraft-Tier: auto\r\n", "X-Updraft-Tier: local\r\n", "X-Updraft-Deadline-Ms: 60000\r\n",
        "X-Updraft-Deadline-Ms: 86400000\r\n", "X-Updraft-Budget-Tokens: 1048576\r\n", "X-Request-Id:\r\n"}) {
    EXPECT_EQ(Chat(fine).status, 200) << fine;
  }
}

// Of the header and the body the smaller counts, and either may be absent.
TEST_P(HttpFrontCases, TheBudgetOfTheHeaderCapsTheAnswer) {
  const std::string body = R"({"messages":[{"role":"user","content":"hello there"}],"temperature":0)";
  const std::string prompt = R"({"prompt":"hello there","temperature":0,"max_tokens":9)";
  struct Case {
    const char* path;
    std::string body, budget;
    int n_tokens;
  };
  const Case cases[] = {{kChat, body + R"(,"max_tokens":9})", "5", 5},
                        {kChat, body + R"(,"max_tokens":9})", "1000", 9},
                        {kChat, body + "}", "7", 7},
                        {"/v1/completions", prompt + "}", "5", 5},
                        {kChat, body + R"(,"n":2})", "3", 6}};
  for (const Case& c : cases) {
    const RawResponse response = Fetch(port(), "POST", c.path, c.body, "X-Updraft-Budget-Tokens: " + c.budget + "\r\n");
    ASSERT_EQ(response.status, 200) << response.body;
    const Json answer = *http::ParseJson(response.body);
    EXPECT_EQ(answer["usage"]["completion_tokens"], c.n_tokens) << response.body;
    EXPECT_EQ(answer["choices"][0]["finish_reason"], "length");
  }
}

// What a page in a browser can send: by a name that was made to point here, or from another origin.
TEST_P(HttpFrontCases, PagesOfOthersAreRefused) {
  struct Case {
    const char* method;
    const char* path;
    std::string headers;  // Host included
    int status;
    const char* param;
  };
  const std::string json = "Content-Type: application/json\r\n";
  const Case cases[] = {
      {"POST", kChat, "Host: evil.com:8080\r\n" + json, 403, "Host"},
      {"POST", kChat, "Host: evil.com\r\nOrigin: http://evil.com\r\n" + json, 403, "Host"},
      {"GET", "/v1/models", "Host: evil.com\r\n", 403, "Host"},
      {"GET", "/metrics", "Host: evil.com\r\n", 403, "Host"},
      {"GET", "/healthz", "Host: evil.com\r\n", 403, "Host"},
      {"GET", "http://evil.com/v1/models", "Host: localhost\r\n", 403, "Host"},
      {"POST", kChat, "Host: localhost\r\nOrigin: http://evil.com\r\n" + json, 403, "Origin"},
      {"POST", kChat, "Host: localhost\r\nOrigin: null\r\nContent-Type: text/plain\r\n", 403, "Origin"},
      {"POST", kChat, "Host: localhost\r\nOrigin: http://localhost\r\nContent-Type: text/plain\r\n", 415,
       "Content-Type"},
      {"OPTIONS", kChat, "Host: localhost\r\nOrigin: http://evil.com\r\nAccess-Control-Request-Method: POST\r\n", 403,
       "Origin"},
      {"POST", kChat, "Host: 127.0.0.1:9\r\n", 200, ""},
      {"POST", kChat, "Host: [::1]:9\r\n", 200, ""},
      {"POST", kChat, "Host: localhost:80\r\nOrigin: http://localhost\r\n" + json, 200, ""},
      {"GET", "/metrics", "Host: 10.1.2.3:8080\r\n", 200, ""},
      {"GET", "/healthz", "Host: 10.1.2.3\r\n", 200, ""},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(absl::StrCat(c.method, " ", c.path, "\n", c.headers));
    const std::string body = std::string(c.method) == "POST" ? ChatBody() : "";
    RawClient client(port());
    ASSERT_TRUE(client.Send(absl::StrFormat("%s %s HTTP/1.1\r\n%sX-Request-Id: mine\r\nContent-Length: %d\r\n\r\n%s",
                                            c.method, c.path, c.headers, body.size(), body)));
    const RawResponse response = client.Receive();
    EXPECT_EQ(response.status, c.status) << response.body;
    EXPECT_EQ(response.headers.at("x-request-id"), "mine");
    EXPECT_EQ(response.headers.count("access-control-allow-origin"), 0u);
    if (c.status < 400) continue;
    const Json error = (*http::ParseJson(response.body))["error"];
    EXPECT_EQ(error["param"], c.param);
    EXPECT_EQ(error["type"], c.status == 403 ? "permission_error" : "invalid_request_error");
    EXPECT_THAT(error["message"].get<std::string>(), ::testing::HasSubstr("expected"));
  }
  RawClient old(port());
  ASSERT_TRUE(old.Send("GET /healthz HTTP/1.0\r\n\r\n"));
  EXPECT_EQ(old.Receive().status, 200) << "what balances load asks like this";
  const std::string metrics = Fetch(port(), "GET", "/metrics").body;
  EXPECT_THAT(metrics, ::testing::HasSubstr(absl::StrFormat(
                           R"(updraft_refused_total{tier="%s",front="http",status="403"} 9)", tier_->tier())));
  EXPECT_THAT(metrics, ::testing::HasSubstr(absl::StrFormat(
                           R"(updraft_refused_total{tier="%s",front="http",status="415"} 1)", tier_->tier())));
}

TEST_P(HttpFrontCases, HostileRequestsGetTheirStatusAndHurtNobody) {
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
      {kChat, R"({"messages":[{"role":"tool","tool_call_id":"c","content":"x"}]})", 400},
      {kChat, R"({"messages":[{"role":"user","content":""}]})", 400},
      {kChat, R"({"messages":[{"role":"assistant","content":"I begin"}],"max_tokens":4})", 200},
      {kChat, ChatBody(R"("temperature":"warm")"), 400},
      {kChat, ChatBody(R"("n":0)"), 400},
      {kChat, ChatBody(R"("tools":[{"type":"function","function":{"name":"f"}}])"), 400},
      {kChat, R"({"model":"gpt-9","messages":[{"role":"user","content":"x"}]})", 404},
      {kChat, R"({"messages":[{"role":"user","content":")" + std::string(20000, 'x') + R"("}]})", 400},
      {kChat, ChatBody(R"("x":")" + std::string(70000, 'x') + "\""), 413},
      {"/v1/completions", R"({"prompt":""})", 400},
      {"/v1/completions", R"({"prompt":"<|im_start|>","parse_special":true,"max_tokens":3})", 200},
      {"/v1/completions", R"({"prompt":"a","parse_special":"yes"})", 400},
      {"/v1/chat/completions", R"({"messages":[{"role":"user","content":"a"}],"parse_special":true})", 400},
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
  bad_chunk.Send("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nXYZ\r\n");
  EXPECT_EQ(bad_chunk.Receive().status, 400);
  int status = 0;
  Post(kChat, ChatBody(), &status);
  EXPECT_EQ(status, 200);
}

TEST_P(HttpFrontCases, SlowlorisIsCutOffWhileOthersAreServed) {
  RawClient slow(port());
  slow.Send("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{");
  int status = 0;
  Post(kChat, ChatBody(), &status);
  EXPECT_EQ(status, 200);
  EXPECT_TRUE(slow.WaitClosed(absl::Seconds(20)));
}

TEST_P(HttpFrontCases, PipelinedCompletionsComeInOrder) {
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

TEST_P(HttpFrontCases, ManyStreamingClientsSomeLeaving) {
  auto truth = AskOf(tier_->backend(), ChatRequest("hello there"));
  std::atomic<int> complete{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < 24; ++c) {
    clients.emplace_back([&, c] {
      RawClient client(port());
      client.Send(RequestText("POST", kChat, ChatBody(R"("stream":true)")));
      if (c % 3 == 0) return client.Reset();
      const RawResponse response = client.Receive(absl::Seconds(60));
      std::string text;
      for (const Json& event : Events(response.body)) text += event["choices"][0]["delta"].value("content", "");
      if (response.complete && text == truth->text()) ++complete;
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(complete, 16);
  for (int i = 0; i < 4000 && tier_->backend().CurrentLoad().running_requests() > 0; ++i) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  EXPECT_EQ(tier_->backend().CurrentLoad().running_requests(), 0);
}

}  // namespace updraft::testing
