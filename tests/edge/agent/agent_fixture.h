// A small random model, agents on top of it, and a sink that waits: what the agent's tests share.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "common/telemetry/metrics.h"
#include "deploy/synth/synth.h"
#include "edge/agent/agent.h"
#include "edge/agent/grpc_upstream.h"
#include "tests/common/serving/collecting_sink.h"
#include "tests/edge/agent/fake_upstream.h"

namespace updraft::testing {

class AgentTest : public ::testing::Test {
 protected:
  // One file for all tests of the program: synthetic weights, greedy answers of some tens of tokens.
  static void SetUpTestSuite() {
    path_ = new std::string(::testing::TempDir() + "updraft_agent_" + std::to_string(getpid()) + ".gguf");
    SynthShape shape;
    shape.name = "agent-test";
    shape.architecture = Architecture::kQwen2;
    shape.n_layer = 4;
    shape.n_vocab = 512;
    shape.context_length = 512;
    shape.exit_layers = {2};
    const absl::Status status = Synthesize(shape, kernels::DType::kF32, *path_, {.seed = 3, .n_threads = 1});
    ASSERT_TRUE(status.ok()) << status;
  }
  static void TearDownTestSuite() {
    std::remove(path_->c_str());
    delete path_;
  }

  static std::unique_ptr<LocalModel> LoadModel(int kv_tokens = 4096, ExitMode exit_mode = ExitMode::kOff) {
    auto model =
        LocalModel::Load({.path = *path_, .load = {.n_threads = 1}, .kv_tokens = kv_tokens, .exit_mode = exit_mode});
    EXPECT_TRUE(model.ok()) << model.status();
    return *std::move(model);
  }

  struct Setup {
    double threshold = 0.0;  // 0 keeps every local answer, above 1 is not allowed: 1 hands (almost) everything over
    PolicyMode mode = PolicyMode::kAuto;
    int max_queued = 64;
    absl::Duration stall_timeout = absl::Seconds(20);
    int kv_tokens = 4096;
    int answers_at_once = kAnswersAtOnce;
    bool wait_for_probe = true;
  };

  static std::shared_ptr<SharedSession> MakeSession(int n_upstreams, double look_interval_s = 5.0) {
    SessionOptions options;
    options.n_upstreams = n_upstreams;
    options.look_interval_s = look_interval_s;
    return std::make_shared<SharedSession>(options);
  }

  // address: of the upstream; empty: none.
  std::unique_ptr<Agent> MakeAgent(const std::string& address, const Setup& setup) {
    AgentOptions options;
    options.policy.mode = setup.mode;
    options.policy.confidence_threshold = setup.threshold;
    options.max_queued = setup.max_queued;
    options.answers_at_once = setup.answers_at_once;
    auto session = MakeSession(/*n_upstreams=*/address.empty() ? 0 : 1);
    std::unique_ptr<Upstream> upstream;
    if (!address.empty()) {
      auto created = GrpcUpstream::Create({.address = address, .stall_timeout = setup.stall_timeout}, session);
      EXPECT_TRUE(created.ok()) << created.status();
      upstream = *std::move(created);
      for (int i = 0; setup.wait_for_probe && upstream->Identity().tokenizer_fingerprint.empty() && i < 2000; ++i) {
        absl::SleepFor(absl::Milliseconds(5));
      }
    }
    return std::make_unique<Agent>(options, LoadModel(setup.kv_tokens), session, std::move(upstream), &metrics_);
  }

  std::shared_ptr<CollectingSink> Ask(Agent& agent, v1::GenerateRequest request,
                                      SteadyTime deadline = SteadyTime::InfiniteFuture()) {
    auto sink = std::make_shared<CollectingSink>();
    agent.Submit(std::move(request), deadline, sink);
    EXPECT_TRUE(sink->Wait());
    return sink;
  }

  // What the model answers on its own: the truth that answers pieced together are compared with.
  std::shared_ptr<CollectingSink> LocalTruth(const v1::GenerateRequest& request) {
    auto agent = MakeAgent("", {});
    return Ask(*agent, request);
  }

  // The truth as an upstream would stream it, one token a chunk.
  static std::vector<v1::Chunk> AsUpstream(const CollectingSink& truth) {
    std::vector<v1::Chunk> chunks;
    for (v1::Chunk chunk : truth.chunks()) {
      chunk.set_tier("cloud");
      chunks.push_back(std::move(chunk));
    }
    return chunks;
  }

  static std::string Fingerprint() {
    static const std::string fingerprint = LoadModel()->info().tokenizer_fingerprint();
    return fingerprint;
  }

  static std::string* path_;
  Metrics metrics_{"edge", "agent-test"};
};

inline std::string* AgentTest::path_ = nullptr;

}  // namespace updraft::testing
