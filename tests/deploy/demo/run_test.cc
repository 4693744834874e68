// RunDemo against a service in this process that stands for an agent.
#include <grpcpp/server_builder.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "deploy/demo/demo.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "updraft/v1/inference.grpc.pb.h"

namespace updraft {
namespace {

using ::testing::HasSubstr;

// Right on the edge for content "easy", right in the cloud for all; "boom" fails.
class FakeAgent final : public v1::Inference::Service {
 public:
  std::atomic<int> refusals = 0;        // GetStatus calls that fail first
  std::atomic<int> upstream_after = 0;  // GetStatus calls until the upstream is seen
  std::atomic<int> calls = 0, running = 0, most_running = 0;

  grpc::Status Generate(grpc::ServerContext*, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateResponse>* writer) override {
    ++calls;
    const int now = ++running;
    for (int most = most_running; now > most && !most_running.compare_exchange_weak(most, now);) {
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    const std::string content = request->conversation().messages(0).content();
    const grpc::Status status = Answer(*request, content, writer);
    --running;
    return status;
  }

  grpc::Status GetStatus(grpc::ServerContext*, const v1::GetStatusRequest*, v1::GetStatusResponse* response) override {
    if (refusals-- > 0) return {grpc::StatusCode::UNAVAILABLE, "not yet"};
    response->set_tier("edge");
    response->mutable_model()->set_name("fake edge");
    response->mutable_model()->set_n_layer(4);
    response->mutable_routing()->set_threshold(0.7);
    if (upstream_after-- <= 0) response->mutable_upstream()->mutable_model()->set_name("fake cloud");
    return grpc::Status::OK;
  }

 private:
  static grpc::Status Answer(const v1::GenerateRequest& request, const std::string& content,
                             grpc::ServerWriter<v1::GenerateResponse>* writer) {
    if (content == "boom") return {grpc::StatusCode::INTERNAL, "boom"};
    const bool easy = content == "easy";
    const bool cloud =
        request.tier() == v1::TIER_CHOICE_UPSTREAM_ONLY || (request.tier() == v1::TIER_CHOICE_UNSPECIFIED && !easy);
    v1::GenerateResponse response;
    v1::Chunk* chunk = response.mutable_chunk();
    chunk->set_text(easy || cloud ? "right" : "no");
    chunk->add_tokens(1);
    chunk->set_tier(cloud ? "cloud" : "edge");
    if (request.include_evidence()) chunk->add_evidence()->set_exit_layer(2);
    writer->Write(response);
    response.Clear();
    v1::Provenance* provenance = response.mutable_done()->mutable_provenance();
    provenance->set_confidence(request.tier() == v1::TIER_CHOICE_UPSTREAM_ONLY ? 0.0 : easy ? 0.9 : 0.3);
    provenance->set_decision(cloud ? v1::DECISION_KIND_HAND_OVER : v1::DECISION_KIND_KEEP);
    provenance->set_bytes_up(cloud ? 100 : 0);
    provenance->set_mean_exit_layer(cloud ? 0.0 : 2.0);
    v1::Provenance::Span* span = provenance->add_spans();
    span->set_tier(cloud ? "cloud" : "edge");
    span->set_n_tokens(1);
    writer->Write(response);
    return grpc::Status::OK;
  }
};

class RunDemoTest : public ::testing::Test {
 protected:
  void SetUp() override {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&agent_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    options_.edge_address = absl::StrCat("127.0.0.1:", port);
    options_.progress = false;
    options_.timeout = absl::Seconds(20);
  }
  void TearDown() override {
    server_->Shutdown();
    server_->Wait();
  }

  static std::vector<TaskItem> Items(const std::vector<std::string>& contents) {
    std::vector<TaskItem> items;
    for (const std::string& content : contents) {
      TaskItem item;
      item.family = content;
      item.messages = {{"user", content}};
      item.expected = "right";
      items.push_back(item);
    }
    return items;
  }

  FakeAgent agent_;
  std::unique_ptr<grpc::Server> server_;
  DemoOptions options_;
};

TEST_F(RunDemoTest, MeasuresThreePasses) {
  std::vector<std::string> contents;
  for (int i = 0; i < 40; ++i) contents.push_back(i % 4 == 0 ? "hard" : "easy");
  options_.concurrency = 3;
  const auto report = RunDemo(options_, Items(contents));
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(agent_.calls, 120);
  EXPECT_LE(agent_.most_running, 3);
  EXPECT_GE(agent_.most_running, 2);
  const FamilySummary& all = report->summary.all();
  EXPECT_EQ(all.at(Pass::kEdge).correct, 30);
  EXPECT_EQ(all.at(Pass::kCloud).correct, 40);
  EXPECT_EQ(all.at(Pass::kTogether).correct, 40);
  EXPECT_EQ(all.escalated, 10);
  EXPECT_EQ(report->summary.auroc, 1.0);
  EXPECT_EQ(report->edge.model, "fake edge");
  EXPECT_EQ(report->cloud.model, "fake cloud");
  EXPECT_EQ(report->threshold, 0.7);
  EXPECT_NEAR(all.at(Pass::kTogether).mean_bytes_up, 25.0, 1e-9);
  ASSERT_FALSE(report->summary.exits.empty());
  EXPECT_EQ(report->summary.exits.front().layer, 2);
  EXPECT_EQ(report->summary.exits.front().tokens, 40);
}

TEST_F(RunDemoTest, SingleFailuresAreCountedNotFatal) {
  const auto report = RunDemo(options_, Items({"easy", "boom", "easy", "easy"}));
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->summary.all().at(Pass::kEdge).errors, 1);
  EXPECT_EQ(report->summary.all().at(Pass::kEdge).correct, 3);
}

TEST_F(RunDemoTest, OnlyFailuresAreFatal) {
  const auto report = RunDemo(options_, Items(std::vector<std::string>(60, "boom")));
  EXPECT_THAT(report.status().ToString(), HasSubstr("boom"));
  EXPECT_LE(agent_.calls, 25);
}

TEST_F(RunDemoTest, AnEdgeWithoutUpstreamIsRefused) {
  agent_.upstream_after = 1'000'000;
  options_.link_patience = absl::Milliseconds(200);
  const auto report = RunDemo(options_, Items({"easy"}));
  EXPECT_EQ(report.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(report.status().ToString(), HasSubstr("upstream"));
}

TEST_F(RunDemoTest, WaitsForTheFirstProbeOfTheUpstream) {
  agent_.refusals = 2;
  agent_.upstream_after = 4;
  const auto report = RunDemo(options_, Items({"easy"}));
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->cloud.model, "fake cloud");
}

TEST_F(RunDemoTest, NoAgentAtAll) {
  options_.edge_address = "127.0.0.1:1";
  options_.link_patience = absl::Milliseconds(200);
  EXPECT_FALSE(RunDemo(options_, Items({"easy"})).ok());
}

TEST_F(RunDemoTest, OptionsAreChecked) {
  options_.n_queries = 0;
  EXPECT_THAT(RunDemo(options_).status().ToString(), HasSubstr("queries"));
  options_.n_queries = 10;
  options_.concurrency = 0;
  EXPECT_THAT(RunDemo(options_).status().ToString(), HasSubstr("concurrency"));
}

TEST_F(RunDemoTest, TaskOnALiveAgent) {
  const auto report =
      EvaluateTaskOnEdge(options_, Items({"easy", "hard", "easy", "easy"}), v1::TIER_CHOICE_UNSPECIFIED);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->task.exact_match, 1.0);
  EXPECT_EQ(report->escalated_share, 0.25);
  EXPECT_THAT(ToJson(*report), HasSubstr("\"escalated_share\":0.25"));
  EXPECT_EQ(report->kept.share(), 0.75);
  EXPECT_EQ(report->wrong_among_kept.n, 3);
  EXPECT_NEAR(report->kept_stated, 0.9, 1e-6);
  EXPECT_EQ(report->wrong_among_kept.correct, 0);
}

TEST_F(RunDemoTest, TellsWhatWasKeptAndIsWrong) {
  std::vector<TaskItem> items = Items({"easy", "hard", "easy", "easy"});
  items[0].expected = "what nobody answers";
  std::vector<std::string> texts;
  const auto report = EvaluateTaskOnEdge(options_, items, v1::TIER_CHOICE_UNSPECIFIED, &texts);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(texts.size(), 4u);
  EXPECT_NEAR(report->wrong_among_kept.share(), 1.0 / 3, 1e-12);
  EXPECT_THAT(ToJson(*report), HasSubstr("\"wrong_among_kept\":0.333"));
  EXPECT_THAT(ToText(*report), HasSubstr("wrong among those 33.3 %"));
}

}  // namespace
}  // namespace updraft
