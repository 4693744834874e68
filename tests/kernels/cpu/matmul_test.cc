// Matrix products: every type, instruction set and odd shape against the double-precision reference with a derived
// bound, and bit for bit against the portable body, other batch sizes and other thread counts.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/tile_matmul/tile_format.h"
#include "tests/kernels/cpu/test_util.h"

namespace updraft::kernels {
namespace {

struct Shape {
  int64_t n_out;
  int64_t n_in;
};

// Outputs below, at and off the tile of 16 and the pair of tiles; inputs of one block only, and several.
std::vector<Shape> ShapesOf(DType type) {
  const int block = Info(type).block_elems;
  if (block == 1) return {{1, 1}, {3, 7}, {4, 16}, {5, 172}, {37, 288}};
  return {{1, block}, {15, block}, {16, 2 * block}, {17, 3 * block}, {33, block}, {70, 5 * block}};
}

std::vector<float> MatMul(Ops& ops, DType type, Shape shape, const std::vector<std::byte>& w, const float* x,
                          int n_tok) {
  const auto packed = ops.Pack(type, shape.n_out, shape.n_in, w.data());
  std::vector<float> y(n_tok * shape.n_out, -1.0f);
  const MatMulTarget target{packed.get(), y.data()};
  ops.MatMul({&target, 1}, {x}, n_tok);
  return y;
}

class MatMulTest : public ::testing::TestWithParam<DType> {};

// What may differ from the exact product of the dequantized weights.
//
// Tiled types: an activation moves by at most half a step of its span, max|x| / 254 (1 + 2^-20 for the rounding of the
// step itself), so a span contributes at most max|x| / 254 * sum|w|. Each block of 32 then costs at most 4 roundings
// of terms no larger than 3 max|w| sum|x| (scale times code and minimum each stay below 2 max|w|), a running sum one
// rounding per term and, in spans of several blocks, one per span. Float types: n_in / 16 fused steps and 4 + 2
// additions, of terms bounded by |w||x|; beside BF16 weights activations have eight significant bits.
double ErrorBound(DType type, const float* w, const float* x, int64_t n_in) {
  constexpr double kUnit = 0x1p-24;
  double quantization = 0;
  double magnitude = 0;
  if (!IsTiled(type)) {
    for (int64_t i = 0; i < n_in; ++i) magnitude += std::fabs(static_cast<double>(w[i]) * x[i]);
    const double activation = type == DType::kBF16 ? 0x1p-8 : 0.0;
    return ((static_cast<double>(n_in) / 16 + 7) * kUnit + activation) * magnitude;
  }
  const int span = 32 * TileFormatOf(TileKindOf(type)).span_blocks();
  double max_x = 0;
  for (int64_t b = 0; b < n_in; b += 32) {
    if (b % span == 0) {
      max_x = 0;
      for (int64_t i = b; i < b + span; ++i) max_x = std::max<double>(max_x, std::fabs(x[i]));
    }
    double max_w = 0, sum_x = 0, sum_w = 0;
    for (int64_t i = b; i < b + 32; ++i) {
      max_w = std::max<double>(max_w, std::fabs(w[i]));
      sum_x += std::fabs(x[i]);
      sum_w += std::fabs(w[i]);
    }
    quantization += max_x / 254 * (1 + 0x1p-20) * sum_w;
    magnitude += 3 * max_w * sum_x;
  }
  return quantization + (5 + 2 * static_cast<double>(n_in) / 32) * kUnit * magnitude;
}

TEST_P(MatMulTest, WithinBoundOfTheReferenceAndSameBitsOnEveryInstructionSet) {
  const DType type = GetParam();
  double worst = 0;
  for (const Shape shape : ShapesOf(type)) {
    const uint64_t seed = 1000 * shape.n_out + shape.n_in;
    SCOPED_TRACE("n_out " + std::to_string(shape.n_out) + " n_in " + std::to_string(shape.n_in) + " seed " +
                 std::to_string(seed));
    const auto w = EncodedWeights(type, shape.n_out, shape.n_in, seed);
    const auto decoded = DecodedWeights(type, shape.n_out, shape.n_in, w);
    for (const int n_tok : {1, 2, 3, 5, 8, 17}) {
      SCOPED_TRACE("n_tok " + std::to_string(n_tok));
      const auto x = Gaussian(n_tok * shape.n_in, seed + 1);
      const auto exact = MatMul(*MakeCpuOpsFor(Isa::kReference, 1), type, shape, w, x.data(), n_tok);
      const auto portable = MatMul(*MakeCpuOpsFor(Isa::kPortable, 1), type, shape, w, x.data(), n_tok);
      for (int t = 0; t < n_tok; ++t) {
        for (int64_t out = 0; out < shape.n_out; ++out) {
          const double bound = ErrorBound(type, &decoded[out * shape.n_in], &x[t * shape.n_in], shape.n_in);
          const double error = std::fabs(double{portable[t * shape.n_out + out]} - exact[t * shape.n_out + out]) -
                               std::fabs(exact[t * shape.n_out + out]) * 0x1p-24;  // the reference's own rounding
          ASSERT_LE(error, bound) << "token " << t << " output " << out;
          if (bound > 0) worst = std::max(worst, error / bound);
        }
      }
      for (const Isa isa : VectorIsas()) {
        EXPECT_TRUE(SameBits(MatMul(*MakeCpuOpsFor(isa, 1), type, shape, w, x.data(), n_tok), portable))
            << IsaName(isa);
      }
    }
  }
  RecordProperty("percent_of_bound_used", static_cast<int>(100 * worst));
  EXPECT_GT(worst, 0.001) << "the bound is too slack to test anything";
}

TEST_P(MatMulTest, RowsDoNotDependOnBatchNorThreads) {
  const DType type = GetParam();
  const Shape shape{150, Info(type).block_elems == 1 ? 500 : 4 * Info(type).block_elems};
  const int n_tok = 23;
  const auto w = EncodedWeights(type, shape.n_out, shape.n_in, 7);
  const auto x = Gaussian(n_tok * shape.n_in, 8);
  for (const Isa isa : VectorIsas()) {
    SCOPED_TRACE(IsaName(isa));
    std::vector<float> one_by_one;
    const auto single = MakeCpuOpsFor(isa, 1);
    for (int t = 0; t < n_tok; ++t) {
      const auto row = MatMul(*single, type, shape, w, x.data() + t * shape.n_in, 1);
      one_by_one.insert(one_by_one.end(), row.begin(), row.end());
    }
    for (const int threads : {1, 2, 3, 7}) {
      EXPECT_TRUE(SameBits(MatMul(*MakeCpuOpsFor(isa, threads), type, shape, w, x.data(), n_tok), one_by_one))
          << threads << " threads";
    }
  }
}

// Each way in which the kernels group tokens, more groups than they ask memory ahead for, more than they expand tiles
// for at once, and inputs that fill no stretch of expanded blocks.
TEST_P(MatMulTest, AnyNumberOfTokens) {
  const DType type = GetParam();
  const int block = Info(type).block_elems;
  const Shape shape{40, block == 1 ? 80 : block == 256 ? 512 : 11 * block};
  constexpr int kMost = 200;
  const auto w = EncodedWeights(type, shape.n_out, shape.n_in, 11);
  const auto x = Gaussian(kMost * shape.n_in, 12);
  for (const Isa isa : VectorIsas()) {
    SCOPED_TRACE(IsaName(isa));
    const auto ops = MakeCpuOpsFor(isa, 1);
    std::vector<float> one_by_one;
    for (int t = 0; t < kMost; ++t) {
      const auto row = MatMul(*ops, type, shape, w, x.data() + t * shape.n_in, 1);
      one_by_one.insert(one_by_one.end(), row.begin(), row.end());
    }
    for (int n_tok = 2; n_tok <= kMost; n_tok += n_tok < 20 ? 1 : 60) {
      const std::vector<float> expected(one_by_one.begin(), one_by_one.begin() + n_tok * shape.n_out);
      EXPECT_TRUE(SameBits(MatMul(*ops, type, shape, w, x.data(), n_tok), expected)) << n_tok << " tokens";
    }
  }
}

// More tokens than a thread takes at once, inputs of several stretches of expanded blocks, and what is done to results
// on their way out.
TEST_P(MatMulTest, BlocksOfTokensWithBiasAccumulateStrideAndNan) {
  const DType type = GetParam();
  const Shape shape{20, 1024};
  constexpr int kTokens = 560;
  constexpr int kStride = 24;
  const auto w = EncodedWeights(type, shape.n_out, shape.n_in, 13);
  auto x = Gaussian(kTokens * shape.n_in, 14);
  x[5 * shape.n_in + 700] = std::numeric_limits<float>::quiet_NaN();
  x[301 * shape.n_in + 3] = std::numeric_limits<float>::infinity();
  const auto bias = Gaussian(shape.n_out, 15);
  const auto before = Gaussian(kTokens * kStride, 16);
  for (const Isa isa : VectorIsas()) {
    if (isa == Isa::kPortable) continue;  // the same body, slowly
    for (const int threads : {1, 3}) {
      SCOPED_TRACE(std::string(IsaName(isa)) + ", " + std::to_string(threads) + " threads");
      const auto ops = MakeCpuOpsFor(isa, threads);
      const auto packed = ops->Pack(type, shape.n_out, shape.n_in, w.data());
      auto y = before;
      const MatMulTarget target{packed.get(), y.data(), kStride, bias.data(), /*accumulate=*/true};
      ops->MatMul({&target, 1}, {x.data()}, kTokens);
      for (int t = 0; t < kTokens; t += t < 8 ? 1 : 29) {
        auto expected = std::vector<float>(before.begin() + t * kStride, before.begin() + (t + 1) * kStride);
        const MatMulTarget alone{packed.get(), expected.data(), kStride, bias.data(), /*accumulate=*/true};
        ops->MatMul({&alone, 1}, {x.data() + t * shape.n_in}, 1);
        const std::vector<float> got(y.begin() + t * kStride, y.begin() + (t + 1) * kStride);
        ASSERT_TRUE(SameBits(got, expected)) << "token " << t;
      }
      for (const int t : {5, 301}) {
        for (int out = 0; out < shape.n_out; ++out) ASSERT_FALSE(std::isfinite(y[t * kStride + out])) << "token " << t;
      }
    }
  }
}

TEST_P(MatMulTest, NanAndInfinityStayInTheirRow) {
  const DType type = GetParam();
  const Shape shape{40, Info(type).block_elems == 1 ? 64 : 2 * Info(type).block_elems};
  const int n_tok = 9;
  const auto w = EncodedWeights(type, shape.n_out, shape.n_in, 17);
  const auto clean = Gaussian(n_tok * shape.n_in, 18);
  auto x = clean;
  x[2 * shape.n_in + 5] = std::numeric_limits<float>::quiet_NaN();
  x[6 * shape.n_in + 1] = std::numeric_limits<float>::infinity();
  for (const Isa isa : VectorIsas()) {
    SCOPED_TRACE(IsaName(isa));
    const auto ops = MakeCpuOpsFor(isa, 2);
    const auto expected = MatMul(*ops, type, shape, w, clean.data(), n_tok);
    const auto y = MatMul(*ops, type, shape, w, x.data(), n_tok);
    for (int t = 0; t < n_tok; ++t) {
      for (int64_t out = 0; out < shape.n_out; ++out) {
        if (t == 2 || t == 6) {
          EXPECT_FALSE(std::isfinite(y[t * shape.n_out + out])) << "token " << t << " output " << out;
        } else {
          EXPECT_EQ(y[t * shape.n_out + out], expected[t * shape.n_out + out]) << "token " << t << " output " << out;
        }
      }
    }
  }
}

TEST_P(MatMulTest, TypicalErrorOfGaussianDataIsSmall) {
  const DType type = GetParam();
  const Shape shape{64, 2048};
  const auto w = EncodedWeights(type, shape.n_out, shape.n_in, 27);
  const auto x = Gaussian(shape.n_in, 28);
  const auto exact = MatMul(*MakeCpuOpsFor(Isa::kReference, 1), type, shape, w, x.data(), 1);
  const auto y = MatMul(*MakeCpuOps({}), type, shape, w, x.data(), 1);
  double error = 0;
  double norm = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    error += (double{y[i]} - exact[i]) * (double{y[i]} - exact[i]);
    norm += double{exact[i]} * exact[i];
  }
  // Rounding to steps of max|x| / 127 (about 2.1 sigma / 127 for 32 normal values, 2.6 for 128) leaves a uniform error
  // of step / sqrt(12), 0.5 or 0.6 % of sigma; the product keeps that ratio.
  EXPECT_LT(std::sqrt(error / norm), IsTiled(type) ? 0.01 : type == DType::kBF16 ? 2e-3 : 1e-6);
}

INSTANTIATE_TEST_SUITE_P(Types, MatMulTest, ::testing::ValuesIn(AllTypes()),
                         [](const auto& info) { return std::string(Info(info.param).name); });

// Types that leave out elements, with their zeros and without: the same bits in every way in which rows are grouped.
TEST(MatMulLayoutTest, WithoutZerosIsTheSameBits) {
  const Shape shape{40, 11 * 32};
  constexpr int kMost = 200;
  const auto x = Gaussian(kMost * shape.n_in, 91);
  for (const DType type : {DType::kQ8_2of4, DType::kQ8_16of32}) {
    SCOPED_TRACE(Info(type).name);
    const auto w = EncodedWeights(type, shape.n_out, shape.n_in, 92);
    const auto whole =
        MatMul(*MakeCpuOpsFor(Isa::kPortable, 1, {.layouts = LayoutRule::kWhole}), type, shape, w, x.data(), kMost);
    for (const Isa isa : VectorIsas()) {
      SCOPED_TRACE(IsaName(isa));
      const auto ops = MakeCpuOpsFor(isa, 2, {.layouts = LayoutRule::kKept});
      for (const int n_tok : {1, 2, 3, 5, 8, 9, 17, 40, 100, kMost}) {
        const std::vector<float> expected(whole.begin(), whole.begin() + n_tok * shape.n_out);
        EXPECT_TRUE(SameBits(MatMul(*ops, type, shape, w, x.data(), n_tok), expected)) << n_tok << " tokens";
      }
    }
    const auto ops = MakeCpuOpsFor(Isa::kPortable, 1, {.layouts = LayoutRule::kKept});
    const auto kept = ops->Pack(type, shape.n_out, shape.n_in, w.data());
    const auto with_zeros = MakeCpuOpsFor(Isa::kPortable, 1, {.layouts = LayoutRule::kWhole});
    EXPECT_LT(kept->packed_bytes() * 3, 2 * with_zeros->Pack(type, shape.n_out, shape.n_in, w.data())->packed_bytes());
  }
}

// What is measured is one of the two, once per type and shape, and says so.
TEST(MatMulLayoutTest, TheChoiceIsMeasuredOncePerShape) {
  const auto ops = MakeCpuOps({});
  EXPECT_TRUE(ops->layout_choices().empty());
  for (const int64_t n_out : {64, 96, 64}) {
    const auto w = EncodedWeights(DType::kQ8_2of4, n_out, 256, 93);
    const auto packed = ops->Pack(DType::kQ8_2of4, n_out, 256, w.data());
    const auto choices = ops->layout_choices();
    ASSERT_EQ(choices.size(), n_out == 64 && choices.size() == 1 ? 1u : 2u);
    const LayoutChoice& choice = choices[n_out == 64 ? 0 : 1];
    EXPECT_EQ(choice.n_out, n_out);
    EXPECT_EQ(choice.n_in, 256);
    EXPECT_GT(choice.speedup_one, 0.0f);
    EXPECT_EQ(choice.speedup_many > 0.0f, choice.speedup_one >= 1.02f);
    const auto whole =
        MakeCpuOpsFor(ChooseIsa(), 1, {.layouts = LayoutRule::kWhole})->Pack(DType::kQ8_2of4, n_out, 256, w.data());
    EXPECT_EQ(choice.kept, packed->packed_bytes() < whole->packed_bytes());
  }
  EXPECT_EQ(ops->layout_choices().size(), 2u);
}

// Of a large matrix only a part is measured; all of it is packed.
TEST(MatMulLayoutTest, AMatrixThatIsMeasuredInPartIsWhole) {
  const Shape shape{16400, 256};
  const auto w = EncodedWeights(DType::kQ8_2of4, shape.n_out, shape.n_in, 94);
  const auto x = Gaussian(shape.n_in, 95);
  const auto ops = MakeCpuOps({});
  const auto y = MatMul(*ops, DType::kQ8_2of4, shape, w, x.data(), 1);
  ASSERT_EQ(ops->layout_choices().size(), 1u);
  EXPECT_EQ(ops->layout_choices()[0].n_out, shape.n_out);
  const auto whole = MakeCpuOpsFor(ChooseIsa(), 1, {.layouts = LayoutRule::kWhole});
  EXPECT_TRUE(SameBits(y, MatMul(*whole, DType::kQ8_2of4, shape, w, x.data(), 1)));
}

// Float types with many tokens and more inputs than are multiplied at once, of rows and tokens that fill no block.
TEST(MatMulCutTest, SameBitsAsTokenByToken) {
  const Shape shape{37, 1100};
  constexpr int kTokens = 127;
  const auto x = Gaussian(kTokens * shape.n_in, 61);
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    SCOPED_TRACE(Info(type).name);
    const auto w = EncodedWeights(type, shape.n_out, shape.n_in, 62);
    const auto portable = MatMul(*MakeCpuOpsFor(Isa::kPortable, 2), type, shape, w, x.data(), kTokens);
    for (const Isa isa : VectorIsas()) {
      SCOPED_TRACE(IsaName(isa));
      for (const int threads : {1, 3}) {
        EXPECT_TRUE(SameBits(MatMul(*MakeCpuOpsFor(isa, threads), type, shape, w, x.data(), kTokens), portable));
      }
      const auto ops = MakeCpuOpsFor(isa, 1);
      {
        const auto bias = Gaussian(shape.n_out, 63);
        auto y = Gaussian(kTokens * shape.n_out, 64);
        auto expected = y;
        for (size_t i = 0; i < y.size(); ++i) expected[i] = (portable[i] + bias[i % shape.n_out]) + y[i];
        const auto packed = ops->Pack(type, shape.n_out, shape.n_in, w.data());
        const MatMulTarget target{.w = packed.get(), .y = y.data(), .bias = bias.data(), .accumulate = true};
        ops->MatMul({&target, 1}, {x.data()}, kTokens);
        EXPECT_TRUE(SameBits(y, expected)) << "bias and accumulation";
      }
      for (const int t : {0, 1, 50, 95, 96, 126}) {
        const std::vector<float> row(portable.begin() + t * shape.n_out, portable.begin() + (t + 1) * shape.n_out);
        EXPECT_TRUE(SameBits(MatMul(*ops, type, shape, w, x.data() + t * shape.n_in, 1), row)) << "token " << t;
      }
    }
  }
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && defined(__x86_64__)
// More than 2^31 weights: no index is narrower than that. Untouched pages cost nothing, so only the last row is real.
TEST(MatMulSizeTest, MoreThanTwoToThe31Weights) {
  const int64_t n_in = 32768;
  const int64_t n_out = (int64_t{1} << 31) / n_in + 3;
  if (sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE) < int64_t{8} << 30) {
    GTEST_SKIP() << "needs a machine with 8 GiB of memory";
  }
  const auto x = Gaussian(n_in, 71);
  for (const DType type : {DType::kF16, DType::kTQ2_0}) {
    SCOPED_TRACE(Info(type).name);
    const size_t row_bytes = RowBytes(type, n_in);
    const auto last = EncodedWeights(type, 1, n_in, 72);
    void* file =
        mmap(nullptr, n_out * row_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT_NE(file, MAP_FAILED);
    std::memcpy(static_cast<std::byte*>(file) + (n_out - 1) * row_bytes, last.data(), row_bytes);
    const auto ops = MakeCpuOps({});
    const auto packed = ops->Pack(type, n_out, n_in, file);
    std::vector<float> y(n_out, -1.0f);
    const MatMulTarget target{packed.get(), y.data()};
    ops->MatMul({&target, 1}, {x.data()}, 1);
    const auto expected = MatMul(*ops, type, {1, n_in}, last, x.data(), 1);
    EXPECT_NE(expected[0], 0.0f);
    EXPECT_EQ(y.back(), expected[0]);
    EXPECT_EQ(std::count(y.begin(), y.end() - 1, 0.0f), n_out - 1);
    munmap(file, n_out * row_bytes);
  }
}
#endif

// A group of targets of different types shares x; bias, accumulation and stride are each target's own.
TEST(MatMulGroupTest, MixedTypesBiasAccumulateAndStride) {
  const int64_t n_in = 512;
  const int n_tok = 5;
  const auto x = Gaussian(n_tok * n_in, 31);
  const auto bias = Gaussian(100, 32);
  const DType types[] = {DType::kQ4_0, DType::kF16, DType::kQ6_K, DType::kF32};
  const int64_t n_outs[] = {100, 20, 33, 1};
  for (const Isa isa : SupportedIsas()) {
    SCOPED_TRACE(IsaName(isa));
    const auto ops = MakeCpuOpsFor(isa, 3);
    std::vector<std::vector<std::byte>> files;
    std::vector<std::unique_ptr<PackedMatrix>> packed;
    std::vector<std::vector<float>> ys;
    std::vector<MatMulTarget> targets;
    for (int i = 0; i < 4; ++i) {
      files.push_back(EncodedWeights(types[i], n_outs[i], n_in, 40 + i));
      packed.push_back(ops->Pack(types[i], n_outs[i], n_in, files.back().data()));
      ys.push_back(Gaussian(n_tok * 128, 50 + i));
    }
    const auto before = ys;
    for (int i = 0; i < 4; ++i) {
      targets.push_back({packed[i].get(), ys[i].data(), 128, i % 2 == 0 ? bias.data() : nullptr, i >= 2});
    }
    ops->MatMul(targets, {x.data()}, n_tok);
    for (int i = 0; i < 4; ++i) {
      const auto plain = MatMul(*ops, types[i], {n_outs[i], n_in}, files[i], x.data(), n_tok);
      for (int t = 0; t < n_tok; ++t) {
        for (int64_t out = 0; out < 128; ++out) {
          const float got = ys[i][t * 128 + out];
          if (out >= n_outs[i]) {
            ASSERT_EQ(got, before[i][t * 128 + out]) << "wrote beyond n_out";
            continue;
          }
          double expected = plain[t * n_outs[i] + out];
          if (i % 2 == 0) expected += bias[out];
          if (i >= 2) expected += before[i][t * 128 + out];
          ASSERT_NEAR(got, expected, 1e-5 * (std::fabs(expected) + std::fabs(plain[t * n_outs[i] + out]) + 4))
              << "target " << i << " token " << t << " output " << out;
        }
      }
    }
  }
}

// One input in every form at once: f32, BF16, quantized by blocks and by spans.
TEST(MatMulInputTest, NormalizedOnTheWayHasTheBitsOfNormAndThenProduct) {
  constexpr int kIn = 512;
  constexpr int kOut = 48;
  const std::vector<float> gain = Gaussian(kIn, 51);
  const std::vector<DType> types = {DType::kF32, DType::kBF16, DType::kQ8_0, DType::kQ4_K, DType::kF16, DType::kQ6_K};
  std::vector<std::vector<std::byte>> w;
  for (const DType type : types) w.push_back(EncodedWeights(type, kOut, kIn, 52));
  for (const Isa isa : SupportedIsas()) {
    for (const int threads : {1, 3}) {
      const auto ops = MakeCpuOpsFor(isa, threads);
      std::vector<std::unique_ptr<PackedMatrix>> packed;
      for (size_t i = 0; i < types.size(); ++i) packed.push_back(ops->Pack(types[i], kOut, kIn, w[i].data()));
      for (const size_t first : {size_t{0}, size_t{1}, size_t{2}}) {  // with and without a row kept as f32
        for (const int n_tok : {1, 7, 41}) {
          SCOPED_TRACE(std::string(IsaName(isa)) + ", " + std::to_string(threads) + " threads, n_tok " +
                       std::to_string(n_tok) + ", types from " + std::to_string(first));
          const size_t n_types = first == 0 ? types.size() : 4 - first;
          const std::vector<float> x = Gaussian(n_tok * kIn, 53);
          std::vector<float> normalized(x.size());
          ops->RmsNorm(x.data(), gain.data(), n_tok, kIn, 1e-5f, normalized.data());
          std::vector<float> apart(n_types * n_tok * kOut), together(apart.size());
          std::vector<MatMulTarget> to_apart, to_together;
          for (size_t i = 0; i < n_types; ++i) {
            to_apart.push_back({.w = packed[first + i].get(), .y = &apart[i * n_tok * kOut]});
            to_together.push_back({.w = packed[first + i].get(), .y = &together[i * n_tok * kOut]});
          }
          ops->MatMul(to_apart, {normalized.data()}, n_tok);
          ops->MatMul(to_together, {.x = x.data(), .gain = gain.data(), .eps = 1e-5f}, n_tok);
          EXPECT_TRUE(SameBits(together, apart));
        }
      }
    }
  }
}

}  // namespace
}  // namespace updraft::kernels
