// A small random model, agents on top of it, and a sink that waits: what the agent's tests share.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "common/telemetry/metrics.h"
#include "deploy/synth/synth.h"
#include "edge/agent/agent.h"
#include "edge/agent/grpc_upstream.h"
#include "tests/edge/agent/fake_upstream.h"

namespace updraft::testing {

// Collects one answer.
class CollectingSink final : public AnswerSink {
 public:
  bool OnChunk(const v1::Chunk& chunk) override {
    std::lock_guard lock(mu_);
    EXPECT_FALSE(ended_) << "a chunk after the end";
    chunks_.push_back(chunk);
    changed_.notify_all();
    return static_cast<int>(chunks_.size()) <= accepts_;
  }
  void OnEnd(const absl::Status& status, const v1::Done& done) override {
    std::lock_guard lock(mu_);
    EXPECT_FALSE(ended_) << "two ends";
    ended_ = true;
    status_ = status;
    done_ = done;
    changed_.notify_all();
  }

  bool Wait(absl::Duration timeout = absl::Seconds(60)) {
    std::unique_lock lock(mu_);
    return changed_.wait_for(lock, absl::ToChronoMilliseconds(timeout), [this] { return ended_; });
  }
  bool WaitForChunks(int n, absl::Duration timeout = absl::Seconds(60)) {
    std::unique_lock lock(mu_);
    return changed_.wait_for(lock, absl::ToChronoMilliseconds(timeout),
                             [this, n] { return static_cast<int>(chunks_.size()) >= n; });
  }
  void set_accepts(int chunks) { accepts_ = chunks; }

  // After Wait.
  const absl::Status& status() const { return status_; }
  const v1::Done& done() const { return done_; }
  const v1::Provenance& provenance() const { return done_.provenance(); }
  const std::vector<v1::Chunk>& chunks() const { return chunks_; }
  std::string text() const {
    std::string text;
    for (const v1::Chunk& chunk : chunks_) text += chunk.text();
    return text;
  }
  std::vector<int32_t> tokens() const {
    std::vector<int32_t> tokens;
    for (const v1::Chunk& chunk : chunks_) tokens.insert(tokens.end(), chunk.tokens().begin(), chunk.tokens().end());
    return tokens;
  }
  std::vector<std::pair<std::string, int>> spans() const {
    std::vector<std::pair<std::string, int>> spans;
    for (const auto& span : done_.provenance().spans()) spans.emplace_back(span.tier(), span.n_tokens());
    return spans;
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  std::vector<v1::Chunk> chunks_;
  absl::Status status_;
  v1::Done done_;
  bool ended_ = false;
  int accepts_ = 1 << 30;
};

inline v1::GenerateRequest ChatRequest(const std::string& text, int max_tokens = 24) {
  v1::GenerateRequest request;
  v1::Message* message = request.mutable_conversation()->add_messages();
  message->set_role("user");
  message->set_content(text);
  request.set_max_tokens(max_tokens);
  return request;
}

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
