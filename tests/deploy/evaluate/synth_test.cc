#include "deploy/synth/synth.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/decode/generator.h"
#include "deploy/synth/vocabulary.h"
#include "kernels/formats/codec.h"
#include "tests/common/model/test_models.h"
#ifdef UPDRAFT_HAVE_TEXT
#include "common/text/tokenizer.h"
#endif

namespace updraft {
namespace {

using kernels::DType;
using testing::Shape;
using testing::TempFile;

std::vector<std::byte> BytesOf(const SynthShape& shape, DType type, const SynthOptions& options) {
  TempFile file;
  EXPECT_TRUE(Synthesize(shape, type, file.path(), options).ok());
  const gguf::File read = gguf::File::Open(file.path()).value();
  std::vector<std::byte> bytes;
  for (const gguf::TensorInfo& tensor : read.tensors())
    bytes.insert(bytes.end(), tensor.data.begin(), tensor.data.end());
  return bytes;
}

TEST(SynthTest, TheSeedAloneDecidesTheBytes) {
  SynthShape shape = Shape("tiny-llama");
  shape.n_vocab = 20000;  // makes the embedding large enough to be filled from the pool
  const auto bytes = BytesOf(shape, DType::kQ4_0, {.seed = 3, .n_threads = 1});
  EXPECT_EQ(BytesOf(shape, DType::kQ4_0, {.seed = 3, .n_threads = 5}), bytes);
  EXPECT_NE(BytesOf(shape, DType::kQ4_0, {.seed = 4, .n_threads = 1}), bytes);
}

TEST(SynthTest, SparseGatesAreActiveInTheStatedShareOfGroups) {
  SynthShape shape = Shape("tiny-llama");
  shape.n_layer = 1;
  shape.d_model = 256;
  shape.d_ff = 8192;
  shape.ffn_group = 32;
  for (const double active : {0.1, 0.25, 0.4}) {
    shape.ffn_active = active;
    TempFile path;
    ASSERT_TRUE(Synthesize(shape, DType::kF32, path.path()).ok());
    const gguf::File file = gguf::File::Open(path.path()).value();
    const float threshold = ModelConfig::FromGguf(file).value().ffn_thresholds[0];
    const auto* gate = reinterpret_cast<const float*>(file.FindTensor("blk.0.ffn_gate.weight")->data.data());
    std::mt19937_64 random(5);
    std::normal_distribution<double> normal;
    constexpr int kTokens = 20;
    const int n_groups = shape.d_ff / shape.ffn_group;
    int n_active = 0;
    for (int t = 0; t < kTokens; ++t) {
      std::vector<double> x(shape.d_model);
      for (double& value : x) value = normal(random);
      for (int g = 0; g < n_groups; ++g) {
        double most = 0;
        for (int i = g * shape.ffn_group; i < (g + 1) * shape.ffn_group; ++i) {
          double z = 0;
          for (int k = 0; k < shape.d_model; ++k) z += x[k] * gate[i * shape.d_model + k];
          most = std::max(most, std::fabs(z / (1.0 + std::exp(-z))));
        }
        n_active += most >= threshold ? 1 : 0;
      }
    }
    // Five standard errors, were the groups of all tokens independent: 256 * 20 draws. The lengths of the directions
    // and of the tokens vary by a few per cent more, which 0.01 covers.
    const double share = static_cast<double>(n_active) / (n_groups * kTokens);
    EXPECT_NEAR(share, active, 5 * std::sqrt(active * (1 - active) / (n_groups * kTokens)) + 0.01);
  }
}

TEST(SynthTest, SparsityThatCannotBeIsRefused) {
  SynthShape shape = Shape("tiny-llama");
  TempFile path;
  for (const auto& [active, group] : {std::pair{0.7, 32}, {-0.1, 32}, {0.25, 48}, {0.25, 0}, {0.25, 96}}) {
    shape.ffn_active = active;
    shape.ffn_group = group;
    EXPECT_EQ(Synthesize(shape, DType::kQ8_0, path.path()).code(), absl::StatusCode::kInvalidArgument)
        << active << " " << group;
  }
}

TEST(SynthTest, WeightsHaveTheStatedSpread) {
  SynthShape shape = Shape("tiny-llama");
  shape.n_vocab = 20000;
  TempFile path;
  ASSERT_TRUE(Synthesize(shape, DType::kQ8_0, path.path()).ok());
  const gguf::File file = gguf::File::Open(path.path()).value();
  for (const char* name : {"token_embd.weight", "blk.1.ffn_down.weight"}) {
    const gguf::TensorInfo& tensor = *file.FindTensor(name);
    std::vector<float> values(tensor.elements());
    kernels::DequantizeRow(tensor.type, tensor.data.data(), values.data(), tensor.elements());
    double sum = 0, squares = 0;
    for (const float x : values) {
      sum += x;
      squares += double{x} * x;
    }
    const double n = static_cast<double>(values.size());
    const double deviation = 1.0 / std::sqrt(static_cast<double>(tensor.dims[0]));
    // Five standard errors of the mean and of the deviation; the pool's 65536 elements are what is random in the large
    // one.
    const double independent = std::min(n, 65536.0);
    EXPECT_NEAR(sum / n, 0.0, 5 * deviation / std::sqrt(independent)) << name;
    EXPECT_NEAR(std::sqrt(squares / n), deviation, 5 * deviation / std::sqrt(2 * independent)) << name;
  }
}

TEST(SynthTest, EveryTypeAndFamilyLoadsAndGenerates) {
  for (const char* name : {"tiny-llama", "tiny-qwen2", "tiny-qwen3", "tiny-exits"}) {
    for (int t = 0; t < kernels::kNumDTypes; ++t) {
      TempFile path;
      const absl::Status written = Synthesize(name, static_cast<DType>(t), path.path());
      if (!kernels::CanQuantize(static_cast<DType>(t))) {
        EXPECT_EQ(written.code(), absl::StatusCode::kInvalidArgument) << written;
        continue;
      }
      ASSERT_TRUE(written.ok()) << written;
      const auto model = Model::Load(path.path(), {.n_threads = 1});
      ASSERT_TRUE(model.ok()) << model.status();
      auto pool = KvPool::Create((*model)->config(), {.n_blocks = 2}).value();
      Generator generator(model->get(), pool.get(), {});
      ASSERT_TRUE(generator.Prefill(std::vector<int32_t>{1, 2, 3}).ok());
      EXPECT_TRUE(std::isfinite(generator.Next().value().evidence.entropy));
    }
  }
}

TEST(SynthTest, RowsThatBlocksDoNotDivideGetSmallerBlocks) {
  TempFile path;
  ASSERT_TRUE(Synthesize("tiny-llama", DType::kQ4_K, path.path()).ok());
  const gguf::File file = gguf::File::Open(path.path()).value();
  EXPECT_EQ(file.FindTensor("blk.0.attn_q.weight")->type, DType::kQ5_0);
  EXPECT_EQ(file.FindTensor("output.weight")->type, DType::kQ8_0);
}

TEST(SynthTest, RefusesShapesThatCannotBe) {
  TempFile path;
  EXPECT_EQ(Synthesize("no-such-shape", DType::kF16, path.path()).code(), absl::StatusCode::kNotFound);
  SynthShape shape = Shape("tiny-llama");
  shape.n_vocab = 299;
  EXPECT_EQ(Synthesize(shape, DType::kF16, path.path()).code(), absl::StatusCode::kInvalidArgument);
  shape = Shape("tiny-llama");
  shape.n_kv_head = 3;
  EXPECT_EQ(Synthesize(shape, DType::kF16, path.path()).code(), absl::StatusCode::kInvalidArgument);
}

TEST(SynthVocabularyTest, HasTheSizeAskedForWithoutDuplicates) {
  for (const int n : {kMinSynthVocabulary, 1000, 32000, 151936}) {
    const SynthVocabulary vocabulary = MakeSynthVocabulary(n);
    EXPECT_EQ(vocabulary.tokens.size(), static_cast<size_t>(n));
    EXPECT_EQ(vocabulary.types.size(), static_cast<size_t>(n));
    EXPECT_EQ(std::set<std::string>(vocabulary.tokens.begin(), vocabulary.tokens.end()).size(), static_cast<size_t>(n));
    EXPECT_EQ(vocabulary.tokens[vocabulary.eos_id], "<|im_end|>");
  }
}

#ifdef UPDRAFT_HAVE_TEXT
TEST(SynthVocabularyTest, TokenizesAndComesBack) {
  TempFile path;
  SynthShape shape = Shape("tiny-llama");
  shape.n_vocab = 2000;
  ASSERT_TRUE(Synthesize(shape, DType::kF32, path.path()).ok());
  const auto tokenizer = text::Tokenizer::FromGguf(gguf::File::Open(path.path()).value()).value();
  EXPECT_EQ(tokenizer->vocab_size(), 2000);
  const std::string text = "The rest is\n silence \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x9a\x97.";
  const auto ids = tokenizer->Encode(text).value();
  EXPECT_LT(ids.size(), text.size());  // some merges apply
  EXPECT_EQ(tokenizer->Decode(ids), text);
}
#endif

}  // namespace
}  // namespace updraft
