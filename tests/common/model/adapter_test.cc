// Adapters beside a model: the same as merged into its weights, whichever way rows run; and every file that is none.
#include "common/model/adapter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "common/decode/generator.h"
#include "common/files/sha256.h"
#include "deploy/evaluate/reference_forward.h"
#include "tests/common/model/test_adapters.h"

namespace updraft {
namespace {

using kernels::DType;
using testing::Edit;
using testing::EditFile;
using ::testing::HasSubstr;
using testing::HiddenOf;
using testing::LogitsOf;
using testing::RandomTokens;
using testing::Shape;
using testing::TempFile;

double RelativeError(const std::vector<float>& got, const std::vector<float>& want) {
  EXPECT_EQ(got.size(), want.size());
  double error = 0.0, norm = 0.0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += (double{got[i]} - want[i]) * (double{got[i]} - want[i]);
    norm += double{want[i]} * want[i];
  }
  return std::sqrt(error / norm);
}

struct Pair {
  std::unique_ptr<Model> adapted, merged, plain;
  std::unique_ptr<TempFile> merged_file = std::make_unique<TempFile>();
};

Pair MakePair(const SynthShape& shape, DType type, const SynthAdapterOptions& options) {
  Pair pair;
  const TempFile base, adapter;
  EXPECT_TRUE(Synthesize(shape, type, base.path(), {.n_threads = 1, .head_type = type}).ok());
  EXPECT_TRUE(SynthesizeAdapter(base.path(), adapter.path(), options).ok());
  EXPECT_TRUE(testing::MergeAdapter(base.path(), adapter.path(), pair.merged_file->path()).ok());
  pair.adapted = Model::Load(base.path(), {.n_threads = 1, .adapter = adapter.path()}).value();
  pair.merged = Model::Load(pair.merged_file->path(), {.n_threads = 1}).value();
  pair.plain = Model::Load(base.path(), {.n_threads = 1}).value();
  return pair;
}

// Strong enough that a wrong factor, a missing matrix or two that are swapped show.
SynthAdapterOptions Strong(int rank = 5) {
  return {.rank = rank, .type = DType::kF32, .alpha = 7.0, .strength = 0.5, .embedding = true, .output = true};
}

struct Case {
  std::string name;
  SynthShape shape;
};

std::vector<Case> Cases() {
  SynthShape tied = Shape("tiny-exits");
  tied.tied_output = true;
  SynthShape sparse = Shape("tiny-llama");
  sparse.ffn_active = 0.3;
  sparse.ffn_group = 32;
  return {{"llama", Shape("tiny-llama")}, {"qwen2", Shape("tiny-qwen2")}, {"qwen3", Shape("tiny-qwen3")},
          {"exits", Shape("tiny-exits")}, {"tied_exits", tied},           {"sparse", sparse}};
}

class AdapterTest : public ::testing::TestWithParam<Case> {};

// With f32 weights the two differ in the order of f32 sums alone: (W + B A) x has sums of up to 128 terms where W x + B
// (A x) has three of at most 128, errors of both grow like the square root of the number, so a product is within 2 *
// sqrt(128) * 2^-24 < 2^-19 of the other. Four products in series per layer, whose independent errors add in
// quadrature, a factor of 2 for what the softmax and SwiGLU amplify, and keys and values in half precision, of which
// errors of 2^-19 move one in 2^8 across a rounding boundary: 2^-11 / sqrt(2^8) = 2^-15.
double Tolerance(const ModelConfig& config) {
  return 2.0 * (std::sqrt(4.0 * config.n_layer + 1.0) * 0x1p-19 + 0x1p-15);
}

TEST_P(AdapterTest, SameAsMergedIntoTheWeights) {
  const Pair pair = MakePair(GetParam().shape, DType::kF32, Strong());
  const auto tokens = RandomTokens(40, pair.adapted->config().n_vocab, 3);
  const auto hidden = HiddenOf(*pair.adapted, tokens);
  const auto want = HiddenOf(*pair.merged, tokens);
  const double tolerance = Tolerance(pair.adapted->config());
  EXPECT_LE(RelativeError(hidden, want), tolerance);
  const int n_exits = static_cast<int>(pair.adapted->config().exit_layers.size());
  for (int exit = -1; exit < n_exits; ++exit) {
    EXPECT_LE(RelativeError(LogitsOf(*pair.adapted, want, exit), LogitsOf(*pair.merged, want, exit)), tolerance)
        << "exit " << exit;
  }
  EXPECT_GT(RelativeError(HiddenOf(*pair.plain, tokens), want), 0.1) << "the adapter changes too little to test";
}

TEST_P(AdapterTest, AtOnceInChunksAndTokenByTokenAreTheSameBits) {
  for (const DType type : {DType::kF32, DType::kQ4_1}) {
    const Pair pair = MakePair(GetParam().shape, type, Strong());
    const auto tokens = RandomTokens(40, pair.adapted->config().n_vocab, 4);
    const auto at_once = HiddenOf(*pair.adapted, tokens);
    EXPECT_EQ(HiddenOf(*pair.adapted, tokens, 7), at_once);
    EXPECT_EQ(HiddenOf(*pair.adapted, tokens, 1), at_once);
  }
}

// Rows of several sequences in one pass, as the engine runs them.
TEST_P(AdapterTest, SequencesTogetherAreTheSameBits) {
  const Pair pair = MakePair(GetParam().shape, DType::kQ8_0, Strong());
  const Model& model = *pair.adapted;
  const int d_model = model.config().d_model;
  constexpr int kSequences = 11, kSteps = 6;
  auto pool = KvPool::Create(model.config(), {.n_blocks = 64, .block_tokens = 4}).value();
  std::vector<SequenceKv> kvs;
  std::vector<std::vector<int32_t>> tokens;
  for (int s = 0; s < kSequences; ++s) {
    kvs.emplace_back(pool.get());
    ASSERT_TRUE(kvs.back().Reserve(kSteps).ok());
    tokens.push_back(RandomTokens(kSteps, model.config().n_vocab, 100 + s));
  }
  Scratch scratch;
  std::vector<std::vector<float>> states(kSequences);
  for (int step = 0; step < kSteps; ++step) {
    std::vector<int32_t> row_tokens, positions(kSequences, step);
    std::vector<const int32_t*> tables;
    for (int s = 0; s < kSequences; ++s) {
      row_tokens.push_back(tokens[s][step]);
      tables.push_back(kvs[s].blocks().data());
    }
    std::vector<float> hidden(kSequences * d_model);
    Forward(model, {.tokens = row_tokens, .positions = positions, .block_tables = tables},
            {.from = 0, .to = model.config().n_layer}, hidden, pool->store(), scratch);
    for (int s = 0; s < kSequences; ++s) {
      states[s].insert(states[s].end(), hidden.begin() + s * d_model, hidden.begin() + (s + 1) * d_model);
    }
  }
  for (int s = 0; s < kSequences; ++s) EXPECT_EQ(states[s], HiddenOf(model, tokens[s])) << "sequence " << s;
}

std::vector<int32_t> Generate(const Model& model, ExitMode mode, const std::vector<int32_t>& prompt) {
  auto pool = KvPool::Create(model.config(), {.n_blocks = 16}).value();
  Generator generator(&model, pool.get(), {.exit_mode = mode, .exit_thresholds = {}});
  EXPECT_TRUE(generator.Prefill(prompt).ok());
  std::vector<int32_t> tokens;
  for (int i = 0; i < 40; ++i) tokens.push_back(generator.Next().value().token);
  return tokens;
}

// Drafts of an exit, most of them wrong and taken back, are made and verified with the adapter.
TEST_P(AdapterTest, DraftsAndRollbackChooseTheSameTokens) {
  const Pair pair = MakePair(GetParam().shape, DType::kF32, Strong());
  for (const uint64_t seed : {1, 2, 3}) {
    const auto prompt = RandomTokens(9, pair.adapted->config().n_vocab, seed);
    const auto off = Generate(*pair.adapted, ExitMode::kOff, prompt);
    EXPECT_EQ(Generate(*pair.adapted, ExitMode::kLossless, prompt), off);
    EXPECT_EQ(Generate(*pair.merged, ExitMode::kOff, prompt), off) << "seed " << seed;
    EXPECT_EQ(Generate(*pair.adapted, ExitMode::kLossy, prompt), Generate(*pair.merged, ExitMode::kLossy, prompt));
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, AdapterTest, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

// Against double precision: what 8 bits of A, B and A x add to the error of arithmetic that the same weights have when
// the adapter is merged into them and they are quantized again.
TEST(AdapterPrecisionTest, BesideQuantizedWeightsTheErrorIsThatOfTheWeights) {
  for (const DType type : {DType::kQ8_0, DType::kQ4_1}) {
    const Pair pair = MakePair(Shape("tiny-llama"), type, Strong(16));
    const TempFile file;
    ASSERT_TRUE(EditFile(pair.merged->file().path(), file.path(), {.convert_matrices = type}).ok());
    const auto merged = Model::Load(file.path(), {.n_threads = 1}).value();
    const auto tokens = RandomTokens(40, pair.adapted->config().n_vocab, 5);
    const auto error = [&](const Model& model) {
      const std::vector<double> exact = ReferenceModel(model).Hidden(tokens, model.config().n_layer);
      return RelativeError(HiddenOf(model, tokens), std::vector<float>(exact.begin(), exact.end()));
    };
    const double whole = error(*merged), beside = error(*pair.adapted);
    std::printf("%s: error %.4f merged, %.4f beside\n", kernels::Info(type).name, whole, beside);
    // The addition is half as large as the product and passes three roundings more, each of about the same size as that
    // of the activations: sqrt(1 + 3 / 4).
    EXPECT_LE(beside, 1.4 * whole);
  }
}

TEST(AdapterFileTest, TypesOfItsTensors) {
  const TempFile base;
  ASSERT_TRUE(Synthesize(Shape("tiny-llama"), DType::kF32, base.path(), {.n_threads = 1}).ok());
  std::vector<float> states[3];
  const DType types[] = {DType::kF32, DType::kF16, DType::kBF16};
  for (int i = 0; i < 3; ++i) {
    const TempFile adapter;
    ASSERT_TRUE(SynthesizeAdapter(base.path(), adapter.path(), {.type = types[i]}).ok());
    const auto model = Model::Load(base.path(), {.n_threads = 1, .adapter = adapter.path()}).value();
    states[i] = HiddenOf(*model, RandomTokens(20, model->config().n_vocab, 6));
  }
  EXPECT_LE(RelativeError(states[1], states[0]), 0x1p-10);
  EXPECT_LE(RelativeError(states[2], states[0]), 0x1p-7);
}

// ---- Files that are no adapter for the base -----------------------------------------------------------------------

class AdapterRefusalTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(Synthesize(Shape("tiny-llama"), DType::kQ8_0, base_.path(), {.n_threads = 1}).ok());
    ASSERT_TRUE(SynthesizeAdapter(base_.path(), adapter_.path(), {.rank = 4, .type = DType::kF32}).ok());
  }

  absl::Status Load(const std::string& adapter) {
    return Model::Load(base_.path(), {.n_threads = 1, .adapter = adapter}).status();
  }
  absl::Status LoadEdited(const Edit& edit) {
    const TempFile edited;
    if (absl::Status status = EditFile(adapter_.path(), edited.path(), edit); !status.ok()) return status;
    return Load(edited.path());
  }
  void ExpectSays(const absl::Status& status, const std::string& text) {
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
  }

  const TempFile base_, adapter_;
};

TEST_F(AdapterRefusalTest, Kinds) {
  EXPECT_TRUE(Load(adapter_.path()).ok());
  ExpectSays(Load("/nonexistent/adapter.gguf"), "/nonexistent/adapter.gguf");
  ExpectSays(Load(base_.path()), "expected 'adapter', found 'model'; a whole model is given as --model");
  ExpectSays(Model::Load(adapter_.path(), {.n_threads = 1}).status(),
             "expected a whole model, found an adapter; give it as --adapter");
  ExpectSays(LoadEdited({.metadata = [](gguf::Writer& w) { w.SetString("general.architecture", "qwen2"); }}),
             "expected 'llama' as of the base, found 'qwen2'");
  ExpectSays(LoadEdited({.metadata = [](gguf::Writer& w) { w.SetString("adapter.type", "dora"); }}),
             "expected 'lora', found 'dora'");
  ExpectSays(
      LoadEdited({.metadata =
                      [](gguf::Writer& w) { w.SetF32("adapter.lora.alpha", std::numeric_limits<float>::infinity()); }}),
      "'adapter.lora.alpha': expected a number, found inf");
  const uint32_t token = 1;
  ExpectSays(
      LoadEdited(
          {.metadata = [&](gguf::Writer& w) { w.SetU32s("adapter.alora.invocation_tokens", std::span(&token, 1)); }}),
      "adapters that begin to work at certain tokens are not supported");
}

TEST_F(AdapterRefusalTest, Tensors) {
  const std::string q = "blk.1.attn_q.weight";
  ExpectSays(LoadEdited({.drop_tensors = {q + ".lora_a"}}), "tensor '" + q + ".lora_a': expected it beside its other");
  ExpectSays(LoadEdited({.drop_tensors = {q + ".lora_b"}}), "tensor '" + q + ".lora_b': expected it beside its other");
  ExpectSays(LoadEdited({.reshape = {{q + ".lora_a", {64, 3}}}}), ".lora_a': expected [64, 4], found [64, 3]");
  ExpectSays(LoadEdited({.reshape = {{q + ".lora_a", {32, 4}}}}), ".lora_a': expected [64, 4], found [32, 4]");
  ExpectSays(LoadEdited({.reshape = {{q + ".lora_a", {64, 4, 2}}}}), ".lora_a': expected [64, 4], found [64, 4, 2]");
  ExpectSays(LoadEdited({.reshape = {{q + ".lora_b", {4, 63}}}}), ".lora_b': expected [4, 64], found [4, 63]");
  ExpectSays(LoadEdited({.add_tensors = {"blk.9.attn_q.weight.lora_a", "blk.9.attn_q.weight.lora_b"}}),
             "'blk.9.attn_q.weight.lora_a': expected a matrix of that name in the base, found none");
  ExpectSays(LoadEdited({.add_tensors = {"blk.0.attn_norm.weight.lora_a", "blk.0.attn_norm.weight.lora_b"}}),
             "expected a matrix of that name in the base, found a tensor of another use");
  ExpectSays(LoadEdited({.add_tensors = {"blk.0.attn_norm.weight"}}), "'blk.0.attn_norm.weight' has no use in a lora");
  Edit none;
  const gguf::File file = gguf::File::Open(adapter_.path()).value();
  for (const gguf::TensorInfo& tensor : file.tensors()) none.drop_tensors.insert(tensor.name);
  ExpectSays(LoadEdited(none), "expected pairs of tensors, found none");
}

TEST_F(AdapterRefusalTest, NumbersThatAreNone) {
  const auto file = gguf::File::Open(adapter_.path()).value();
  const TempFile broken;
  auto writer = gguf::Writer::Create(broken.path()).value();
  writer.CopyMetadata(file);
  for (const auto& t : file.tensors()) writer.AddTensor(t.name, t.type, std::span(t.dims).first(t.n_dims));
  for (const auto& t : file.tensors()) {
    std::vector<std::byte> data(t.data.begin(), t.data.end());
    const float nan = std::nanf("");
    if (t.name == "blk.0.ffn_up.weight.lora_b") std::memcpy(data.data() + 4 * sizeof(nan), &nan, sizeof(nan));
    ASSERT_TRUE(writer.AppendTensorData(t.name, data).ok());
  }
  ASSERT_TRUE(writer.Finish().ok());
  ExpectSays(Load(broken.path()), "tensor 'blk.0.ffn_up.weight.lora_b': expected finite numbers, found nan in row 1");
}

TEST_F(AdapterRefusalTest, AnotherBase) {
  const auto hash = Sha256Hex(gguf::File::Open(base_.path())->parts().front().bytes);
  if (absl::IsUnimplemented(hash.status())) GTEST_SKIP() << "needs OpenSSL";
  const auto stating = [](std::string sha256) {
    return Edit{.metadata = [sha256](gguf::Writer& w) { w.SetString("updraft.adapter.base_sha256", sha256); }};
  };
  EXPECT_TRUE(LoadEdited(stating(*hash)).ok());
  const std::string other(64, 'a');
  const absl::Status status = LoadEdited(stating(other));
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  ExpectSays(status, other);
  ExpectSays(status, *hash);
}

TEST_F(AdapterRefusalTest, WhatTheAdapterBringsStandsInPlaceOfTheBases) {
  const TempFile edited;
  ASSERT_TRUE(EditFile(adapter_.path(), edited.path(),
                       {.metadata = [](gguf::Writer& w) { w.SetString("tokenizer.chat_template", "mine"); }})
                  .ok());
  const auto with = Model::Load(base_.path(), {.n_threads = 1, .adapter = edited.path()}).value();
  EXPECT_EQ(with->FileWith("tokenizer.chat_template").path(), edited.path());
  const auto without = Model::Load(base_.path(), {.n_threads = 1, .adapter = adapter_.path()}).value();
  EXPECT_EQ(without->FileWith("tokenizer.chat_template").path(), base_.path());
  EXPECT_EQ(without->confidence_file().path(), adapter_.path());
  EXPECT_EQ(without->adapter()->Describe(), "lora of rank 4 beside 14 matrices");
}

// alpha / rank multiplies what is added; without alpha nothing does.
TEST_F(AdapterRefusalTest, AlphaIsAFactor) {
  const auto file = gguf::File::Open(base_.path()).value();
  const ModelConfig config = ModelConfig::FromGguf(file).value();
  const auto b_with = [&](float alpha) {
    const TempFile edited;
    EXPECT_TRUE(EditFile(adapter_.path(), edited.path(),
                         {.metadata = [alpha](gguf::Writer& w) { w.SetF32("adapter.lora.alpha", alpha); }})
                    .ok());
    return Adapter::Open(edited.path(), file, config)->Pair("blk.0.attn_k.weight").value()->b;
  };
  const auto one = b_with(0.0f);
  const auto three = b_with(12.0f);
  ASSERT_EQ(one.size(), 4u * 32);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_FLOAT_EQ(three[i], 3.0f * one[i]);
}

TEST(SynthAdapterTest, RefusesWhatCannotBe) {
  const TempFile base, out;
  ASSERT_TRUE(Synthesize(Shape("tiny-llama"), DType::kQ8_0, base.path(), {.n_threads = 1}).ok());
  EXPECT_FALSE(SynthesizeAdapter(base.path(), out.path(), {.rank = 0}).ok());
  EXPECT_FALSE(SynthesizeAdapter("/nonexistent/model.gguf", out.path()).ok());
}

}  // namespace
}  // namespace updraft
