// What a request finds of an earlier one that began alike: the same answer for fewer rows, and nothing of another
// tenant's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/http/json.h"
#include "tests/cloud/service/live_cloud.h"
#include "tests/common/http/raw_client.h"

namespace updraft {
namespace {

using testing::Answer;
using testing::Ask;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using testing::PromptRequest;
using testing::StartCloud;

std::string Shared() {
  std::string text;
  while (text.size() < 160) text += "the road goes on and on ";
  return text;
}

v1::GenerateRequest Of(const std::string& tail, const std::string& tenant = "") {
  v1::GenerateRequest request = PromptRequest(Shared() + tail, 12);
  request.set_include_evidence(true);
  request.set_tenant(tenant);
  return request;
}

class PrefixCacheTest : public ::testing::Test {
 protected:
  void SetUp() override {
    cloud_ = StartCloud({"--kv-tokens=2048"});
    ASSERT_NE(cloud_, nullptr);
    stub_ = v1::Inference::NewStub(testing::ChannelTo(*cloud_));
  }
  std::unique_ptr<CloudServer> cloud_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

TEST_F(PrefixCacheTest, ASharedBeginningIsReadOnce) {
  const auto plain = StartCloud({"--kv-tokens=2048", "--prefix-cache=off"});
  ASSERT_NE(plain, nullptr);
  auto plain_stub = v1::Inference::NewStub(testing::ChannelTo(*plain));
  for (const char* tail : {"home", "away", "home", "and then"}) {
    const bool first = cloud_->stats().n_submitted == 0;
    const Answer truth = Ask(*plain_stub, Of(tail)), answer = Ask(*stub_, Of(tail));
    ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
    EXPECT_THAT(answer.tokens, ElementsAreArray(truth.tokens)) << tail;
    EXPECT_EQ(answer.text, truth.text);
    ASSERT_EQ(answer.evidence.size(), truth.evidence.size());
    for (size_t i = 0; i < answer.evidence.size(); ++i) {
      EXPECT_EQ(answer.evidence[i].logprob(), truth.evidence[i].logprob()) << "to the bit, " << i;
    }
    EXPECT_EQ(truth.done.usage().cached_tokens(), 0);
    const v1::Usage& usage = answer.done.usage();
    EXPECT_EQ(usage.prompt_tokens(), truth.done.usage().prompt_tokens()) << "what is cached counts as prompt, too";
    if (first) {
      EXPECT_EQ(usage.cached_tokens(), 0);
    } else {
      EXPECT_GE(usage.cached_tokens(), usage.prompt_tokens() / 2) << tail;
      EXPECT_LT(usage.cached_tokens(), usage.prompt_tokens()) << "the last token chooses, so it runs";
    }
  }
  EXPECT_LT(cloud_->stats().n_rows, plain->stats().n_rows * 6 / 10);
  EXPECT_TRUE(testing::WaitForFreeBlocks(*cloud_)) << "cached blocks are there for whoever needs them";
}

TEST_F(PrefixCacheTest, AnotherTenantFindsNothing) {
  EXPECT_EQ(Ask(*stub_, Of("home", "ann")).done.usage().cached_tokens(), 0);
  EXPECT_EQ(Ask(*stub_, Of("home", "bob")).done.usage().cached_tokens(), 0);
  EXPECT_EQ(Ask(*stub_, Of("home")).done.usage().cached_tokens(), 0);
  EXPECT_GT(Ask(*stub_, Of("away", "ann")).done.usage().cached_tokens(), 0);
  EXPECT_GT(Ask(*stub_, Of("away", "bob")).done.usage().cached_tokens(), 0);
}

TEST_F(PrefixCacheTest, MetricsTellHowMuchWasFound) {
  const int n_first = Ask(*stub_, Of("home")).done.usage().prompt_tokens();
  const v1::Usage second = Ask(*stub_, Of("home")).done.usage();
  ASSERT_TRUE(testing::WaitForFreeBlocks(*cloud_));
  Metrics& metrics = cloud_->metrics();
  cloud_->backend().RefreshMetrics(&metrics);
  const std::string text = metrics.Render();
  EXPECT_THAT(text, HasSubstr(absl::StrCat("updraft_engine_started_tokens_total{tier=\"cloud\"} ",
                                           n_first + second.prompt_tokens(), "\n")));
  EXPECT_THAT(text, HasSubstr(absl::StrCat("updraft_engine_cached_tokens_total{tier=\"cloud\"} ",
                                           second.cached_tokens(), "\n")));
  const int n_answer = 12;
  EXPECT_THAT(text,
              HasSubstr(absl::StrCat("updraft_inter_token_seconds_count{tier=\"cloud\"} ", 2 * (n_answer - 1), "\n")));
  EXPECT_THAT(text,
              HasSubstr(absl::StrCat("updraft_engine_step_rows_sum{tier=\"cloud\"} ", cloud_->stats().n_rows, "\n")));
  EXPECT_THAT(text, HasSubstr(absl::StrCat("updraft_engine_step_seconds_count{tier=\"cloud\"} ",
                                           cloud_->stats().n_steps, "\n")));
}

TEST_F(PrefixCacheTest, OpenAisUsageTellsIt) {
  const auto cloud = StartCloud({"--kv-tokens=2048", "--http-listen=127.0.0.1:0"});
  ASSERT_NE(cloud, nullptr);
  const auto usage = [&](const std::string& headers, int n) {
    const http::Json body = {{"prompt", Shared()}, {"max_tokens", 4}, {"n", n}};
    const auto response = http::testing::Fetch(cloud->http_port(), "POST", "/v1/completions", body.dump(), headers);
    EXPECT_EQ(response.status, 200) << response.body;
    return http::Json::parse(response.body)["usage"];
  };
  EXPECT_FALSE(usage("", 1).contains("prompt_tokens_details"));
  const http::Json second = usage("", 1);
  EXPECT_GE(second["prompt_tokens_details"]["cached_tokens"], second["prompt_tokens"].get<int>() / 2);
  EXPECT_FALSE(usage("X-Updraft-Tenant: ann\r\n", 2).contains("prompt_tokens_details"))
      << "what its first choice read its second one found, which is no cache to the caller";
  EXPECT_GT(usage("X-Updraft-Tenant: ann\r\n", 2)["prompt_tokens_details"]["cached_tokens"], 0);
}

TEST(CloudPace, PromptsBesideAnAnswerAreReadInPieces) {
  const auto cloud = StartCloud({"--paced-us-per-row=5000", "--itl-target-ms=100", "--kv-tokens=4096"});
  ASSERT_NE(cloud, nullptr);
  auto stub = v1::Inference::NewStub(testing::ChannelTo(*cloud));
  std::thread chat([&] { EXPECT_TRUE(Ask(*stub, PromptRequest("abc", 150)).status.ok()); });
  while (cloud->load().running_requests < 1) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_TRUE(Ask(*stub, PromptRequest(Shared(), 2)).status.ok());
  EXPECT_LE(cloud->stats().max_rows_in_step, 1 + engine::StepPacer::kFirstRows);
  chat.join();
}

// One at a time; who waits is served by priority, then by arrival.
TEST(CloudPriority, AHigherOneGoesFirst) {
  const auto cloud = StartCloud({"--paced-us-per-row=10000", "--max-running=1", "--max-step-tokens=64"});
  ASSERT_NE(cloud, nullptr);
  auto stub = v1::Inference::NewStub(testing::ChannelTo(*cloud));
  std::vector<std::thread> clients;
  clients.emplace_back([&] { EXPECT_TRUE(Ask(*stub, PromptRequest("abc", 150)).status.ok()); });
  while (cloud->load().running_requests < 1) absl::SleepFor(absl::Milliseconds(1));
  std::mutex mu;
  std::vector<int> order;
  for (const int priority : {0, -10, 10, 1}) {
    const int n_queued = cloud->load().queued_requests;
    clients.emplace_back([&, priority] {
      v1::GenerateRequest request = PromptRequest("abc", 2);
      request.set_priority(priority);
      EXPECT_TRUE(Ask(*stub, request).status.ok());
      std::lock_guard lock(mu);
      order.push_back(priority);
    });
    for (int i = 0; i < 2000 && cloud->load().queued_requests == n_queued; ++i) absl::SleepFor(absl::Milliseconds(1));
  }
  for (std::thread& client : clients) client.join();
  EXPECT_THAT(order, ::testing::ElementsAre(10, 1, 0, -10));
  v1::GenerateRequest request = PromptRequest("abc", 2);
  request.set_priority(11);
  const Answer refused = Ask(*stub, request);
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(refused.status.error_message(), HasSubstr("priority: expected -10 to 10, found 11"));
}

}  // namespace
}  // namespace updraft
