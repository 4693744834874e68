// OpenAI's HTTP against a backend whose every step the test decides.
#include <condition_variable>
#include <map>
#include <mutex>

#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "common/serving/provenance_json.h"
#include "common/status/retry_delay.h"
#include "tests/common/serving/fake_backend.h"
#include "tests/common/serving/http_front_cases.h"

namespace updraft::testing {
namespace {

using ::testing::HasSubstr;

INSTANTIATE_TEST_SUITE_P(Fake, HttpFrontCases, ::testing::Values(&FakeTier::Make));

class HttpFrontTest : public ::testing::Test {
 protected:
  void SetUp() override { server_ = ServeHttp(tier_.backend(), tier_.metrics()); }
  void TearDown() override { server_->Stop(absl::ZeroDuration()); }
  int port() const { return server_->port(); }
  // Every request is recorded and answered.
  void Record(std::vector<v1::GenerateRequest>* requests, std::vector<absl::Duration>* left = nullptr) {
    tier_.backend().script = [this, requests, left](const v1::GenerateRequest& request, SteadyTime deadline,
                                                    const std::shared_ptr<AnswerSink>& sink) {
      requests->push_back(request);
      if (left != nullptr) left->push_back(deadline - SteadyNow());
      tier_.backend().Answer(request, *sink);
      return RequestHandle();
    };
  }

  FakeTier tier_;
  std::unique_ptr<http::Server> server_;
};

TEST_F(HttpFrontTest, HeadersAndParametersReachTheBackend) {
  std::vector<v1::GenerateRequest> requests;
  std::vector<absl::Duration> left;
  Record(&requests, &left);
  Fetch(port(), "POST", kChat,
        ChatBody(R"("temperature":0.5,"top_p":0.25,"top_k":7,"min_p":0.125,"repetition_penalty":1.5,"seed":11,)"
                 R"("stop":["a","b"],"logprobs":true,"presence_penalty":-1.5,"frequency_penalty":0.25,)"
                 R"("logit_bias":{"9":-100,"4":0.5})"),
        "X-Request-Id: mine\r\nX-Updraft-Tier: upstream\r\nX-Updraft-Deadline-Ms: 90000\r\n"
        "X-Updraft-Priority: -3\r\nX-Updraft-Tenant: ann\r\n");
  Fetch(port(), "POST", "/v1/completions", R"({"prompt":"once"})", "X-Updraft-Tier: local\r\n");
  ASSERT_EQ(requests.size(), 2u);
  const v1::GenerateRequest& chat = requests[0];
  EXPECT_EQ(chat.request_id(), "mine");
  EXPECT_EQ(chat.tier(), v1::TIER_CHOICE_UPSTREAM_ONLY);
  EXPECT_EQ(chat.priority(), -3);
  EXPECT_EQ(chat.tenant(), "ann");
  EXPECT_EQ(chat.conversation().messages(0).content(), "hello there");
  EXPECT_EQ(chat.max_tokens(), 24);
  EXPECT_EQ(chat.sampling().temperature(), 0.5f);
  EXPECT_EQ(chat.sampling().top_p(), 0.25f);
  EXPECT_EQ(chat.sampling().top_k(), 7);
  EXPECT_EQ(chat.sampling().min_p(), 0.125f);
  EXPECT_EQ(chat.sampling().repetition_penalty(), 1.5f);
  EXPECT_EQ(chat.sampling().seed(), 11u);
  EXPECT_EQ(chat.sampling().presence_penalty(), -1.5f);
  EXPECT_EQ(chat.sampling().frequency_penalty(), 0.25f);
  ASSERT_EQ(chat.sampling().logit_bias().entries_size(), 2);
  EXPECT_EQ(chat.sampling().logit_bias().entries(0).token(), 4);
  EXPECT_EQ(chat.sampling().logit_bias().entries(0).bias(), 0.5f);
  EXPECT_EQ(chat.sampling().logit_bias().entries(1).token(), 9);
  EXPECT_EQ(chat.sampling().logit_bias().entries(1).bias(), -100.0f);
  EXPECT_FALSE(requests[1].sampling().has_logit_bias());
  EXPECT_EQ(chat.stop_size(), 2);
  EXPECT_TRUE(chat.include_evidence());
  EXPECT_GT(left[0], absl::Seconds(60));
  EXPECT_LE(left[0], absl::Seconds(90));
  EXPECT_EQ(requests[1].prompt(), "once");
  EXPECT_EQ(requests[1].tier(), v1::TIER_CHOICE_LOCAL_ONLY);
  EXPECT_EQ(requests[1].request_id().size(), 32u);
  EXPECT_EQ(left[1], absl::InfiniteDuration());
}

TEST_F(HttpFrontTest, RefusalsKeepTheirStatusAndDelay) {
  const std::pair<absl::Status, int> cases[] = {
      {WithRetryDelay(absl::ResourceExhaustedError("full"), absl::Milliseconds(2500)), 429},
      {absl::DeadlineExceededError("the deadline is over"), 504},
      {absl::UnavailableError("shutting down"), 503},
      {absl::AlreadyExistsError("a loop"), 409},
      {absl::InternalError("broken"), 500},
  };
  for (const auto& [status, http_status] : cases) {
    tier_.backend().script = [status = status](const auto&, SteadyTime, const std::shared_ptr<AnswerSink>& sink) {
      sink->OnEnd(status, {});
      return RequestHandle();
    };
    for (const char* stream : {R"("stream":true)", R"("stream":false)"}) {
      const RawResponse response = Fetch(port(), "POST", kChat, ChatBody(stream));
      EXPECT_EQ(response.status, http_status) << response.body;
      EXPECT_EQ((*http::ParseJson(response.body))["error"]["message"], std::string(status.message()));
      EXPECT_EQ(response.headers.count("x-request-id"), 1u);
      if (http_status == 429) {
        EXPECT_EQ(response.headers.at("retry-after"), "3");
        EXPECT_EQ(response.headers.at("retry-after-ms"), "2500");
        EXPECT_EQ((*http::ParseJson(response.body))["error"]["code"], "rate_limit_exceeded");
      }
    }
  }
}

// What a browser does before and while a page of a configured origin speaks to the front.
TEST_F(HttpFrontTest, AConfiguredOriginCanReadWhatItAsked) {
  server_->Stop(absl::ZeroDuration());
  auto access = HttpAccess::Make({.hosts = {"car.example.com"}, .origins = {"https://ui.example.com"}});
  ASSERT_TRUE(access.ok()) << access.status();
  server_ = ServeHttp(tier_.backend(), tier_.metrics(), *std::move(access));
  const std::string origin = "Origin: https://ui.example.com\r\n", json = "Content-Type: application/json\r\n";
  const std::string ask = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n";
  // One connection: a preflight and, behind it, the request.
  RawClient client(port());
  ASSERT_TRUE(client.Send(RequestText("OPTIONS", kChat, "", origin + ask)));
  const RawResponse preflight = client.Receive();
  EXPECT_EQ(preflight.status, 200);
  EXPECT_EQ(preflight.body, "");
  EXPECT_EQ(preflight.headers.at("access-control-allow-origin"), "https://ui.example.com");
  EXPECT_EQ(preflight.headers.at("access-control-allow-headers"), "content-type");
  EXPECT_EQ(preflight.headers.at("access-control-allow-methods"), "GET, POST");
  EXPECT_EQ(preflight.headers.at("vary"), "Origin");
  EXPECT_EQ(preflight.headers.count("x-request-id"), 1u);
  for (const char* stream : {R"("stream":true)", R"("stream":false)"}) {
    ASSERT_TRUE(client.Send(RequestText("POST", kChat, ChatBody(stream), origin + json)));
    const RawResponse response = client.Receive();
    EXPECT_EQ(response.status, 200) << response.body;
    EXPECT_TRUE(response.complete);
    EXPECT_EQ(response.headers.at("access-control-allow-origin"), "https://ui.example.com");
    EXPECT_THAT(response.headers.at("access-control-expose-headers"), HasSubstr("X-Request-Id"));
  }
  // Refusals, too, of the front and of the server.
  const std::pair<std::string, int> refusals[] = {
      {RequestText("POST", kChat, ChatBody(R"("n":0)"), origin + json), 400},
      {RequestText("GET", "/v2/none", "", origin), 404},
      {RequestText("GET", kChat, "", origin), 405},
      {RequestText("POST", kChat, std::string(65 << 10, ' '), origin + json), 413}};
  for (const auto& [request, status] : refusals) {
    RawClient other(port());
    ASSERT_TRUE(other.Send(request));
    const RawResponse response = other.Receive();
    EXPECT_EQ(response.status, status);
    EXPECT_EQ(response.headers.at("access-control-allow-origin"), "https://ui.example.com") << status;
  }
  // Of others, nothing but the refusal.
  for (const std::string method : {"OPTIONS", "POST"}) {
    const RawResponse refused =
        Fetch(port(), method, kChat, method == "POST" ? ChatBody() : "", "Origin: https://evil.com\r\n" + json + ask);
    EXPECT_EQ(refused.status, 403);
    EXPECT_EQ(refused.headers.count("access-control-allow-origin"), 0u);
  }
  RawClient named(port());
  ASSERT_TRUE(named.Send("GET /v1/models HTTP/1.1\r\nHost: car.example.com:443\r\n\r\n"));
  EXPECT_EQ(named.Receive().status, 200);
}

// Proxies and clients learn that the request was taken, and its id, while it waits.
TEST_F(HttpFrontTest, TheHeadOfAStreamComesWithItsAcceptance) {
  std::shared_ptr<AnswerSink> waiting;
  tier_.backend().script = [&](const auto&, SteadyTime, const std::shared_ptr<AnswerSink>& sink) {
    waiting = sink;
    return RequestHandle();
  };
  RawClient client(port());
  ASSERT_TRUE(client.Send(RequestText("POST", kChat, ChatBody(R"("stream":true)"), "X-Request-Id: mine\r\n")));
  ASSERT_TRUE(client.WaitFor("X-Request-Id: mine\r\n"));
  ASSERT_TRUE(client.WaitFor(R"("role":"assistant")"));
  waiting->OnEnd(absl::UnavailableError("shutting down"), {});
  const RawResponse response = client.Receive();
  EXPECT_EQ(response.status, 200);
  EXPECT_TRUE(response.complete);
  const std::vector<Json> events = Events(response.body);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[1]["error"]["message"], "shutting down");
  EXPECT_EQ(events[1]["error"]["request_id"], "mine");
}

TEST_F(HttpFrontTest, AStreamThatWaitsIsKeptAlive) {
  server_->Stop(absl::ZeroDuration());
  server_ = ServeHttp(tier_.backend(), tier_.metrics(), {}, absl::Milliseconds(10));
  std::shared_ptr<AnswerSink> waiting;
  tier_.backend().script = [&](const auto&, SteadyTime, const std::shared_ptr<AnswerSink>& sink) {
    waiting = sink;
    return RequestHandle();
  };
  RawClient client(port());
  ASSERT_TRUE(client.Send(RequestText("POST", kChat, ChatBody(R"("stream":true)"))));
  ASSERT_TRUE(client.WaitFor(": keep-alive\n\n"));
  EXPECT_TRUE(waiting->OnChunk(MakeChunk("fake", "first ", 2)).ok());
  ASSERT_TRUE(client.WaitFor(R"("content":"first ")"));
  EXPECT_TRUE(waiting->OnChunk(MakeChunk("fake", "words", 2)).ok());
  waiting->OnEnd(absl::OkStatus(), {});
  const RawResponse response = client.Receive();
  EXPECT_TRUE(response.complete);
  // Every line is a field of an event or a comment, so clients see what they would have seen without.
  const std::string events = absl::StrReplaceAll(response.body, {{": keep-alive\n\n", ""}});
  EXPECT_LT(events.size(), response.body.size());
  for (const absl::string_view event : absl::StrSplit(events, "\n\n", absl::SkipEmpty())) {
    EXPECT_THAT(std::string(event), ::testing::StartsWith("data: "));
  }
  std::string text;
  for (const Json& event : Events(events)) text += event["choices"][0]["delta"].value("content", "");
  EXPECT_EQ(text, "first words");
}

TEST_F(HttpFrontTest, ChoicesAreRequestsOfTheirOwn) {
  std::vector<v1::GenerateRequest> requests;
  Record(&requests);
  const std::string id(128, 'i');
  EXPECT_EQ(Fetch(port(), "POST", kChat, ChatBody(R"("n":3,"seed":11)"), "X-Request-Id: " + id + "\r\n").status, 200);
  EXPECT_EQ(Fetch(port(), "POST", "/v1/completions", R"({"prompt":"once","n":2,"seed":-1})").status, 200);
  ASSERT_EQ(requests.size(), 5u);
  EXPECT_EQ(requests[0].request_id(), id);
  EXPECT_EQ(requests[1].request_id(), id.substr(0, 126) + "/1");
  EXPECT_EQ(requests[2].request_id(), id.substr(0, 126) + "/2");
  for (int i = 0; i < 3; ++i) EXPECT_EQ(requests[i].sampling().seed(), 11u + i);
  EXPECT_EQ(requests[4].sampling().seed(), 0u) << "after the largest";
  EXPECT_EQ(requests[4].prompt(), "once");
}

// Three choices are asked for; what has begun waits until it is cancelled.
class ChoicesThatWait : public HttpFrontTest {
 protected:
  // The n-th choice (from 0) ends at once with an error; -1: none does.
  void Wait(int n_refused) {
    tier_.backend().script = [this, n_refused](const auto&, SteadyTime, const std::shared_ptr<AnswerSink>& sink) {
      const int n = static_cast<int>(sinks_.size());
      sinks_.push_back(sink);
      if (n == n_refused) {
        sink->OnEnd(absl::ResourceExhaustedError("full"), {});
        return RequestHandle();
      }
      return RequestHandle([this, sink, told = std::make_shared<std::atomic<bool>>(false)] {
        if (told->exchange(true)) return;
        sink->OnEnd(absl::CancelledError("cancelled"), {});
        ++n_cancelled_;
      });
    };
  }
  void ExpectCancelled(int n) {
    for (int i = 0; i < 4000 && n_cancelled_ < n; ++i) absl::SleepFor(absl::Milliseconds(5));
    EXPECT_EQ(n_cancelled_, n);
  }

  std::vector<std::shared_ptr<AnswerSink>> sinks_;
  std::atomic<int> n_cancelled_{0};
};

TEST_F(ChoicesThatWait, OneThatIsRefusedEndsTheOthers) {
  Wait(1);
  for (const char* stream : {R"("n":3,"stream":true)", R"("n":3,"stream":false)"}) {
    sinks_.clear();
    n_cancelled_ = 0;
    const RawResponse response = Fetch(port(), "POST", kChat, ChatBody(stream));
    EXPECT_EQ(response.status, 429) << response.body;
    EXPECT_EQ((*http::ParseJson(response.body))["error"]["message"], "full");
    ExpectCancelled(1);
    EXPECT_EQ(sinks_.size(), 2u) << "the third was not asked for";
  }
}

TEST_F(ChoicesThatWait, OneThatFailsLaterEndsTheOthers) {
  Wait(-1);
  RawClient client(port());
  ASSERT_TRUE(client.Send(RequestText("POST", kChat, ChatBody(R"("n":3,"stream":true)"))));
  ASSERT_TRUE(client.WaitFor(R"("index":2)"));
  EXPECT_TRUE(sinks_[2]->OnChunk(MakeChunk("fake", "words", 1)).ok());
  ASSERT_TRUE(client.WaitFor(R"("content":"words")"));
  sinks_[1]->OnEnd(absl::InternalError("broken"), {});
  const RawResponse response = client.Receive();
  EXPECT_TRUE(response.complete);
  EXPECT_EQ(Events(response.body).back()["error"]["message"], "broken");
  ExpectCancelled(3);
  EXPECT_TRUE(absl::IsCancelled(sinks_[0]->OnChunk(MakeChunk("fake", "late", 1))));
}

TEST_F(ChoicesThatWait, AClientThatLeavesEndsAll) {
  Wait(-1);
  RawClient client(port());
  ASSERT_TRUE(client.Send(RequestText("POST", kChat, ChatBody(R"("n":3,"stream":true)"))));
  ASSERT_TRUE(client.WaitFor(R"("index":2)"));
  client.Close();
  ExpectCancelled(3);
}

TEST_F(HttpFrontTest, AnErrorInTheMiddleOfAStreamIsAnEvent) {
  tier_.backend().script = [](const auto&, SteadyTime, const std::shared_ptr<AnswerSink>& sink) {
    EXPECT_TRUE(sink->OnChunk(MakeChunk("fake", "first words", 2)).ok());
    sink->OnEnd(absl::UnavailableError("shutting down"), {});
    return RequestHandle();
  };
  const RawResponse response = Fetch(port(), "POST", kChat, ChatBody(R"("stream":true)"));
  EXPECT_EQ(response.status, 200);
  EXPECT_TRUE(response.complete);
  const std::vector<Json> events = Events(response.body);
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[1]["choices"][0]["delta"]["content"], "first words");
  EXPECT_EQ(events[2]["error"]["message"], "shutting down");
}

// The backend waits, so only the client's leaving can end the request.
TEST_F(HttpFrontTest, AClientThatLeavesCancelsItsRequest) {
  std::atomic<int> n_waiting{0}, n_cancelled{0};
  tier_.backend().script = [&](const auto&, SteadyTime, const std::shared_ptr<AnswerSink>& sink) {
    EXPECT_TRUE(sink->OnChunk(MakeChunk("fake", "first words", 2)).ok());
    ++n_waiting;
    return RequestHandle([&, sink, told = std::make_shared<std::atomic<bool>>(false)] {
      if (told->exchange(true)) return;
      sink->OnEnd(absl::CancelledError("cancelled"), {});
      ++n_cancelled;
    });
  };
  ClientsAskAndLeave(
      port(), [&](int n) { return n_waiting >= n; }, [&](int n) { return n_cancelled >= n; });
}

TEST(ProvenanceJson, SaysEveryDecisionAndDispositionByItsName) {
  v1::Done done;
  const std::map<v1::DecisionKind, std::string> decisions = {
      {v1::DECISION_KIND_UNSPECIFIED, "none"},    {v1::DECISION_KIND_KEEP, "keep"},
      {v1::DECISION_KIND_HAND_OVER, "hand-over"}, {v1::DECISION_KIND_VERIFY, "verify"},
      {v1::DECISION_KIND_DEFER, "defer"},         {v1::DECISION_KIND_STREAM_UPSTREAM, "stream-upstream"},
      {static_cast<v1::DecisionKind>(99), "none"}};
  for (const auto& [kind, name] : decisions) {
    done.mutable_provenance()->set_decision(kind);
    EXPECT_EQ(ProvenanceToJson(done)["decision"], name);
  }
  EXPECT_FALSE(ProvenanceToJson(done).contains("disposition"));
  done.set_disposition(v1::DISPOSITION_REFUSE);
  EXPECT_EQ(ProvenanceToJson(done)["disposition"], "refuse");
  done.set_disposition(static_cast<v1::Disposition>(99));
  EXPECT_EQ(ProvenanceToJson(done)["disposition"], "unknown")
      << "absent would be leave to act, as it was before there were any";
}

// Whatever a newer tier has ended it for, it is not said to be whole.
TEST_F(HttpFrontTest, AReasonThatIsNotKnownIsNeitherStopNorLength) {
  const std::pair<int, const char*> reasons[] = {
      {0, "stop"}, {1, "stop"}, {2, "length"}, {3, "unknown"}, {-1, "unknown"}};
  for (const auto& [reason, name] : reasons) {
    tier_.backend().script = [reason = reason](const auto&, SteadyTime, const std::shared_ptr<AnswerSink>& sink) {
      EXPECT_TRUE(sink->OnChunk(MakeChunk("fake", "words", 1)).ok());
      v1::Done done;
      done.set_finish_reason(static_cast<v1::FinishReason>(reason));
      sink->OnEnd(absl::OkStatus(), done);
      return RequestHandle();
    };
    const Json answer = *http::ParseJson(Fetch(port(), "POST", kChat, ChatBody()).body);
    EXPECT_EQ(answer["choices"][0]["finish_reason"], name);
    EXPECT_EQ(answer["choices"][0]["message"]["content"], "words");
    const std::vector<Json> events = Events(Fetch(port(), "POST", kChat, ChatBody(R"("stream":true)")).body);
    ASSERT_GE(events.size(), 2u);
    EXPECT_EQ(events.back()["choices"][0]["finish_reason"], name);
  }
}

}  // namespace
}  // namespace updraft::testing
