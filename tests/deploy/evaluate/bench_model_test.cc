#include "deploy/evaluate/bench_model.h"

#include <gtest/gtest.h>

#include "tests/common/model/test_models.h"

namespace updraft {
namespace {

TEST(BenchModelTest, FiguresHangTogether) {
  const auto model = testing::MakeModel(testing::Shape("tiny-llama"), kernels::DType::kQ4_0);
  const BenchModelResult result = BenchModel(*model, {.prefill = 50, .decode = 20, .repeat = 4, .batch = 16}).value();
  for (const Spread& speed : {result.prefill_tok_s, result.decode_tok_s}) {
    EXPECT_GT(speed.min, 0.0);
    EXPECT_LE(speed.min, speed.median);
    EXPECT_LE(speed.median, speed.max);
  }
  EXPECT_EQ(result.bytes_per_token, model->bytes_per_token());
  EXPECT_DOUBLE_EQ(result.bandwidth_gb_s, result.bytes_per_token * result.decode_tok_s.median * 1e-9);
  EXPECT_GT(result.roof_gb_s, 0.0);
  EXPECT_GT(result.roof_fraction, 0.0);
}

TEST(BenchModelTest, SequencesCountTogether) {
  const auto model = testing::MakeModel(testing::Shape("tiny-llama"), kernels::DType::kQ4_0);
  const BenchModelResult result = BenchModel(*model, {.prefill = 0, .decode = 40, .sequences = 5, .repeat = 2}).value();
  EXPECT_EQ(result.prefill_tok_s.median, 0.0);
  EXPECT_GT(result.decode_tok_s.median, 0.0);
  EXPECT_DOUBLE_EQ(result.bandwidth_gb_s, result.bytes_per_token * (result.decode_tok_s.median / 5) * 1e-9);
}

TEST(BenchModelTest, RefusesWhatDoesNotFit) {
  const auto model = testing::MakeModel(testing::Shape("tiny-llama"));
  for (const BenchModelOptions& options :
       {BenchModelOptions{.prefill = 257}, BenchModelOptions{.prefill = -1},
        BenchModelOptions{.prefill = 8, .repeat = 0}, BenchModelOptions{.prefill = 0, .decode = 0},
        BenchModelOptions{.prefill = 8, .decode = 8, .batch = 0},
        BenchModelOptions{.prefill = 8, .decode = 8, .sequences = 0}}) {
    EXPECT_EQ(BenchModel(*model, options).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace updraft
