// Many clients at once against a live cloud: cancellation, slow readers, a full queue, shutdown while streaming.
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include "common/rpc/status.h"
#include "common/status/retry_delay.h"
#include "tests/cloud/service/live_cloud.h"

namespace updraft {
namespace {

using testing::AddTo;
using testing::Answer;
using testing::Ask;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using testing::PromptRequest;

v1::GenerateRequest SeededRequest(uint32_t seed, int max_tokens) {
  std::mt19937 random(seed);
  std::string prompt;
  for (int n = 1 + random() % 40; n > 0; --n) prompt += static_cast<char>('a' + random() % 26);
  v1::GenerateRequest request = PromptRequest(prompt, max_tokens);
  request.mutable_sampling()->set_temperature(seed % 2 == 0 ? 0.0f : 1.0f);
  request.mutable_sampling()->set_seed(seed);
  return request;
}

// Requests with long answers, by trying: random weights end most answers soon. Every cloud of one model answers alike.
std::vector<v1::GenerateRequest> LongRequests(int n_requests, const std::string& model_path, size_t n_tokens = 40) {
  const auto cloud = testing::StartCloud({}, model_path);
  auto stub = v1::Inference::NewStub(testing::ChannelTo(*cloud));
  std::vector<v1::GenerateRequest> requests;
  for (uint32_t seed = 0; seed < 2000 && static_cast<int>(requests.size()) < n_requests; ++seed) {
    v1::GenerateRequest request = SeededRequest(seed, 120);
    request.mutable_sampling()->set_temperature(0.0f);  // greedy answers of random weights often run in circles
    if (Ask(*stub, request).tokens.size() >= n_tokens) requests.push_back(request);
  }
  EXPECT_EQ(static_cast<int>(requests.size()), n_requests) << "too few seeds give " << n_tokens << " tokens";
  return requests;
}

const std::vector<v1::GenerateRequest>& SlowRequests() {
  static const std::vector<v1::GenerateRequest> requests = LongRequests(24, testing::SlowModelPath());
  return requests;
}

// 64 clients on one server whose pool holds far fewer: preemption happens, too.
TEST(CloudLoad, SixtyFourStreamsAThirdCancelledSomeSlow) {
  constexpr int kClients = 64;
  constexpr uint32_t kSeed = 20240611;
  SCOPED_TRACE(::testing::Message() << "seed " << kSeed);
  const auto cloud = testing::StartCloud({"--kv-tokens=1024", "--max-step-tokens=96", "--max-running=24"});
  ASSERT_NE(cloud, nullptr);

  // Alone, one after the other.
  std::vector<Answer> alone;
  {
    auto stub = v1::Inference::NewStub(testing::ChannelTo(*cloud));
    for (int i = 0; i < kClients; ++i) {
      alone.push_back(Ask(*stub, SeededRequest(kSeed + i, 20 + i)));
      ASSERT_TRUE(alone.back().status.ok()) << i << ": " << alone.back().status.error_message();
    }
  }

  std::vector<Answer> together(kClients);
  std::vector<bool> cancelled(kClients);
  std::vector<std::thread> clients;
  std::mt19937 random(kSeed);
  for (int i = 0; i < kClients; ++i) {
    const bool cancel = i % 3 == 0, slow = i % 5 == 1;
    const int cancel_after = static_cast<int>(random() % 12);
    cancelled[i] = cancel;
    clients.emplace_back([&, i, cancel, slow, cancel_after] {
      // A connection each, as devices have.
      grpc::ChannelArguments arguments;
      arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
      auto channel = grpc::CreateCustomChannel(cloud->address(), grpc::InsecureChannelCredentials(), arguments);
      auto stub = v1::Inference::NewStub(channel);
      grpc::ClientContext context;
      SetTimeout(context, absl::Seconds(240));
      Answer& answer = together[i];
      auto reader = stub->Generate(&context, SeededRequest(kSeed + i, 20 + i));
      v1::GenerateResponse response;
      int n_read = 0;
      while (!(cancel && n_read >= cancel_after) && reader->Read(&response)) {
        AddTo(answer, response);
        ++n_read;
        if (slow) absl::SleepFor(absl::Milliseconds(5));
      }
      if (cancel) {
        context.TryCancel();
        while (reader->Read(&response)) {
        }
      }
      answer.status = reader->Finish();
    });
  }
  for (std::thread& client : clients) client.join();

  int n_cancelled = 0;
  for (int i = 0; i < kClients; ++i) {
    SCOPED_TRACE(::testing::Message() << "client " << i);
    if (cancelled[i] && !together[i].status.ok()) {
      ++n_cancelled;
      EXPECT_EQ(together[i].status.error_code(), grpc::StatusCode::CANCELLED);
      ASSERT_LE(together[i].tokens.size(), alone[i].tokens.size());
      EXPECT_TRUE(std::equal(together[i].tokens.begin(), together[i].tokens.end(), alone[i].tokens.begin()));
      continue;
    }
    ASSERT_TRUE(together[i].status.ok()) << together[i].status.error_message();
    EXPECT_THAT(together[i].tokens, ElementsAreArray(alone[i].tokens));
    EXPECT_EQ(together[i].text, alone[i].text);
    EXPECT_EQ(together[i].done.finish_reason(), alone[i].done.finish_reason());
  }
  EXPECT_GT(n_cancelled, 0);
  EXPECT_TRUE(testing::WaitForFreeBlocks(*cloud)) << "leaked blocks";
  const engine::Stats stats = cloud->stats();
  EXPECT_GT(stats.max_running, 8) << "they were not served together";
  EXPECT_LE(stats.max_rows_in_step, 96);
  RecordProperty("preemptions", static_cast<int>(stats.n_preemptions));
  RecordProperty("max_running", stats.max_running);
}

// A buffer of one token cannot take a second one while the first is being written, and tokens that no model works out
// come faster than they are written. Either an answer is complete and right, or it ended with the reason.
TEST(CloudLoad, AWriterThatFallsBehindIsEndedWithTheReason) {
  const auto cloud = testing::StartCloud({"--max-buffered-tokens=1", "--kv-tokens=4096", "--paced-us-per-step=1"});
  ASSERT_NE(cloud, nullptr);
  auto stub = v1::Inference::NewStub(testing::ChannelTo(*cloud));
  const auto roomy = testing::StartCloud({"--paced-us-per-step=1"});
  ASSERT_NE(roomy, nullptr);
  const Answer reference = Ask(*v1::Inference::NewStub(testing::ChannelTo(*roomy)), SeededRequest(4, 100));
  ASSERT_TRUE(reference.status.ok());
  int n_ended = 0;
  for (int i = 0; i < 20; ++i) {
    const Answer answer = Ask(*stub, SeededRequest(4, 100));
    if (answer.status.ok()) {
      EXPECT_THAT(answer.tokens, ElementsAreArray(reference.tokens));
      continue;
    }
    ++n_ended;
    EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
    EXPECT_THAT(answer.status.error_message(), HasSubstr("too slow"));
    EXPECT_TRUE(std::equal(answer.tokens.begin(), answer.tokens.end(), reference.tokens.begin()));
  }
  EXPECT_GT(n_ended, 0);
  EXPECT_TRUE(testing::WaitForFreeBlocks(*cloud)) << "leaked blocks";
}

// A client that takes nothing off the wire: its own request ends, the others do not notice.
TEST(CloudLoad, AReaderThatDoesNotReadIsEndedAlone) {
  const auto cloud = testing::StartCloud({"--max-buffered-tokens=16"});
  ASSERT_NE(cloud, nullptr);
  grpc::ChannelArguments arguments;
  // The smallest window that HTTP/2 flow control can be asked for, and no probing for a larger one.
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  auto stuck_stub = v1::Inference::NewStub(
      grpc::CreateCustomChannel(cloud->address(), grpc::InsecureChannelCredentials(), arguments));
  auto stub = v1::Inference::NewStub(testing::ChannelTo(*cloud));
  v1::GenerateRequest request = LongRequests(1, testing::TinyModelPath()).at(0);
  request.set_include_evidence(true);
  const Answer reference = Ask(*v1::Inference::NewStub(testing::ChannelTo(*testing::StartCloud())), request);
  ASSERT_TRUE(reference.status.ok()) << reference.status.error_message();
  v1::GenerateRequest short_request = request;
  short_request.set_max_tokens(16);  // always fits the buffer

  const int64_t failed_before = cloud->stats().n_failed;
  grpc::ClientContext context;
  SetTimeout(context, absl::Seconds(120));
  auto reader = stuck_stub->Generate(&context, request);
  const absl::Time give_up = absl::Now() + absl::Seconds(60);
  while (cloud->stats().n_failed == failed_before && absl::Now() < give_up) {
    const Answer other = Ask(*stub, short_request);
    ASSERT_TRUE(other.status.ok()) << other.status.error_message();
    EXPECT_THAT(other.tokens, ElementsAreArray(reference.tokens.begin(), reference.tokens.begin() + 16));
  }
  EXPECT_EQ(cloud->stats().n_failed, failed_before + 1) << "the engine still works for a reader that does not read";
  EXPECT_TRUE(testing::WaitForFreeBlocks(*cloud));
  Answer stuck;
  v1::GenerateResponse response;
  while (reader->Read(&response)) AddTo(stuck, response);
  stuck.status = reader->Finish();
  EXPECT_EQ(stuck.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << stuck.status.error_message();
  EXPECT_TRUE(std::equal(stuck.tokens.begin(), stuck.tokens.end(), reference.tokens.begin()));
}

TEST(CloudLoad, AFullQueueRefusesAtOnceWithARetryDelay) {
  const auto& requests = SlowRequests();
  const auto cloud =
      testing::StartCloud({"--max-queued=2", "--max-running=1", "--max-step-tokens=4"}, testing::SlowModelPath());
  ASSERT_NE(cloud, nullptr);
  auto stub = v1::Inference::NewStub(testing::ChannelTo(*cloud));
  std::mutex mu;
  std::map<grpc::StatusCode, int> outcomes;
  bool delays_given = true;
  std::vector<std::thread> clients;
  for (int i = 0; i < 24; ++i) {
    clients.emplace_back([&, i] {
      grpc::ClientContext context;
      SetTimeout(context, absl::Seconds(120));
      auto reader = stub->Generate(&context, requests.at(i));
      v1::GenerateResponse response;
      while (reader->Read(&response)) {
      }
      const grpc::Status status = reader->Finish();
      const std::lock_guard<std::mutex> lock(mu);
      ++outcomes[status.error_code()];
      if (status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED) {
        delays_given &=
            RetryDelayOf(FromGrpcStatus(status, context)).value_or(absl::ZeroDuration()) >= absl::Milliseconds(50);
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_GT(outcomes[grpc::StatusCode::OK], 0);
  EXPECT_GT(outcomes[grpc::StatusCode::RESOURCE_EXHAUSTED], 0);
  EXPECT_EQ(outcomes[grpc::StatusCode::OK] + outcomes[grpc::StatusCode::RESOURCE_EXHAUSTED], 24);
  EXPECT_TRUE(delays_given);
  EXPECT_TRUE(testing::WaitForFreeBlocks(*cloud));
}

// Deadlines that fall while the request is queued or running end it on the server, too, not only at the client.
TEST(CloudLoad, DeadlinesFreeTheServer) {
  const auto& requests = SlowRequests();
  const auto cloud = testing::StartCloud({"--max-running=2", "--max-step-tokens=4"}, testing::SlowModelPath());
  ASSERT_NE(cloud, nullptr);
  auto stub = v1::Inference::NewStub(testing::ChannelTo(*cloud));
  std::atomic<int> n_exceeded = 0, n_ok = 0, n_other = 0;
  std::vector<std::thread> clients;
  for (int i = 0; i < 16; ++i) {
    clients.emplace_back([&, i] {
      const Answer answer = Ask(*stub, requests.at(i), absl::Milliseconds(2 + 3 * i));
      if (answer.status.ok())
        ++n_ok;
      else if (answer.status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED)
        ++n_exceeded;
      else
        ++n_other;
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_GT(n_exceeded, 0);
  EXPECT_EQ(n_other, 0);
  EXPECT_TRUE(testing::WaitForFreeBlocks(*cloud)) << "the server goes on with answers that nobody waits for";
}

TEST(CloudLoad, ShutdownWhileStreamingEndsEveryStream) {
  const auto& requests = SlowRequests();
  for (const absl::Duration grace : {absl::ZeroDuration(), absl::Seconds(60)}) {
    SCOPED_TRACE(absl::FormatDuration(grace));
    const auto cloud = testing::StartCloud({}, testing::SlowModelPath());
    ASSERT_NE(cloud, nullptr);
    auto stub = v1::Inference::NewStub(testing::ChannelTo(*cloud));
    std::atomic<int> n_started = 0, n_ok = 0, n_ended = 0;
    std::vector<std::thread> clients;
    for (int i = 0; i < 8; ++i) {
      clients.emplace_back([&, i] {
        grpc::ClientContext context;
        SetTimeout(context, absl::Seconds(120));
        auto reader = stub->Generate(&context, requests.at(i));
        v1::GenerateResponse response;
        bool first = true;
        while (reader->Read(&response)) {
          if (std::exchange(first, false)) ++n_started;
        }
        if (first) ++n_started;
        const grpc::Status status = reader->Finish();
        if (status.ok())
          ++n_ok;
        else if (status.error_code() == grpc::StatusCode::CANCELLED ||
                 status.error_code() == grpc::StatusCode::UNAVAILABLE)
          ++n_ended;
      });
    }
    while (n_started < 8) absl::SleepFor(absl::Milliseconds(1));
    cloud->Shutdown(grace);
    for (std::thread& client : clients) client.join();
    EXPECT_EQ(n_ok + n_ended, 8);
    if (grace > absl::ZeroDuration()) {
      EXPECT_EQ(n_ok, 8) << "a drain lets answers finish";
    } else {
      EXPECT_GT(n_ended, 0) << "without grace, answers in progress end";
    }
    const engine::Stats stats = cloud->stats();
    EXPECT_EQ(stats.n_free_blocks, stats.n_blocks);
    const Answer refused = Ask(*stub, SeededRequest(1, 4), absl::Seconds(5));
    EXPECT_FALSE(refused.status.ok());
  }
}

}  // namespace
}  // namespace updraft
