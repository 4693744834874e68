#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "deploy/evaluate/compare.h"
#include "deploy/evaluate/perplexity.h"
#include "tests/common/model/test_models.h"

namespace updraft {
namespace {

using kernels::DType;
using testing::MakeModel;
using testing::RandomTokens;
using testing::Shape;

// Says what it is told to: logits are a function of the position alone.
class ScriptedSource : public LogitsSource {
 public:
  ScriptedSource(int n_vocab, std::function<float(int position, int token)> logit) : logit_(std::move(logit)) {
    config_.n_vocab = n_vocab;
    config_.context_length = 1000;
    config_.name = "scripted";
  }
  const ModelConfig& config() const override { return config_; }
  absl::Status Run(std::span<const int32_t> tokens) override {
    runs.emplace_back(tokens.begin(), tokens.end());
    return absl::OkStatus();
  }
  absl::Status Logits(int first, int n_rows, std::span<float> logits) override {
    for (int r = 0; r < n_rows; ++r) {
      for (int i = 0; i < config_.n_vocab; ++i) logits[r * config_.n_vocab + i] = logit_(first + r, i);
    }
    return absl::OkStatus();
  }
  std::vector<std::vector<int32_t>> runs;

 private:
  ModelConfig config_;
  std::function<float(int, int)> logit_;
};

TEST(PerplexityTest, OfUniformPredictionsIsTheVocabularySize) {
  ScriptedSource source(37, [](int, int) { return 2.5f; });
  const auto tokens = RandomTokens(105, 37, 1);
  const PerplexityResult result = Perplexity(source, tokens, {.context = 20}).value();
  EXPECT_NEAR(result.perplexity, 37.0, 1e-9);
  EXPECT_NEAR(result.nll, std::log(37.0), 1e-12);
  EXPECT_NEAR(result.perplexity_error, 0.0, 1e-6);
  EXPECT_EQ(result.chunks, 5);
  EXPECT_EQ(result.tokens, 5 * 9);  // positions 10..18 of each chunk predict 11..19
}

TEST(PerplexityTest, ScoresTheSecondHalfOfEachChunkAndPutsBosFirst) {
  // Sure of token (position + 1) % 8, which is right throughout a text that counts.
  ScriptedSource source(8, [](int position, int token) { return token == (position + 1) % 8 ? 50.0f : 0.0f; });
  std::vector<int32_t> tokens(48);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i % 8);
  for (const int wrong : {1, 5, 7, 8}) tokens[wrong] = 3;  // in the half that is not scored: changes nothing
  const PerplexityResult result = Perplexity(source, tokens, {.context = 16, .chunks = 2, .bos = 6}).value();
  EXPECT_NEAR(result.perplexity, 1.0, 1e-9);
  ASSERT_EQ(source.runs.size(), 2u);
  EXPECT_EQ(source.runs[0][0], 6);
  EXPECT_EQ(source.runs[1][0], 6);
  EXPECT_EQ(source.runs[1][1], tokens[17]);
  tokens[9] = 3;  // the first scored one
  EXPECT_GT(Perplexity(source, tokens, {.context = 16, .chunks = 2}).value().perplexity, 2.0);
}

TEST(PerplexityTest, RefusesWhatCannotBeScored) {
  ScriptedSource source(8, [](int, int) { return 0.0f; });
  const auto code = [&](int n, EvaluationOptions options) {
    return Perplexity(source, std::vector<int32_t>(n, 1), options).status().code();
  };
  EXPECT_EQ(code(31, {.context = 16}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(100, {.context = 3}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(9000, {.context = 1001}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(32, {.context = 16}), absl::StatusCode::kOk);
  EXPECT_EQ(Perplexity(source, std::vector<int32_t>(32, 8), {.context = 16}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Perplexity(source, std::vector<int32_t>(32, -1), {.context = 16}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Perplexity(*MakeModel(Shape("tiny-llama")), std::vector<int32_t>(600, 1), {.context = 300}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(CompareTest, KnowsTheDivergenceOfTwoCoins) {
  // p = (3/4, 1/4), q = (1/2, 1/2).
  ScriptedSource p(2, [](int, int token) { return token == 0 ? std::log(3.0f) : 0.0f; });
  ScriptedSource q(2, [](int, int) { return 0.0f; });
  const std::vector<int32_t> tokens(40, 0);
  const ComparisonResult result = Compare(q, p, tokens, {.context = 10}).value();
  const double want = 0.75 * std::log(0.75 / 0.5) + 0.25 * std::log(0.25 / 0.5);
  EXPECT_NEAR(result.kld_mean, want, 1e-7);
  EXPECT_NEAR(result.kld_p99, want, 1e-7);
  EXPECT_NEAR(result.kld_mean_error, 0.0, 1e-7);
  EXPECT_EQ(result.top1_agreement, 1.0);
  EXPECT_NEAR(result.perplexity, 2.0, 1e-9);
  EXPECT_NEAR(result.perplexity_ratio, 2.0 * 0.75, 1e-6);
}

TEST(CompareTest, AModelIsNoDistanceFromItselfAndSomeFromItsQuantization) {
  const auto model = MakeModel(Shape("tiny-llama"), DType::kF32, 5);
  const auto coarse = MakeModel(Shape("tiny-llama"), DType::kQ4_0, 5);
  const auto tokens = RandomTokens(256, model->config().n_vocab, 6);
  const ComparisonResult same = Compare(*model, *model, tokens, {.context = 64}).value();
  EXPECT_EQ(same.kld_max, 0.0);
  EXPECT_EQ(same.top1_agreement, 1.0);
  EXPECT_EQ(same.perplexity_ratio, 1.0);
  const ComparisonResult apart = Compare(*coarse, *model, tokens, {.context = 64}).value();
  EXPECT_GT(apart.kld_mean, 1e-4);
  EXPECT_GE(apart.kld_p99, apart.kld_mean);
  EXPECT_GE(apart.kld_max, apart.kld_p99);
}

TEST(CompareTest, RefusesVocabulariesThatDiffer) {
  SynthShape other = Shape("tiny-llama");
  other.n_vocab = 330;
  const absl::Status status =
      Compare(*MakeModel(Shape("tiny-llama")), *MakeModel(other), std::vector<int32_t>(256, 1), {.context = 64})
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(status.message()).find("320 and 330"), std::string::npos) << status;
}

TEST(LogitsSourceTest, TheProductAndTheReferenceAgreeOnLongChunks) {
  // Longer than one pass of the product, so that chunking is part of what is compared.
  SynthShape shape = Shape("tiny-qwen2");
  shape.context_length = 400;
  const auto model = MakeModel(shape, DType::kF32, 9);
  const auto tokens = RandomTokens(800, model->config().n_vocab, 10);
  auto source = ModelSource::Create(model.get(), 400).value();
  ReferenceSource reference(model.get());
  const ComparisonResult result = Compare(*source, reference, tokens, {.context = 400, .chunks = 1}).value();
  EXPECT_LE(result.kld_max, 1e-5);  // half precision of K and V: relative 2^-11, squared in a divergence
}

}  // namespace
}  // namespace updraft
