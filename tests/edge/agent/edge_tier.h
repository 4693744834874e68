// An agent without an upstream, for the tests of fronts that run against every backend.
#pragma once

#include <memory>
#include <string>

#include "tests/common/serving/tier_under_test.h"
#include "tests/edge/agent/agent_fixture.h"

namespace updraft::testing {

// The fixture of the agent's tests makes the agent and its model's file.
class EdgeTier final : public TierUnderTest, private AgentTest {
 public:
  EdgeTier() {
    SetUpTestSuite();
    agent_ = MakeAgent("", {.max_queued = 1000});
  }
  ~EdgeTier() override {
    agent_.reset();
    TearDownTestSuite();
  }
  Agent& backend() override { return *agent_; }
  Metrics& metrics() override { return metrics_; }
  void BeginDrain() override { agent_->BeginDrain(); }
  void Stop() override { agent_->Stop(); }
  std::string tier() const override { return "edge"; }
  std::string model_name() const override { return "synthetic agent-test"; }

  static std::unique_ptr<TierUnderTest> Make() { return std::make_unique<EdgeTier>(); }

 private:
  void TestBody() override {}
  std::unique_ptr<Agent> agent_;
};

}  // namespace updraft::testing
