#include "common/model/forward.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "deploy/evaluate/reference_forward.h"
#include "kernels/cpu_affinity.h"
#include "tests/common/model/test_models.h"

namespace updraft {
namespace {

using kernels::DType;
using testing::HiddenOf;
using testing::LogitsOf;
using testing::MakeModel;
using testing::RandomTokens;
using testing::Shape;
using testing::TempFile;

// ||got - want|| / ||want|| over all rows.
double RelativeError(const std::vector<float>& got, const std::vector<double>& want) {
  EXPECT_EQ(got.size(), want.size());
  double error = 0;
  double norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  return std::sqrt(error / norm);
}

// What a quantized matmul may add to the relative error of its result. With f32, f16 and bf16 weights activations stay
// f32 or are rounded to the weights' own precision. Other types quantize the activations to int8 in blocks of at least
// 32 by the block's largest magnitude: a normal block's is about 2.5 deviations (3 in blocks of 256), so a step is 3 /
// 127 deviations and the rounding error, uniform in a step, 3 / 127 / sqrt(12) = 0.7 % of the signal.
double MatMulError(DType type) {
  switch (type) {
    case DType::kF32:
      return 0x1p-20;  // a sum of up to 256 terms in f32, whose errors grow like the square root of their number
    case DType::kF16:
      return 0x1p-11;
    case DType::kBF16:
      return 0x1p-8;
    default:
      return 0.007;
  }
}

// Each layer has four matmuls in series on top of the previous layer's error, and the head a fifth kind; independent
// errors add in quadrature, and a factor of 2 covers what the softmax and SwiGLU amplify. The reference rounds K and V
// to half precision as well, so only values that an error of arithmetic carries across a rounding boundary differ, by
// 2^-11 each: with errors of 2^-20 one value in 2^9 at most, which is 2^-11 / sqrt(2^9) < 2^-15 of the norm.
double Tolerance(const ModelConfig& config, DType type) {
  return 2.0 * (std::sqrt(4.0 * config.n_layer + 1.0) * MatMulError(type) + (type == DType::kF32 ? 0x1p-15 : 0x1p-11));
}

struct Case {
  std::string name;
  SynthShape shape;
  DType type;
};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  const auto add = [&](const std::string& name, SynthShape shape, DType type = DType::kF32) {
    cases.push_back({name, std::move(shape), type});
  };
  add("llama", Shape("tiny-llama"));
  add("qwen2", Shape("tiny-qwen2"));
  add("qwen3", Shape("tiny-qwen3"));
  SynthShape shape = Shape("tiny-llama");
  shape.n_kv_head = 1;
  add("multi_query", shape);
  shape.n_kv_head = shape.n_head;
  add("multi_head", shape);
  shape = Shape("tiny-llama");
  shape.tied_output = true;
  add("tied", shape);
  shape = Shape("tiny-llama");
  shape.sliding_window = 7;
  add("window", shape);
  shape = Shape("tiny-llama");
  shape.rope_freqs = true;
  shape.rope_freq_base = 500000.0f;
  add("rope_freqs", shape);
  shape = Shape("tiny-llama");
  shape.rope_scaling = "linear";
  shape.rope_scaling_factor = 4.0f;
  add("rope_linear", shape);
  shape.rope_scaling = "yarn";
  add("rope_yarn", shape);
  shape = Shape("tiny-qwen2");
  shape.rope_scaling = "yarn";
  shape.rope_scaling_factor = 4.0f;
  add("rope_yarn_neox", shape);
  shape = Shape("tiny-llama");
  shape.d_ff = 512;
  shape.ffn_active = 0.25;
  shape.ffn_group = 32;
  add("sparse", shape);
  shape = Shape("tiny-llama");
  shape.d_model = 36;  // no width is a multiple of a vector
  shape.head_dim = 10;
  shape.n_head = 3;
  shape.n_kv_head = 3;
  shape.d_ff = 44;
  shape.n_vocab = 307;
  add("odd_widths", shape);
  for (const DType type :
       {DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1}) {
    add(std::string("llama_") + kernels::Info(type).name, Shape("tiny-llama"), type);
  }
  shape = Shape("tiny-llama");
  shape.d_model = 256;
  shape.head_dim = 64;
  shape.d_ff = 512;
  for (const DType type : {DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    add(std::string("wide_") + kernels::Info(type).name, shape, type);
  }
  return cases;
}

class ForwardTest : public ::testing::TestWithParam<Case> {};

TEST_P(ForwardTest, MatchesTheDoublePrecisionReference) {
  const auto model = MakeModel(GetParam().shape, GetParam().type, 11);
  ASSERT_NE(model, nullptr);
  const auto tokens = RandomTokens(23, model->config().n_vocab, 12);
  const ReferenceModel reference(*model, {.half_precision_kv = true});
  const std::vector<double> want_hidden = reference.Hidden(tokens, model->config().n_layer);
  const std::vector<float> hidden = HiddenOf(*model, tokens);
  const double tolerance = Tolerance(model->config(), GetParam().type);
  const double hidden_error = RelativeError(hidden, want_hidden);
  const double logits_error = RelativeError(LogitsOf(*model, hidden), reference.Logits(want_hidden));
  std::printf("%s: relative error hidden %.2e, logits %.2e, %.0f %% of the bound\n", GetParam().name.c_str(),
              hidden_error, logits_error, 100 * std::max(hidden_error, logits_error) / tolerance);
  EXPECT_LE(hidden_error, tolerance);
  EXPECT_LE(logits_error, tolerance);
}

TEST_P(ForwardTest, ChunksAndSingleTokensGiveTheSameBits) {
  const auto model = MakeModel(GetParam().shape, GetParam().type, 21);
  const auto tokens = RandomTokens(37, model->config().n_vocab, 22);
  const std::vector<float> whole = HiddenOf(*model, tokens);
  for (const int chunk : {1, 2, 5, 16}) {
    EXPECT_EQ(HiddenOf(*model, tokens, chunk), whole) << "chunks of " << chunk;
  }
  // The head too: a row alone and among others.
  const std::vector<float> logits = LogitsOf(*model, whole);
  const int d_model = model->config().d_model;
  const int n_vocab = model->config().n_vocab;
  for (const int row : {0, 17, 36}) {
    const std::vector<float> alone =
        LogitsOf(*model, {whole.begin() + row * d_model, whole.begin() + (row + 1) * d_model});
    EXPECT_EQ(std::memcmp(alone.data(), logits.data() + row * n_vocab, n_vocab * sizeof(float)), 0) << "row " << row;
  }
}

TEST_P(ForwardTest, RowsThatAreNotWantedLeaveTheOthersAsTheyAre) {
  const auto model = MakeModel(GetParam().shape, GetParam().type, 61);
  const ModelConfig& config = model->config();
  const int n_tok = 12;
  const auto tokens = RandomTokens(n_tok + 1, config.n_vocab, 62);
  const std::vector<float> whole = HiddenOf(*model, tokens);
  for (const std::vector<int32_t>& wanted : {std::vector<int32_t>{}, {n_tok - 1}, {0, 3, 4, 11}}) {
    auto pool = KvPool::Create(config, {.n_blocks = 4, .block_tokens = 4}).value();
    SequenceKv kv(pool.get());
    ASSERT_TRUE(kv.Reserve(n_tok + 1).ok());
    std::vector<int32_t> positions(n_tok + 1);
    std::iota(positions.begin(), positions.end(), 0);
    const std::vector<const int32_t*> tables(n_tok + 1, kv.blocks().data());
    Scratch scratch;
    std::vector<float> hidden((n_tok + 1) * config.d_model);
    const auto run = [&](size_t first, size_t n, std::optional<std::span<const int32_t>> rows) {
      Forward(*model,
              {.tokens = std::span<const int32_t>(tokens).subspan(first, n),
               .positions = std::span<const int32_t>(positions).subspan(first, n),
               .block_tables = std::span<const int32_t* const>(tables).subspan(first, n),
               .wanted = rows},
              {.from = 0, .to = config.n_layer}, std::span<float>(hidden).subspan(first * config.d_model),
              pool->store(), scratch);
    };
    const auto same = [&](int row) {
      return std::equal(hidden.begin() + row * config.d_model, hidden.begin() + (row + 1) * config.d_model,
                        whole.begin() + row * config.d_model);
    };
    run(0, n_tok, wanted);
    for (const int32_t row : wanted) EXPECT_TRUE(same(row)) << "row " << row << " of " << wanted.size();
    run(n_tok, 1, std::nullopt);  // reads the keys and values of all
    EXPECT_TRUE(same(n_tok)) << wanted.size() << " wanted";
  }
}

TEST_P(ForwardTest, ThreadsDoNotChangeTheBits) {
  const auto one = MakeModel(GetParam().shape, GetParam().type, 31, 1);
  const auto two = MakeModel(GetParam().shape, GetParam().type, 31, 2);
  const auto tokens = RandomTokens(19, one->config().n_vocab, 32);
  const std::vector<float> hidden = HiddenOf(*one, tokens);
  EXPECT_EQ(HiddenOf(*two, tokens), hidden);
  EXPECT_EQ(LogitsOf(*two, hidden), LogitsOf(*one, hidden));
}

// Loading leaves its caller's thread alone, running does not; neither changes the bits.
TEST(ForwardPinnedTest, ConfinesWhoRunsTheModelAndNotWhoLoadsIt) {
  TempFile file;
  ASSERT_TRUE(Synthesize(Shape("tiny-llama"), DType::kQ8_0, file.path(), {.seed = 33, .n_threads = 1}).ok());
  const auto load = [&](bool pin) { return *Model::Load(file.path(), {.n_threads = 2, .pin_threads = pin}); };
  const auto free = load(false);
  const auto tokens = RandomTokens(19, free->config().n_vocab, 34);
  const std::vector<float> hidden = HiddenOf(*free, tokens);
  std::thread([&] {
    const std::vector<int> allowed = kernels::AllowedCpus();
    const auto pinned = load(true);
    EXPECT_NE(pinned->ops().name().find(", pinned"), std::string::npos) << pinned->ops().name();
    EXPECT_FALSE(kernels::ThisThreadIsPinned());
    EXPECT_EQ(kernels::AllowedCpus(), allowed);
    EXPECT_EQ(HiddenOf(*pinned, tokens), hidden);
    EXPECT_TRUE(kernels::ThisThreadIsPinned());
  }).join();
}

INSTANTIATE_TEST_SUITE_P(Models, ForwardTest, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

// Whether a token skips neurons or masks them is a matter of the batch and of the machine; the bits are not.
TEST(ForwardSparsityTest, TiledModelsGiveTheSameBitsInAnyBatch) {
  SynthShape shape = Shape("tiny-llama");
  shape.d_ff = 1024;
  shape.ffn_active = 0.25;
  for (const DType type : {DType::kQ4_0, DType::kQ8_0}) {
    const auto model = MakeModel(shape, type, 26, 2);
    ASSERT_EQ(model->sparsity().points.size(), 7u);
    EXPECT_NE(model->DescribeSparsity().find("groups of 64 neurons; 12 % active: "), std::string::npos)
        << model->DescribeSparsity();
    const auto tokens = RandomTokens(29, model->config().n_vocab, 27);
    const std::vector<float> whole = HiddenOf(*model, tokens);
    for (const int chunk : {1, 3}) EXPECT_EQ(HiddenOf(*model, tokens, chunk), whole) << "chunks of " << chunk;
  }
}

// Keys and values of fewer bits: the same bits in any batch, and an error in proportion to the step.
TEST(ForwardKvTypeTest, QuantizedKeysAndValues) {
  for (const char* name : {"tiny-llama", "tiny-qwen3"}) {
    const auto model = MakeModel(Shape(name), DType::kF32, 28, 2);
    const auto tokens = RandomTokens(41, model->config().n_vocab, 29);
    const std::vector<float> exact = HiddenOf(*model, tokens);
    const std::vector<double> want(exact.begin(), exact.end());
    double previous = 0;
    // A step is a 127th or an 8th of the largest of 16 to 32 numbers, about 2 deviations: rounding leaves 2 / 127 /
    // sqrt(12) = 0.45 % or 7.2 % of keys and of values. They add up as the errors of Tolerance do.
    for (const auto& [type, rounding] : {std::pair{kernels::KvType::kI8, 0.0045}, {kernels::KvType::kI4, 0.072}}) {
      const double bound = 2.0 * std::sqrt(2.0 * model->config().n_layer) * rounding;
      const std::vector<float> whole = HiddenOf(*model, tokens, 1 << 20, type);
      const double error = RelativeError(whole, want);
      std::printf("%s %s: relative error %.2e\n", name, kernels::KvTypeName(type), error);
      EXPECT_LE(error, bound);
      EXPECT_GT(error, previous);
      previous = error;
      for (const int chunk : {1, 5}) EXPECT_EQ(HiddenOf(*model, tokens, chunk, type), whole) << "chunks of " << chunk;
    }
  }
}

// One step of several sequences of different lengths, some reading prompts and some decoding, interleaved at random in
// time.
TEST(ForwardBatchTest, RaggedBatchesGiveEachSequenceWhatItGetsAlone) {
  const auto model = MakeModel(Shape("tiny-qwen3"), DType::kQ8_0, 41, 2);
  const ModelConfig& config = model->config();
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);

  constexpr int kSequences = 5;
  auto pool = KvPool::Create(config, {.n_blocks = 64, .block_tokens = 4}).value();
  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::vector<float>> hidden(kSequences);
  std::vector<SequenceKv> kv;
  for (int s = 0; s < kSequences; ++s) {
    tokens.push_back(RandomTokens(9 + 7 * s, config.n_vocab, random()));
    kv.emplace_back(pool.get());
  }
  Scratch scratch;
  for (bool more = true; more;) {
    more = false;
    std::vector<int32_t> step_tokens, positions, owners;
    for (int s = 0; s < kSequences; ++s) {
      const int done = static_cast<int>(hidden[s].size()) / config.d_model;
      const int left = static_cast<int>(tokens[s].size()) - done;
      const int n = std::min<int>(left, static_cast<int>(random() % 6));
      more |= left > n;
      ASSERT_TRUE(kv[s].Reserve(done + n).ok());
      for (int t = 0; t < n; ++t) {
        step_tokens.push_back(tokens[s][done + t]);
        positions.push_back(done + t);
        owners.push_back(s);
      }
    }
    if (step_tokens.empty()) continue;
    std::vector<const int32_t*> tables;
    for (const int32_t owner : owners) tables.push_back(kv[owner].blocks().data());
    std::vector<float> rows(step_tokens.size() * config.d_model);
    Forward(*model, {.tokens = step_tokens, .positions = positions, .block_tables = tables},
            {.from = 0, .to = config.n_layer}, rows, pool->store(), scratch);
    for (size_t t = 0; t < owners.size(); ++t) {
      hidden[owners[t]].insert(hidden[owners[t]].end(), rows.begin() + t * config.d_model,
                               rows.begin() + (t + 1) * config.d_model);
    }
  }
  for (int s = 0; s < kSequences; ++s) EXPECT_EQ(hidden[s], HiddenOf(*model, tokens[s])) << "sequence " << s;
}

TEST(ForwardRangeTest, LayersInRangesGiveTheSameBitsAsAllAtOnce) {
  const auto model = MakeModel(Shape("tiny-exits"), DType::kQ4_0, 51);
  const ModelConfig& config = model->config();
  const auto tokens = RandomTokens(13, config.n_vocab, 52);
  const std::vector<float> whole = HiddenOf(*model, tokens);

  auto pool = KvPool::Create(config, {.n_blocks = 4, .block_tokens = 4}).value();
  SequenceKv kv(pool.get());
  ASSERT_TRUE(kv.Reserve(13).ok());
  std::vector<int32_t> positions(13);
  std::iota(positions.begin(), positions.end(), 0);
  const std::vector<const int32_t*> tables(13, kv.blocks().data());
  const Batch batch = {.tokens = tokens, .positions = positions, .block_tables = tables};
  std::vector<float> hidden(13 * config.d_model);
  Scratch scratch;
  for (const auto& [from, to] : {std::pair{0, 2}, {2, 3}, {3, 6}}) {
    Forward(*model, batch, {.from = from, .to = to}, hidden, pool->store(), scratch);
  }
  EXPECT_EQ(hidden, whole);
}

TEST(ForwardForkTest, AForkContinuesAsItsOwnSequenceAndLeavesTheOriginalAlone) {
  const auto model = MakeModel(Shape("tiny-llama"), DType::kF16, 61);
  const ModelConfig& config = model->config();
  const auto prefix = RandomTokens(10, config.n_vocab, 62);  // ends inside a block of 4
  const auto tail_a = RandomTokens(6, config.n_vocab, 63);
  const auto tail_b = RandomTokens(6, config.n_vocab, 64);

  auto pool = KvPool::Create(config, {.n_blocks = 16, .block_tokens = 4}).value();
  SequenceKv a(pool.get());
  testing::RunSequence(*model, prefix, 100, *pool, a);
  SequenceKv b = a.Fork();
  const auto extend = [&](SequenceKv& kv, const std::vector<int32_t>& tail) {
    EXPECT_TRUE(kv.Reserve(16).ok());
    std::vector<int32_t> positions(tail.size());
    std::iota(positions.begin(), positions.end(), 10);
    const std::vector<const int32_t*> tables(tail.size(), kv.blocks().data());
    std::vector<float> hidden(tail.size() * config.d_model);
    Scratch scratch;
    Forward(*model, {.tokens = tail, .positions = positions, .block_tables = tables}, {.from = 0, .to = config.n_layer},
            hidden, pool->store(), scratch);
    return hidden;
  };
  const auto want = [&](const std::vector<int32_t>& tail) {
    std::vector<int32_t> whole = prefix;
    whole.insert(whole.end(), tail.begin(), tail.end());
    const std::vector<float> hidden = HiddenOf(*model, whole);
    return std::vector<float>(hidden.begin() + 10 * config.d_model, hidden.end());
  };
  EXPECT_EQ(extend(b, tail_b), want(tail_b));
  EXPECT_EQ(extend(a, tail_a), want(tail_a));
  EXPECT_EQ(a.blocks()[0], b.blocks()[0]);
  EXPECT_NE(a.blocks()[2], b.blocks()[2]);
}

TEST(ForwardExitTest, ExitHeadsMatchTheReference) {
  const auto model = MakeModel(Shape("tiny-exits"), DType::kF32, 71);
  const ModelConfig& config = model->config();
  ASSERT_EQ(config.exit_layers, (std::vector<int>{2, 4}));
  const auto tokens = RandomTokens(8, config.n_vocab, 72);
  const ReferenceModel reference(*model, {.half_precision_kv = true});
  for (int exit = 0; exit < 2; ++exit) {
    const std::vector<double> want_hidden = reference.Hidden(tokens, config.exit_layers[exit]);
    const std::vector<float> hidden(want_hidden.begin(), want_hidden.end());
    EXPECT_LE(RelativeError(LogitsOf(*model, hidden, exit), reference.Logits(want_hidden, exit)), 0x1p-19);
  }
}

}  // namespace
}  // namespace updraft
