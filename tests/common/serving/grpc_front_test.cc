// The stream reactor against a backend whose every step the test decides.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <future>
#include <map>
#include <mutex>

#include "common/rpc/process.h"
#include "common/rpc/status.h"
#include "common/serving/stream_reactor.h"
#include "common/status/retry_delay.h"
#include "common/sync/mutex.h"
#include "tests/common/serving/fake_backend.h"
#include "tests/common/serving/grpc_front_cases.h"

namespace updraft::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

INSTANTIATE_TEST_SUITE_P(Fake, GrpcFrontCases, ::testing::Values(&FakeTier::Make));

struct Heard {
  std::vector<v1::GenerateResponse> responses;
  grpc::Status status;
  absl::Status with_delay;  // the same with the trailer's retry delay
};

Heard Listen(const std::string& address, const v1::GenerateRequest& request,
             absl::Duration timeout = absl::Seconds(60)) {
  auto stub = v1::Inference::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  SetTimeout(context, timeout);
  Heard heard;
  auto reader = stub->Generate(&context, request);
  v1::GenerateResponse response;
  while (reader->Read(&response)) heard.responses.push_back(response);
  heard.status = reader->Finish();
  heard.with_delay = FromGrpcStatus(heard.status, context);
  return heard;
}

// While Submit runs, gRPC has not begun to write: what is pushed meanwhile waits, and what the reactor makes of it does
// not depend on anybody's speed.
class ReactorTest : public ::testing::Test {
 protected:
  // The script decides what happens in Submit.
  Heard Run(FakeBackend::Script script, const StreamLimits& limits = {}) {
    backend_.script = std::move(script);
    GrpcServed served(&backend_, SteadyNow(), limits);
    return Listen(served.address(), ChatRequest("hello"));
  }
  FakeBackend backend_;
};

TEST_F(ReactorTest, WhatComesDuringAWriteIsMergedTiersApart) {
  backend_.load.set_queued_requests(5);
  const Heard heard = Run([](const auto&, SteadyTime, const std::shared_ptr<AnswerSink>& sink) {
    for (int i = 0; i < 10; ++i) EXPECT_TRUE(sink->OnChunk(MakeChunk("edge", "e", 1)).ok());
    for (int i = 0; i < 10; ++i) EXPECT_TRUE(sink->OnChunk(MakeChunk("cloud", "c", 2)).ok());
    for (int i = 0; i < 10; ++i) EXPECT_TRUE(sink->OnChunk(MakeChunk("edge", "E", 1)).ok());
    v1::Done done;
    done.set_finish_reason(v1::FINISH_REASON_STOP);
    done.set_disposition(v1::DISPOSITION_CLARIFY);
    sink->OnEnd(absl::OkStatus(), done);
    return RequestHandle();
  });
  ASSERT_TRUE(heard.status.ok()) << heard.status.error_message();
  std::vector<std::string> texts, tiers;
  std::vector<int> n_tokens;
  for (const auto& response : heard.responses) {
    if (!response.has_chunk()) continue;
    texts.push_back(response.chunk().text());
    tiers.push_back(response.chunk().tier());
    n_tokens.push_back(response.chunk().tokens_size());
  }
  EXPECT_THAT(texts, ElementsAre("e", std::string(9, 'e'), std::string(10, 'c'), std::string(10, 'E')));
  EXPECT_THAT(tiers, ElementsAre("edge", "edge", "cloud", "edge"));
  EXPECT_THAT(n_tokens, ElementsAre(1, 9, 20, 10));
  ASSERT_EQ(heard.responses.size(), 5u);
  EXPECT_TRUE(heard.responses.back().has_done());
  EXPECT_EQ(heard.responses.back().done().disposition(), v1::DISPOSITION_CLARIFY);
  for (size_t i = 0; i < heard.responses.size(); ++i) {
    const bool ends = i == 0 || i == 4;
    EXPECT_EQ(heard.responses[i].has_load(), ends) << i;
    EXPECT_EQ(heard.responses[i].request_id().empty(), i != 0) << i;
    EXPECT_GT(heard.responses[i].server_us(), 0u);
  }
  EXPECT_EQ(heard.responses.front().load().queued_requests(), 5);
}

// In a queue, or while an answer is held: who asked is told at once that the request is there, and then again.
TEST_F(ReactorTest, ARequestThatWaitsSaysSoAtOnceAndThenAgain) {
  backend_.load.set_queued_requests(5);
  std::promise<std::shared_ptr<AnswerSink>> taken_in;
  backend_.script = [&taken_in](const auto&, SteadyTime, const std::shared_ptr<AnswerSink>& sink) {
    taken_in.set_value(sink);
    return RequestHandle();
  };
  GrpcServed served(&backend_, SteadyNow(), {.sign_interval = absl::Milliseconds(20)});
  auto stub = v1::Inference::NewStub(grpc::CreateChannel(served.address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  SetTimeout(context, absl::Seconds(60));
  auto reader = stub->Generate(&context, ChatRequest("hello"));
  uint64_t last_us = 0;
  for (int i = 0; i < 3; ++i) {
    v1::GenerateResponse sign;
    ASSERT_TRUE(reader->Read(&sign)) << "nothing was said of a request that waits";
    EXPECT_EQ(sign.event_case(), v1::GenerateResponse::EVENT_NOT_SET);
    EXPECT_EQ(sign.request_id().empty(), i != 0);
    EXPECT_EQ(sign.load().queued_requests(), 5) << i;
    EXPECT_GE(sign.server_us(), last_us + (i == 0 ? 0 : 20'000)) << i;
    last_us = sign.server_us();
  }
  const std::shared_ptr<AnswerSink> sink = taken_in.get_future().get();
  EXPECT_TRUE(sink->OnChunk(MakeChunk("a", "word", 1)).ok());
  sink->OnEnd(absl::OkStatus(), {});
  std::string text;
  bool done = false;
  for (v1::GenerateResponse response; reader->Read(&response);) {
    text += response.chunk().text();
    done = response.has_done();
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(text, "word");
  EXPECT_TRUE(done) << "the last message is the last";
}

// A caller subtracts server_us from what its own clock says: reading, checking and tokenizing are the server's time.
TEST_F(ReactorTest, TheServersTimeCountsFromTheRequestsArrival) {
  const Heard heard = Run([this](const auto& request, SteadyTime, const std::shared_ptr<AnswerSink>& sink) {
    absl::SleepFor(absl::Milliseconds(30));  // what tokenizing takes
    backend_.Answer(request, *sink);
    return RequestHandle();
  });
  ASSERT_FALSE(heard.responses.empty());
  EXPECT_GE(heard.responses.front().server_us(), 30'000u);
}

TEST_F(ReactorTest, TokensAndBytesThatWaitAreBounded) {
  struct Case {
    StreamLimits limits;
    int fits;  // chunks of 2 tokens and 100 bytes of text
  };
  for (const Case& c : {Case{{.max_buffered_tokens = 7}, 3}, Case{{.max_buffered_bytes = 450}, 4}}) {
    int n_taken = 0;
    const Heard heard = Run(
        [&n_taken](const auto&, SteadyTime, const std::shared_ptr<AnswerSink>& sink) {
          while (n_taken < 100 && sink->OnChunk(MakeChunk("", std::string(100, 'x'), 2)).ok()) ++n_taken;
          const absl::Status refused = sink->OnChunk(MakeChunk("", "", 0));
          EXPECT_FALSE(refused.ok()) << "too slow once, too slow for ever";
          sink->OnEnd(refused, {});
          return RequestHandle();
        },
        c.limits);
    EXPECT_EQ(n_taken, c.fits);
    EXPECT_EQ(heard.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
    EXPECT_THAT(heard.status.error_message(), HasSubstr("read too slowly"));
    EXPECT_LE(heard.responses.size(), 1u) << "only what was being written";
  }
}

// Far more than the bound passes through when the reader takes it.
TEST_F(ReactorTest, AReaderThatTakesIsNeverTooSlow) {
  std::thread writer;
  bool all_taken = true;
  const Heard heard = Run(
      [&](const auto&, SteadyTime, const std::shared_ptr<AnswerSink>& sink) {
        writer = std::thread([&all_taken, sink] {
          for (int i = 0; i < 200; ++i) {
            all_taken = all_taken && sink->OnChunk(MakeChunk(i % 3 == 0 ? "a" : "b", std::string(50, 'x'), 1)).ok();
            absl::SleepFor(absl::Milliseconds(2));
          }
          sink->OnEnd(absl::OkStatus(), {});
        });
        return RequestHandle();
      },
      {.max_buffered_bytes = 4000, .max_buffered_tokens = 60});
  writer.join();
  EXPECT_TRUE(all_taken);
  ASSERT_TRUE(heard.status.ok()) << heard.status.error_message();
  size_t n_bytes = 0;
  for (const auto& response : heard.responses) n_bytes += response.chunk().text().size();
  EXPECT_EQ(n_bytes, 200u * 50u);
}

// Streams that begin and are never read, over a few connections.
class UnreadStreams {
 public:
  UnreadStreams(const std::string& address, int n) {
    for (int i = 0; i < n; ++i) {
      if (i % 50 == 0) {
        grpc::ChannelArguments own;
        own.SetInt("updraft.test.connection", i);  // no two channels share a connection then
        // As behind a link that is not loopback: what nobody reads is not taken in megabytes.
        own.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
        own.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 64 << 10);
        stubs_.push_back(
            v1::Inference::NewStub(grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), own)));
      }
      contexts_.push_back(std::make_unique<grpc::ClientContext>());
      readers_.push_back(stubs_.back()->Generate(contexts_.back().get(), ChatRequest("hello")));
    }
  }
  ~UnreadStreams() {
    for (size_t i = 0; i < readers_.size(); ++i) {
      contexts_[i]->TryCancel();
      readers_[i]->Finish();
    }
  }
  // What reading at last gives.
  grpc::Status Finish(size_t i) {
    v1::GenerateResponse response;
    while (readers_[i]->Read(&response)) continue;
    const grpc::Status status = readers_[i]->Finish();
    readers_.erase(readers_.begin() + static_cast<int64_t>(i));
    contexts_.erase(contexts_.begin() + static_cast<int64_t>(i));
    return status;
  }

 private:
  std::vector<std::unique_ptr<v1::Inference::Stub>> stubs_;
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts_;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>>> readers_;
};

// Answers of half a megabyte, which no flow-control window of a reader that takes nothing holds, and counts those that
// are still held.
class LargeAnswers {
 public:
  RequestHandle operator()(const std::shared_ptr<AnswerSink>& sink) {
    {
      std::lock_guard lock(mu_);
      sinks_.push_back(sink);
    }
    for (int i = 0; i < 8; ++i) {
      if (!sink->OnChunk(MakeChunk(i % 2 == 0 ? "a" : "b", std::string(64 << 10, 'x'), 1)).ok()) break;
    }
    sink->OnEnd(absl::OkStatus(), {});
    return RequestHandle();
  }
  size_t n_asked() const {
    std::lock_guard lock(mu_);
    return sinks_.size();
  }
  size_t n_held() const {
    std::lock_guard lock(mu_);
    return static_cast<size_t>(
        std::count_if(sinks_.begin(), sinks_.end(), [](const auto& sink) { return !sink.expired(); }));
  }

 private:
  mutable std::mutex mu_;
  std::vector<std::weak_ptr<AnswerSink>> sinks_;
};

template <typename Condition>
bool Becomes(Condition condition) {
  for (int i = 0; i < 6000 && !condition(); ++i) absl::SleepFor(absl::Milliseconds(5));
  return condition();
}

// Their answers have ended long ago, and their clients are still there: all that is left is what they hold.
TEST_F(ReactorTest, ReadersThatStopForGoodHoldNothingForLong) {
  constexpr size_t kReaders = 500;
  LargeAnswers answers;
  backend_.script = [&answers](const auto&, SteadyTime, const auto& sink) { return answers(sink); };
  StreamLimits limits;
  limits.write_timeout = absl::Milliseconds(500);
  GrpcServed served(&backend_, SteadyNow(), limits);
  size_t resident = 0;
  for (int wave = 1; wave <= 3; ++wave) {
    UnreadStreams streams(served.address(), static_cast<int>(kReaders));
    ASSERT_TRUE(Becomes([&] { return answers.n_asked() == wave * kReaders; })) << answers.n_asked();
    EXPECT_TRUE(Becomes([&] { return answers.n_held() == 0; })) << answers.n_held() << " are held for ever";
    EXPECT_FALSE(streams.Finish(0).ok());
    const size_t now = ResidentBytes();
    std::printf("%zu readers that stopped: %.1f MiB resident, %+.1f\n", wave * kReaders,
                static_cast<double>(now) / (1 << 20),
                (static_cast<double>(now) - static_cast<double>(resident)) / (1 << 20));
    resident = now;
  }
  backend_.script = nullptr;
  EXPECT_TRUE(InferenceClient(served.address()).Generate(ChatRequest("hello"), absl::Seconds(60)).ok());
}

TEST_F(ReactorTest, NoMoreStreamsThanMay) {
  LargeAnswers answers;
  backend_.script = [&answers](const auto&, SteadyTime, const auto& sink) { return answers(sink); };
  StreamLimits limits;
  limits.max_streams = 3;
  limits.write_timeout = absl::Seconds(2);
  GrpcServed served(&backend_, SteadyNow(), limits);
  UnreadStreams streams(served.address(), 3);
  ASSERT_TRUE(Becomes([&] { return answers.n_asked() == 3; }));
  const Heard heard = Listen(served.address(), ChatRequest("hello"));
  EXPECT_EQ(heard.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(heard.status.error_message(), HasSubstr("--max-streams"));
  EXPECT_EQ(RetryDelayOf(heard.with_delay), absl::Seconds(1));
  EXPECT_EQ(answers.n_asked(), 3u) << "the backend sees nothing of it";
  ASSERT_TRUE(Becomes([&] { return answers.n_held() == 0; }));
  EXPECT_TRUE(Becomes([&] { return Listen(served.address(), ChatRequest("hello")).status.ok(); }))
      << "places come free";
}

// A request of n_bytes and more, most of which nobody reads.
v1::GenerateRequest LargeRequest(size_t n_bytes, const std::string& id) {
  v1::GenerateRequest request = ChatRequest("hello");
  request.set_request_id(id);
  v1::Sampling* sampling = request.mutable_sampling();
  sampling->GetReflection()->MutableUnknownFields(sampling)->AddLengthDelimited(5000, std::string(n_bytes, 'x'));
  return request;
}

// gRPC has two threads or so for the callbacks of all streams.
TEST_F(ReactorTest, LargeRequestsHoldUpNeitherSmallOnesNorStreams) {
  std::promise<void> go_on;
  std::shared_future<void> told = go_on.get_future().share();
  std::mutex mu;
  std::vector<std::string> asked;
  backend_.script = [&](const v1::GenerateRequest& request, SteadyTime, const std::shared_ptr<AnswerSink>& sink) {
    {
      std::lock_guard lock(mu);
      asked.push_back(request.request_id());
    }
    if (request.request_id().starts_with("large")) told.wait();
    for (int i = 0; i < 100; ++i) EXPECT_TRUE(sink->OnChunk(MakeChunk("a", "x", 1)).ok());
    sink->OnEnd(absl::OkStatus(), {});
    return RequestHandle();
  };
  const auto n_asked = [&] {
    std::lock_guard lock(mu);
    return asked.size();
  };
  StreamLimits limits;
  limits.sign_interval = absl::Milliseconds(20);
  GrpcServed served(&backend_, SteadyNow(), limits);
  std::vector<std::future<Heard>> large;
  for (int i = 0; i < 8; ++i) {
    large.push_back(std::async(std::launch::async, [&served, i] {
      return Listen(served.address(), LargeRequest(100 << 10, absl::StrCat("large", i)));
    }));
  }
  ASSERT_TRUE(Becomes([&] { return n_asked() == 1; }));
  for (int i = 0; i < 8; ++i) {
    const bool on_lane = i % 2 == 0;
    const auto request = LargeRequest(on_lane ? 32 << 10 : 10, absl::StrCat("small", i));
    const Heard heard = Listen(served.address(), request, absl::Seconds(20));
    ASSERT_TRUE(heard.status.ok()) << i << " " << heard.status.error_message();
  }
  EXPECT_EQ(n_asked(), 9u) << "large ones wait for one another";
  // Whoever waits hears that it is there, and is passed over when it leaves.
  const Heard left = Listen(served.address(), LargeRequest(100 << 10, "left"), absl::Milliseconds(500));
  EXPECT_EQ(left.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  ASSERT_GE(left.responses.size(), 1u);
  EXPECT_EQ(left.responses[0].request_id(), "left");
  EXPECT_TRUE(left.responses[0].has_load());
  absl::SleepFor(absl::Milliseconds(500));  // the server hears of it a moment later than its client
  go_on.set_value();
  for (auto& heard : large) EXPECT_TRUE(heard.get().status.ok());
  std::lock_guard lock(mu);
  EXPECT_EQ(asked.size(), 16u);
  EXPECT_EQ(std::count(asked.begin(), asked.end(), "left"), 0);
}

TEST_F(ReactorTest, WhatWasWrittenBeforeAnErrorArrivesBeforeIt) {
  const Heard heard = Run([](const auto&, SteadyTime, const std::shared_ptr<AnswerSink>& sink) {
    EXPECT_TRUE(sink->OnChunk(MakeChunk("a", "one ", 1)).ok());
    EXPECT_TRUE(sink->OnChunk(MakeChunk("a", "two", 1)).ok());
    sink->OnEnd(WithRetryDelay(absl::UnavailableError("shutting down"), absl::Milliseconds(1234)), {});
    return RequestHandle();
  });
  std::string text;
  for (const auto& response : heard.responses) text += response.chunk().text();
  EXPECT_EQ(text, "one two");
  EXPECT_EQ(heard.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(heard.status.error_message(), "shutting down");
  EXPECT_EQ(RetryDelayOf(heard.with_delay), absl::Milliseconds(1234));
}

TEST_F(ReactorTest, ACallThatIsGoneBeforeThereIsAHandleIsCancelledWithIt) {
  int n_cancelled = 0;
  std::thread::id submitting = std::this_thread::get_id();
  const Heard heard = Run([&](const auto&, SteadyTime, const std::shared_ptr<AnswerSink>& sink) {
    submitting = std::this_thread::get_id();
    static_cast<GenerateReactor*>(sink.get())->OnCancel();
    EXPECT_FALSE(sink->OnChunk(MakeChunk("a", "x", 1)).ok());
    EXPECT_EQ(n_cancelled, 0);
    return RequestHandle([&, sink] {
      EXPECT_EQ(std::this_thread::get_id(), submitting);
      if (++n_cancelled == 1) sink->OnEnd(absl::CancelledError("cancelled"), {});
    });
  });
  EXPECT_EQ(n_cancelled, 1);
  EXPECT_EQ(heard.status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(heard.responses.empty());
}

// A caller that leaves: the backend is told, once or more, and the answer that it ends then is let go of with its
// handle, although the handle holds the sink and the sink the handle.
TEST_F(ReactorTest, ACallerThatLeavesCancelsAndNothingIsKept) {
  struct Shared {
    std::mutex mu;
    std::shared_ptr<AnswerSink> sink;
    std::weak_ptr<AnswerSink> watched;
    std::atomic<int> n_cancelled{0};
  };
  auto shared = std::make_shared<Shared>();
  backend_.script = [shared](const auto&, SteadyTime, const std::shared_ptr<AnswerSink>& sink) {
    {
      std::lock_guard lock(shared->mu);
      shared->sink = sink;
      shared->watched = sink;
    }
    EXPECT_TRUE(sink->OnChunk(MakeChunk("a", "x", 1)).ok());
    return RequestHandle([shared, held = sink] {
      ++shared->n_cancelled;
      std::shared_ptr<AnswerSink> last;
      {
        std::lock_guard lock(shared->mu);
        last = std::move(shared->sink);
      }
      if (last != nullptr) last->OnEnd(absl::CancelledError("cancelled"), {});
    });
  };
  GrpcServed served(&backend_);
  auto answer =
      InferenceClient(served.address()).Generate(ChatRequest("hello"), absl::Seconds(60), [](const v1::Chunk&) {
        return false;
      });
  EXPECT_TRUE(absl::IsCancelled(answer.status())) << answer.status();
  const auto kept = [&shared] {
    std::lock_guard lock(shared->mu);
    return !shared->watched.expired();
  };
  for (int i = 0; i < 4000 && (shared->n_cancelled == 0 || kept()); ++i) absl::SleepFor(absl::Milliseconds(5));
  EXPECT_GE(shared->n_cancelled, 1);
  EXPECT_FALSE(kept()) << "the reactor outlives its call";
}

TEST_F(ReactorTest, AnAnswerThatEndsInSubmitKeepsNothingEither) {
  std::weak_ptr<AnswerSink> watched;
  Run([&](const v1::GenerateRequest& request, SteadyTime, const std::shared_ptr<AnswerSink>& sink) {
    watched = sink;
    backend_.Answer(request, *sink);
    return RequestHandle([sink] {});
  });
  for (int i = 0; i < 4000 && !watched.expired(); ++i) absl::SleepFor(absl::Milliseconds(5));
  EXPECT_TRUE(watched.expired());
}

TEST_F(ReactorTest, TheCallersDeadlineReachesTheBackend) {
  Mutex mu;  // gRPC's threads write, this one reads
  std::vector<absl::Duration> left;
  std::vector<std::string> ids;
  backend_.script = [&](const v1::GenerateRequest& request, SteadyTime deadline,
                        const std::shared_ptr<AnswerSink>& sink) {
    {
      MutexLock lock(mu);
      left.push_back(deadline - SteadyNow());
      ids.push_back(request.request_id());
    }
    backend_.Answer(request, *sink);
    return RequestHandle();
  };
  GrpcServed served(&backend_);
  v1::GenerateRequest request = ChatRequest("hello");
  request.set_request_id("mine");
  EXPECT_EQ(Listen(served.address(), request, absl::Seconds(100)).responses.front().request_id(), "mine");
  EXPECT_EQ(Listen(served.address(), ChatRequest("hello"), absl::InfiniteDuration()).status.error_code(),
            grpc::StatusCode::OK);
  MutexLock lock(mu);
  ASSERT_EQ(left.size(), 2u);
  EXPECT_GT(left[0], absl::Seconds(60));
  EXPECT_LE(left[0], absl::Seconds(101));  // gRPC rounds what is left up on the wire
  EXPECT_EQ(left[1], absl::InfiniteDuration());
  EXPECT_EQ(ids[0], "mine");
  EXPECT_EQ(ids[1].size(), 32u) << "a request has an id before a backend sees it";
}

}  // namespace
}  // namespace updraft::testing
