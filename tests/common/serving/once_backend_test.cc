// A request id is answered once, whoever asks and when.
#include "common/serving/once_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/http/openai.h"
#include "common/serving/fronts.h"
#include "tests/common/http/raw_client.h"
#include "tests/common/serving/collecting_sink.h"
#include "tests/common/serving/fake_backend.h"

namespace updraft::testing {
namespace {

using ::testing::HasSubstr;

v1::GenerateRequest Asked(const std::string& id, const std::string& text = "hello there") {
  v1::GenerateRequest request = ChatRequest(text);
  request.set_request_id(id);
  return request;
}

class OnceBackendTest : public ::testing::Test {
 protected:
  // What reaches the backend waits there, and ends when it is cancelled.
  struct Running {
    v1::GenerateRequest request;
    std::shared_ptr<AnswerSink> sink;
    std::shared_ptr<std::atomic<int>> n_cancelled = std::make_shared<std::atomic<int>>(0);
  };

  void SetUp() override {
    backend_.script = [this](const v1::GenerateRequest& request, SteadyTime, const std::shared_ptr<AnswerSink>& sink) {
      Running running{.request = request, .sink = sink};
      running_.push_back(running);
      return RequestHandle([sink, n_cancelled = running.n_cancelled] {
        if (++*n_cancelled == 1) sink->OnEnd(absl::CancelledError("cancelled"), {});
      });
    };
    Guard({});
  }
  // A backend ends whatever it took; until then the two hold each other.
  void EndAll() {
    for (const Running& running : running_) running.sink->OnEnd(absl::CancelledError("the backend has gone"), {});
    running_.clear();
  }
  void TearDown() override { EndAll(); }
  void Guard(OnceOptions options) {
    options.clock = [this] { return now_; };
    once_ = std::make_unique<OnceBackend>(&backend_, &metrics_, std::move(options));
  }
  std::shared_ptr<CollectingSink> Ask(const v1::GenerateRequest& request, RequestHandle* handle = nullptr) {
    auto sink = std::make_shared<CollectingSink>();
    const RequestHandle made = once_->Submit(request, SteadyTime::InfiniteFuture(), sink);
    if (handle != nullptr) *handle = made;
    return sink;
  }
  static bool Ended(CollectingSink& sink) { return sink.Wait(absl::ZeroDuration()); }
  static v1::Done MakeDone() {
    v1::Done done;
    done.mutable_usage()->set_completion_tokens(4);
    done.mutable_provenance()->set_reason("because");
    return done;
  }

  Metrics metrics_{"fake", kFakeModelName};
  FakeBackend backend_;
  std::vector<Running> running_;
  SteadyTime now_ = SteadyNow();
  std::unique_ptr<OnceBackend> once_;
};

TEST_F(OnceBackendTest, ARepetitionAttachesWhileItRuns) {
  auto first = Ask(Asked("a"));
  ASSERT_TRUE(running_[0].sink->OnChunk(MakeChunk("edge", "one ", 1)).ok());
  ASSERT_TRUE(running_[0].sink->OnChunk(MakeChunk("edge", "two ", 2)).ok());
  ASSERT_TRUE(running_[0].sink->OnChunk(MakeChunk("cloud", "three ", 1)).ok());
  auto second = Ask(Asked("a"));
  EXPECT_EQ(running_.size(), 1u) << "it is not asked twice";
  EXPECT_EQ(second->text(), "one two three ") << "at once";
  ASSERT_EQ(second->chunks().size(), 2u) << "as their writers said it";
  EXPECT_EQ(second->chunks()[0].tier(), "edge");
  EXPECT_EQ(second->chunks()[1].tier(), "cloud");
  ASSERT_TRUE(running_[0].sink->OnChunk(MakeChunk("cloud", "four", 1)).ok());
  running_[0].sink->OnEnd(absl::OkStatus(), MakeDone());
  for (const auto& sink : {first, second}) {
    ASSERT_TRUE(Ended(*sink));
    EXPECT_EQ(sink->text(), "one two three four");
    EXPECT_EQ(sink->tokens(), (std::vector<int32_t>{0, 0, 1, 0, 0}));
    EXPECT_EQ(sink->provenance().reason(), "because");
  }
}

TEST_F(OnceBackendTest, AnAnswerIsGivenAgainWithinTheGrace) {
  Guard({.grace = absl::Seconds(10)});
  Ask(Asked("a"));
  ASSERT_TRUE(running_[0].sink->OnChunk(MakeChunk("fake", "words", 2)).ok());
  now_ = now_ + absl::Seconds(100);  // it is counted from the end
  running_[0].sink->OnEnd(absl::OkStatus(), MakeDone());
  now_ = now_ + absl::Seconds(9.9);
  auto again = Ask(Asked("a"));
  ASSERT_TRUE(Ended(*again));
  EXPECT_TRUE(again->status().ok());
  EXPECT_EQ(again->text(), "words");
  EXPECT_EQ(again->done().usage().completion_tokens(), 4);
  EXPECT_EQ(running_.size(), 1u);
  now_ = now_ + absl::Seconds(0.2);
  Ask(Asked("a"));
  EXPECT_EQ(running_.size(), 2u);
  Ask(Asked("a", "another body"));
  EXPECT_EQ(running_.size(), 2u) << "of the one that runs now";
}

TEST_F(OnceBackendTest, AnotherBodyIsRefusedWhileItRunsAndAfterwards) {
  auto first = Ask(Asked("a"));
  v1::GenerateRequest hotter = Asked("a");
  hotter.mutable_sampling()->set_temperature(1);
  for (const v1::GenerateRequest& other : {Asked("a", "another"), hotter}) {
    for (const bool ended : {false, true}) {
      if (ended && !Ended(*first)) running_[0].sink->OnEnd(absl::OkStatus(), {});
      auto refused = Ask(other);
      ASSERT_TRUE(Ended(*refused));
      EXPECT_TRUE(absl::IsInvalidArgument(refused->status()));
      EXPECT_EQ(http::openai::HttpStatusOf(refused->status()), 422);
      EXPECT_THAT(std::string(refused->status().message()), HasSubstr("request_id"));
    }
  }
  EXPECT_EQ(running_.size(), 1u);
  EXPECT_THAT(metrics_.Render(), HasSubstr(R"(updraft_refused_total{tier="fake",front="once",status="422"} 4)"));
}

// What one tenant calls a request is nothing to another: neither refused for it nor told of it.
TEST_F(OnceBackendTest, TenantsHaveIdsOfTheirOwn) {
  v1::GenerateRequest request = Asked("1");
  request.set_tenant("ann");
  Ask(request);
  request.set_tenant("bob");
  request.set_max_tokens(3);
  auto other = Ask(request);
  ASSERT_EQ(running_.size(), 2u);
  EXPECT_FALSE(Ended(*other));
  EXPECT_EQ(running_[1].request.request_id(), "1");
  request.set_max_tokens(4);
  auto refused = Ask(request);
  EXPECT_TRUE(Ended(*refused)) << "its own id with another body";
  EXPECT_EQ(running_.size(), 2u);
}

TEST_F(OnceBackendTest, AnErrorIsNotRepeated) {
  auto first = Ask(Asked("a")), attached = Ask(Asked("a"));
  running_[0].sink->OnEnd(absl::UnavailableError("full"), {});
  for (const auto& sink : {first, attached}) {
    ASSERT_TRUE(Ended(*sink));
    EXPECT_TRUE(absl::IsUnavailable(sink->status()));
  }
  EXPECT_EQ(once_->n_bytes(), 0u);
  Ask(Asked("a", "another body"));
  EXPECT_EQ(running_.size(), 2u) << "asking again is asking anew";
}

TEST_F(OnceBackendTest, ItIsCancelledWhenTheLastHasLeft) {
  RequestHandle first_handle, second_handle;
  auto first = Ask(Asked("a"), &first_handle), second = Ask(Asked("a"), &second_handle);
  first_handle.Cancel();
  ASSERT_TRUE(Ended(*first));
  EXPECT_TRUE(absl::IsCancelled(first->status()));
  EXPECT_EQ(*running_[0].n_cancelled, 0) << "somebody still waits";
  ASSERT_TRUE(running_[0].sink->OnChunk(MakeChunk("fake", "words", 1)).ok());
  EXPECT_EQ(second->text(), "words");
  EXPECT_EQ(first->text(), "");
  first_handle.Cancel();
  EXPECT_EQ(*running_[0].n_cancelled, 0);
  second_handle.Cancel();
  EXPECT_EQ(*running_[0].n_cancelled, 1);
  ASSERT_TRUE(Ended(*second));
  EXPECT_EQ(once_->n_bytes(), 0u);
  Ask(Asked("a", "another body"));
  EXPECT_EQ(running_.size(), 2u) << "the id is free";
}

// A backend may be long in ending what it was told to cancel.
TEST_F(OnceBackendTest, NobodyAttachesToWhatIsBeingCancelled) {
  std::vector<std::shared_ptr<AnswerSink>> sinks;
  backend_.script = [&](const auto&, SteadyTime, const std::shared_ptr<AnswerSink>& sink) {
    sinks.push_back(sink);
    return RequestHandle();
  };
  RequestHandle handle;
  auto first = Ask(Asked("a"), &handle);
  handle.Cancel();
  auto second = Ask(Asked("a"));
  ASSERT_EQ(sinks.size(), 2u);
  sinks[0]->OnEnd(absl::CancelledError("cancelled"), {});
  EXPECT_TRUE(Ended(*first));
  EXPECT_FALSE(Ended(*second));
  auto third = Ask(Asked("a"));
  EXPECT_EQ(sinks.size(), 2u);
  sinks[1]->OnEnd(absl::OkStatus(), {});
  EXPECT_TRUE(Ended(*second));
  EXPECT_TRUE(Ended(*third));
}

TEST_F(OnceBackendTest, ASlowReaderLosesItsOwnAnswer) {
  auto first = Ask(Asked("a")), slow = std::make_shared<CollectingSink>();
  slow->set_accepts(0, absl::ResourceExhaustedError("read too slowly"));
  once_->Submit(Asked("a"), SteadyTime::InfiniteFuture(), slow);
  EXPECT_TRUE(running_[0].sink->OnChunk(MakeChunk("fake", "words", 1)).ok());
  ASSERT_TRUE(Ended(*slow));
  EXPECT_TRUE(absl::IsResourceExhausted(slow->status()));
  EXPECT_FALSE(Ended(*first));
  // One that takes not even what was said already.
  auto slower = std::make_shared<CollectingSink>();
  slower->set_accepts(0, absl::ResourceExhaustedError("read too slowly"));
  once_->Submit(Asked("a"), SteadyTime::InfiniteFuture(), slower);
  ASSERT_TRUE(Ended(*slower));
  EXPECT_TRUE(absl::IsResourceExhausted(slower->status()));
  // The last one's is the request's.
  first->set_accepts(0, absl::ResourceExhaustedError("read too slowly"));
  EXPECT_TRUE(absl::IsResourceExhausted(running_[0].sink->OnChunk(MakeChunk("fake", "words", 1))));
}

TEST_F(OnceBackendTest, TheOldestAreForgottenWhereRoomIsShort) {
  Guard({.max_bytes = 20000});
  const std::string text(4000, 'x');
  for (const char* id : {"a", "b", "c", "d", "e", "f"}) {
    Ask(Asked(id));
    ASSERT_TRUE(running_.back().sink->OnChunk(MakeChunk("fake", text, 1)).ok());
    running_.back().sink->OnEnd(absl::OkStatus(), {});
    EXPECT_LE(once_->n_bytes(), 20000u);
  }
  EXPECT_EQ(Ask(Asked("f"))->text(), text);
  EXPECT_EQ(Ask(Asked("d"))->text(), text);
  EXPECT_EQ(running_.size(), 6u);
  Ask(Asked("a"));
  EXPECT_EQ(running_.size(), 7u) << "forgotten, so answered anew";
}

TEST_F(OnceBackendTest, WhatIsTooLongToBeKeptIsAnsweredAllTheSame) {
  Guard({.max_bytes = 10000});
  auto first = Ask(Asked("a"));
  size_t n_said = 0;
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(running_[0].sink->OnChunk(MakeChunk("fake", std::string(2000, 'x'), 1)).ok());
    n_said += 2000;
    EXPECT_LE(once_->n_bytes(), 10000u);
  }
  EXPECT_EQ(first->text().size(), n_said);
  auto again = Ask(Asked("a"));
  ASSERT_TRUE(Ended(*again));
  EXPECT_TRUE(absl::IsAlreadyExists(again->status())) << "what was said first is not there any more";
  running_[0].sink->OnEnd(absl::OkStatus(), {});
  EXPECT_TRUE(first->status().ok());
  EXPECT_EQ(once_->n_bytes(), 0u);
  Ask(Asked("a"));
  EXPECT_EQ(running_.size(), 2u);
  // As many as run take all of it: the next are answered, too.
  EndAll();
  Guard({.max_bytes = 10000});
  for (int i = 0; i < 20; ++i) Ask(Asked(std::to_string(i)));
  EXPECT_EQ(running_.size(), 20u);
  EXPECT_LE(once_->n_bytes(), 10000u);
  for (const Running& running : running_) running.sink->OnEnd(absl::OkStatus(), {});
}

TEST_F(OnceBackendTest, WithoutAnIdOrFromAnotherTierOrUnguardedEachIsAsked) {
  v1::GenerateRequest hopped = Asked("a");
  hopped.set_hops(1);
  for (int i = 0; i < 2; ++i) {
    Ask(Asked(""));
    Ask(hopped);
  }
  EXPECT_EQ(running_.size(), 4u);
  Guard({.grace = absl::ZeroDuration()});
  for (int i = 0; i < 2; ++i) Ask(Asked("a"));
  EXPECT_EQ(running_.size(), 6u);
}

// An answer may run longer than what stands before its backend.
TEST_F(OnceBackendTest, AnAnswerMayOutliveIt) {
  RequestHandle handle;
  auto sink = Ask(Asked("a"), &handle);
  once_.reset();
  ASSERT_TRUE(running_[0].sink->OnChunk(MakeChunk("fake", "words", 1)).ok());
  handle.Cancel();
  ASSERT_TRUE(Ended(*sink));
}

// Repetitions from many threads while answers come, end and are left: everybody hears a whole answer or why not.
TEST_F(OnceBackendTest, ManyAtOnce) {
  Guard({.max_bytes = 64 << 10});
  std::atomic<int> n_asked{0};
  backend_.script = [&](const v1::GenerateRequest& request, SteadyTime, const std::shared_ptr<AnswerSink>& sink) {
    ++n_asked;
    auto cancelled = std::make_shared<std::atomic<bool>>(false);
    std::thread([sink, cancelled, request] {
      for (int i = 0; i < 20 && !*cancelled; ++i) {
        if (const absl::Status taken = sink->OnChunk(MakeChunk("fake", request.request_id(), 1)); !taken.ok()) {
          return sink->OnEnd(taken, {});
        }
        std::this_thread::yield();
      }
      sink->OnEnd(*cancelled ? absl::CancelledError("cancelled") : absl::OkStatus(), {});
    }).detach();
    return RequestHandle([cancelled] { *cancelled = true; });
  };
  std::atomic<int> n_whole{0}, n_cancelled{0}, n_wrong{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < 8; ++c) {
    clients.emplace_back([&, c] {
      for (int i = 0; i < 100; ++i) {
        const std::string id = std::to_string(i % 25);
        RequestHandle handle;
        auto sink = Ask(Asked(id), &handle);
        if ((c + i) % 3 == 0) handle.Cancel();
        ASSERT_TRUE(sink->Wait());
        std::string whole;
        for (int j = 0; j < 20; ++j) whole += id;
        if (sink->status().ok() && sink->text() == whole) {
          ++n_whole;
        } else if (absl::IsCancelled(sink->status()) && (c + i) % 3 == 0) {
          ++n_cancelled;
        } else {
          ++n_wrong;
        }
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(n_wrong, 0);
  EXPECT_EQ(n_whole + n_cancelled, 800);
  EXPECT_LT(n_asked, 800) << "nothing was repeated";
}

// Over real sockets: whatever the front.
TEST_F(OnceBackendTest, FrontsAnswerAnIdOnce) {
  std::atomic<int> n_asked{0};
  FakeBackend backend(&metrics_);
  backend.script = [&](const v1::GenerateRequest& request, SteadyTime, const std::shared_ptr<AnswerSink>& sink) {
    ++n_asked;
    backend.Answer(request, *sink);
    return RequestHandle();
  };
  auto fronts =
      Fronts::Start(&backend, &metrics_, {.listen = "127.0.0.1:0", .http_listen = "127.0.0.1:0", .service = {}});
  ASSERT_TRUE(fronts.ok()) << fronts.status();
  const auto post = [&](const std::string& rest) {
    return http::testing::Fetch(
        (*fronts)->http_port(), "POST", "/v1/chat/completions",
        R"({"messages":[{"role":"user","content":"hello there"}],"temperature":1,"max_tokens":4)" + rest + "}",
        "X-Request-Id: mine\r\n");
  };
  const auto first = post("");
  EXPECT_EQ(first.status, 200) << first.body;
  const auto second = post("");
  EXPECT_EQ(http::ParseJson(second.body)->at("choices"), http::ParseJson(first.body)->at("choices"));
  EXPECT_THAT(post(R"(,"stream":true)").body, HasSubstr("w3")) << "how it is given is not what was asked";
  EXPECT_EQ(n_asked, 1);
  const auto other = post(R"(,"seed":1)");
  EXPECT_EQ(other.status, 422);
  EXPECT_EQ(http::ParseJson(other.body)->at("error")["param"], "request_id");
  EXPECT_EQ(n_asked, 1);
}

}  // namespace
}  // namespace updraft::testing
