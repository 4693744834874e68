// A backend without a model's answers: scripted by the test, otherwise words that are counted. The served model is a
// real file with random weights, since requests are checked and tokens spelled by it.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/serving/backend.h"
#include "common/serving/request_check.h"
#include "common/status/retry_delay.h"
#include "deploy/synth/synth.h"
#include "tests/common/serving/tier_under_test.h"

namespace updraft::testing {

inline constexpr char kFakeModelName[] = "synthetic serving-test";

inline std::unique_ptr<ServedModel> MakeFakeServedModel(const std::string& chat_template) {
  const std::string path = absl::StrCat(::testing::TempDir(), "updraft_serving_", getpid(), ".gguf");
  SynthShape shape;
  shape.name = "serving-test";
  shape.architecture = Architecture::kQwen2;
  shape.n_layer = 1;
  shape.n_vocab = 512;
  shape.context_length = 512;
  const absl::Status status = Synthesize(shape, kernels::DType::kF32, path, {.seed = 3, .n_threads = 1});
  EXPECT_TRUE(status.ok()) << status;
  auto loaded = ServedModel::Load(path, {.n_threads = 1}, chat_template);
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  std::remove(path.c_str());
  return *std::move(loaded);
}

inline const ServedModel& FakeServedModel() {
  static const std::unique_ptr<ServedModel> model = MakeFakeServedModel("");
  return *model;
}

// One that calls tools as Hermes does.
inline const ServedModel& FakeCallingModel() {
  static const std::unique_ptr<ServedModel> model = MakeFakeServedModel("hermes");
  return *model;
}

inline v1::Chunk MakeChunk(const std::string& tier, const std::string& text, int n_tokens) {
  v1::Chunk chunk;
  chunk.set_tier(tier);
  chunk.set_text(text);
  for (int i = 0; i < n_tokens; ++i) chunk.add_tokens(i);
  return chunk;
}

class FakeBackend final : public Backend {
 public:
  using Script =
      std::function<RequestHandle(const v1::GenerateRequest&, SteadyTime, const std::shared_ptr<AnswerSink>&)>;

  explicit FakeBackend(Metrics* metrics = nullptr) : metrics_(metrics) {}

  // Plays for every request that passes the checks. Set before the first one; none: Answer.
  Script script;
  const ServedModel* model = &FakeServedModel();
  v1::Load load;
  std::atomic<bool> is_draining{false};

  RequestHandle Submit(v1::GenerateRequest request, SteadyTime deadline, std::shared_ptr<AnswerSink> sink) override {
    absl::Status status = CheckRequest(request);
    if (status.ok() && is_draining) {
      status = WithRetryDelay(absl::UnavailableError("this tier is shutting down"), absl::Seconds(1));
    }
    if (status.ok()) status = served().MakePrompt(request, /*max_tokens=*/511).status();
    if (status.ok() && script) return script(request, deadline, sink);
    if (status.ok()) {
      Answer(request, *sink);
    } else {
      sink->OnEnd(status, {});
    }
    return RequestHandle();
  }

  // max_tokens words (16 when the request does not say), or as many as the sink takes.
  void Answer(const v1::GenerateRequest& request, AnswerSink& sink) {
    const int n = request.max_tokens() > 0 ? request.max_tokens() : 16;
    for (int i = 0; i < n; ++i) {
      v1::Chunk chunk;
      chunk.set_tier("fake");
      chunk.set_text(absl::StrCat("w", i, " "));
      chunk.add_tokens(i % 512);
      if (request.include_evidence()) chunk.add_evidence()->set_logprob(-0.5f);
      if (request.top_logprobs() > 0) {
        v1::TokenLogprob* likely = chunk.mutable_evidence(chunk.evidence_size() - 1)->add_top();
        likely->set_token(chunk.tokens(chunk.tokens_size() - 1));
        likely->set_logprob(-0.5f);
      }
      if (absl::Status taken = sink.OnChunk(chunk); !taken.ok()) return sink.OnEnd(taken, {});
    }
    v1::Done done;
    done.set_finish_reason(v1::FINISH_REASON_LENGTH);
    done.mutable_usage()->set_prompt_tokens(7);
    done.mutable_usage()->set_completion_tokens(n);
    done.mutable_provenance()->set_decision(v1::DECISION_KIND_KEEP);
    v1::Provenance::Span* span = done.mutable_provenance()->add_spans();
    span->set_tier("fake");
    span->set_n_tokens(n);
    if (metrics_ != nullptr) {
      metrics_->OnTokens("fake", n);
      metrics_->OnRequest({.outcome = "ok", .decision = "keep"});
    }
    sink.OnEnd(absl::OkStatus(), done);
  }

  v1::Load CurrentLoad() const override { return load; }
  v1::GetStatusResponse Status() const override {
    v1::GetStatusResponse status;
    status.set_tier("fake");
    *status.mutable_model() = served().info();
    *status.mutable_load() = load;
    return status;
  }
  const ServedModel& served() const override { return *model; }
  int max_sequence_tokens() const override { return 512; }
  bool draining() const override { return is_draining; }

 private:
  Metrics* const metrics_;
};

class FakeTier final : public TierUnderTest {
 public:
  FakeBackend& backend() override { return backend_; }
  Metrics& metrics() override { return metrics_; }
  void BeginDrain() override { backend_.is_draining = true; }
  void Stop() override {}
  std::string tier() const override { return "fake"; }
  std::string model_name() const override { return kFakeModelName; }

  static std::unique_ptr<TierUnderTest> Make() { return std::make_unique<FakeTier>(); }

 private:
  Metrics metrics_{"fake", kFakeModelName};
  FakeBackend backend_{&metrics_};
};

}  // namespace updraft::testing
