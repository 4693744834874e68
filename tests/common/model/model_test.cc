#include "common/model/model.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/common/model/test_models.h"

namespace updraft {
namespace {

using kernels::DType;
using testing::Edit;
using testing::EditFile;
using testing::Shape;
using testing::TempFile;

absl::Status LoadEdited(const SynthShape& shape, const Edit& edit) {
  TempFile original, edited;
  if (absl::Status s = Synthesize(shape, DType::kF32, original.path()); !s.ok()) return s;
  if (absl::Status s = EditFile(original.path(), edited.path(), edit); !s.ok()) return s;
  return Model::Load(edited.path(), {.n_threads = 1}).status();
}

void ExpectRefused(const absl::Status& status, absl::StatusCode code, const std::string& says) {
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_NE(std::string(status.message()).find(says), std::string::npos) << status;
}

TEST(ModelTest, EveryTensorThatTheConfigurationAsksForIsMissed) {
  TempFile original;
  ASSERT_TRUE(Synthesize(Shape("tiny-exits"), DType::kF32, original.path()).ok());
  const gguf::File file = gguf::File::Open(original.path()).value();
  for (const gguf::TensorInfo& tensor : file.tensors()) {
    if (tensor.name == "output.weight") continue;  // without it the embedding is the head
    ExpectRefused(LoadEdited(Shape("tiny-exits"), {.drop_tensors = {tensor.name}}), absl::StatusCode::kDataLoss,
                  "tensor '" + tensor.name + "'");
  }
}

TEST(ModelTest, FamiliesMissTheirOwnTensors) {
  ExpectRefused(LoadEdited(Shape("tiny-qwen2"), {.drop_tensors = {"blk.0.attn_q.bias"}}), absl::StatusCode::kDataLoss,
                "blk.0.attn_q.bias");
  ExpectRefused(LoadEdited(Shape("tiny-qwen3"), {.drop_tensors = {"blk.1.attn_k_norm.weight"}}),
                absl::StatusCode::kDataLoss, "blk.1.attn_k_norm.weight");
}

TEST(ModelTest, ShapesAreChecked) {
  ExpectRefused(LoadEdited(Shape("tiny-llama"), {.reshape = {{"blk.1.attn_k.weight", {64, 64}}}}),
                absl::StatusCode::kDataLoss, "'blk.1.attn_k.weight': expected [64, 32], found [64, 64]");
  ExpectRefused(LoadEdited(Shape("tiny-llama"), {.reshape = {{"blk.0.ffn_down.weight", {64, 128}}}}),
                absl::StatusCode::kDataLoss, "expected [128, 64], found [64, 128]");
  ExpectRefused(LoadEdited(Shape("tiny-llama"), {.reshape = {{"blk.0.attn_q.weight", {64, 32, 2}}}}),
                absl::StatusCode::kDataLoss, "found [64, 32, 2]");
  ExpectRefused(LoadEdited(Shape("tiny-llama"), {.reshape = {{"output_norm.weight", {32}}}}),
                absl::StatusCode::kDataLoss, "expected [64], found [32]");
  ExpectRefused(LoadEdited(Shape("tiny-llama"), {.reshape = {{"token_embd.weight", {64, 319}}}}),
                absl::StatusCode::kDataLoss, "expected [64, 320], found [64, 319]");
}

TEST(ModelTest, NormsAreFloats) {
  ExpectRefused(LoadEdited(Shape("tiny-llama"), {.retype = {{"output_norm.weight", DType::kQ8_0}}}),
                absl::StatusCode::kDataLoss, "expected f32, f16 or bf16, found q8_0");
}

TEST(ModelTest, TensorsWithoutAUseAreRefusedUnlessTheyAreOurs) {
  ExpectRefused(LoadEdited(Shape("tiny-llama"), {.add_tensors = {"blk.0.attn_output.bias"}}),
                absl::StatusCode::kUnimplemented, "blk.0.attn_output.bias");
  EXPECT_TRUE(LoadEdited(Shape("tiny-llama"), {.add_tensors = {"updraft.later.thing"}}).ok());
}

TEST(ModelTest, RopeFactorsMustBePositive) {
  SynthShape shape = Shape("tiny-llama");
  shape.rope_freqs = true;
  ExpectRefused(LoadEdited(shape, {.retype = {{"rope_freqs.weight", DType::kF16}}, .add_tensors = {}}),
                absl::StatusCode::kDataLoss, "rope_freqs.weight");
}

TEST(ModelTest, AMissingFileSaysSo) {
  const absl::Status status = Model::Load("/nonexistent/model.gguf", {}).status();
  ExpectRefused(status, absl::StatusCode::kNotFound, "/nonexistent/model.gguf");
}

TEST(ModelTest, BytesPerTokenCountsEveryMatrixOnce) {
  const auto model = testing::MakeModel(Shape("tiny-llama"), DType::kF32);
  const ModelConfig& c = model->config();
  const size_t per_layer = size_t{64} * 64 * 2 + size_t{64} * 32 * 2 + size_t{64} * 128 * 3;
  EXPECT_GE(model->bytes_per_token(), 4 * (2 * per_layer + size_t{64} * c.n_vocab));
  EXPECT_LE(model->bytes_per_token(),
            4 * 5 * (2 * per_layer + size_t{64} * c.n_vocab) / 4);  // padding of tiles at most
}

}  // namespace
}  // namespace updraft
