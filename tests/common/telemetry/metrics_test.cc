#include "common/telemetry/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

namespace updraft {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(MetricsTest, CountsByOutcomeDecisionAndTier) {
  Metrics metrics("edge", "tiny");
  metrics.OnRequest({.outcome = "ok", .decision = "keep", .total_s = 0.03, .first_token_s = 0.02, .confidence = 0.97});
  metrics.OnRequest({.outcome = "ok",
                     .decision = "hand-over",
                     .disposition = "clarify",
                     .total_s = 0.3,
                     .bytes_up = 100,
                     .bytes_down = 900});
  metrics.OnRequest({.outcome = "cancelled", .degraded = true});
  metrics.OnTokens("edge", 7);
  metrics.OnTokens("cloud", 9);
  metrics.OnTokens("cloud", 0);
  const std::string text = metrics.Render();
  EXPECT_THAT(text, HasSubstr(R"(updraft_requests_total{tier="edge",decision="keep",outcome="ok"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(updraft_requests_total{tier="edge",decision="none",outcome="cancelled"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(updraft_dispositions_total{tier="edge",disposition="clarify"} 1)"));
  EXPECT_THAT(text, Not(HasSubstr(R"(disposition="")"))) << "prose has none";
  EXPECT_THAT(text, HasSubstr(R"(updraft_degraded_total{tier="edge"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(updraft_tokens_total{tier="cloud"} 9)"));
  EXPECT_THAT(text, HasSubstr(R"(updraft_link_bytes_total{tier="edge",direction="down"} 900)"));
  EXPECT_THAT(text, HasSubstr(R"(updraft_request_seconds_bucket{tier="edge",le="0.04"} 2)"));
  EXPECT_THAT(text, HasSubstr(R"(updraft_request_seconds_count{tier="edge"} 3)"));
  EXPECT_THAT(text, HasSubstr(R"(updraft_confidence_count{tier="edge"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(updraft_first_token_seconds_count{tier="edge"} 1)"));
}

TEST(MetricsTest, GaugesHoldTheLastValue) {
  Metrics metrics("edge", "tiny");
  metrics.SetLink({});
  EXPECT_THAT(metrics.Render(), Not(HasSubstr("updraft_link_reachable")));
  metrics.SetLink({.configured = true, .reachable = true, .rtt_s = 0.5});
  metrics.SetLink({.configured = true, .reachable = true, .rtt_s = 0.25, .goodput_up_bytes_per_s = 1e6});
  metrics.SetLoad({.running_requests = 1, .queued_requests = 3, .kv_used_fraction = 0.5});
  metrics.SetResidentBytes(1 << 20);
  const std::string text = metrics.Render();
  EXPECT_THAT(text, HasSubstr(R"(updraft_link_rtt_seconds{tier="edge"} 0.25)"));
  EXPECT_THAT(text, HasSubstr(R"(updraft_link_goodput_bytes_per_second{tier="edge",direction="up"} 1000000)"));
  EXPECT_THAT(text, HasSubstr(R"(vllm:num_requests_waiting{model_name="tiny"} 3)"));
  EXPECT_THAT(text, HasSubstr(R"(vllm:num_requests_running{model_name="tiny"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(vllm:kv_cache_usage_perc{model_name="tiny"} 0.5)"));
}

TEST(MetricsTest, NamesFromAboveMakeNoEndlessSeries) {
  Metrics metrics("edge", "tiny");
  for (int i = 0; i < 1000; ++i) metrics.OnTokens("tier" + std::to_string(i), 1);
  const std::string text = metrics.Render();
  EXPECT_THAT(text, HasSubstr(R"(updraft_tokens_total{tier="tier15"} 1)"));
  EXPECT_THAT(text, Not(HasSubstr("tier16")));
  EXPECT_THAT(text, HasSubstr(R"(updraft_tokens_total{tier="other"} 984)"));
}

TEST(MetricsTest, EngineCountsOnwardsAndIsThereOnlyWhenTold) {
  Metrics metrics("cloud", "tiny");
  EXPECT_THAT(metrics.Render(), Not(HasSubstr("updraft_engine")));
  metrics.SetEngine({.n_steps = 5, .n_rows = 70, .n_preemptions = 1, .n_blocks = 8, .n_free_blocks = 2});
  metrics.SetEngine({.n_steps = 7, .n_rows = 90, .n_preemptions = 1, .n_blocks = 8, .n_free_blocks = 8});
  const std::string text = metrics.Render();
  EXPECT_THAT(text, HasSubstr("# TYPE updraft_engine_steps_total counter"));
  EXPECT_THAT(text, HasSubstr(R"(updraft_engine_steps_total{tier="cloud"} 7)"));
  EXPECT_THAT(text, HasSubstr(R"(updraft_engine_rows_total{tier="cloud"} 90)"));
  EXPECT_THAT(text, HasSubstr(R"(updraft_engine_preemptions_total{tier="cloud"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(updraft_engine_kv_blocks{tier="cloud",state="free"} 8)"));
  EXPECT_THAT(text, HasSubstr(R"(updraft_engine_kv_blocks{tier="cloud",state="used"} 0)"));
}

TEST(MetricsTest, AuditsAreThereOnlyWhenTold) {
  Metrics metrics("edge", "tiny");
  EXPECT_THAT(metrics.Render(), Not(HasSubstr("updraft_drift_total")));
  metrics.SetDrift({.threshold = 0.8});
  metrics.OnAudit("same");
  metrics.OnAudit("other");
  metrics.OnAudit("other");
  EXPECT_THAT(metrics.Render(), HasSubstr(R"(updraft_drift_total{tier="edge"} 0)"));
  metrics.OnDrift();
  metrics.SetDrift({.threshold = 0.9, .risk = 0.125});
  const std::string text = metrics.Render();
  EXPECT_THAT(text, HasSubstr(R"(updraft_audits_total{tier="edge",outcome="other"} 2)"));
  EXPECT_THAT(text, HasSubstr(R"(updraft_drift_total{tier="edge"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(updraft_confidence_threshold{tier="edge"} 0.9)"));
  EXPECT_THAT(text, HasSubstr(R"(updraft_kept_risk{tier="edge"} 0.125)"));
}

TEST(MetricsTest, ManyThreads) {
  Metrics metrics("edge", "tiny");
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&metrics, t] {
      for (int i = 0; i < 250; ++i) {
        metrics.OnRequest({.outcome = "ok", .decision = t % 2 == 0 ? "keep" : "hand-over"});
        metrics.SetLink({.configured = true, .rtt_s = 0.1 * t});
        if (i % 50 == 0) metrics.Render();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(metrics.Render(), HasSubstr(R"(decision="keep",outcome="ok"} 500)"));
}

}  // namespace
}  // namespace updraft
