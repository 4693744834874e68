// The stream reactor against a backend whose every step the test decides.
#include <functional>
#include <map>
#include <mutex>

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
