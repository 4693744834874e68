// RMSNorm, SwiGLU, RoPE, embedding rows: against the reference in double, and bit for bit across instruction sets.
#include <algorithm>
#include <bit>
#include <limits>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/rope/rope.h"
#include "kernels/formats/float16.h"
#include "tests/kernels/cpu/test_util.h"

namespace updraft::kernels {
namespace {

TEST(RmsNormTest, MatchesTheReferenceAndIsTheSameEverywhere) {
  for (const int width : {1, 15, 16, 17, 64, 172, 2048}) {
    SCOPED_TRACE("width " + std::to_string(width));
    const int n_rows = width == 2048 ? 20 : 3;
    const auto x = Gaussian(n_rows * width, width);
    const auto gain = Gaussian(width, width + 1);
    std::vector<float> exact(x.size());
    MakeCpuOpsFor(Isa::kReference, 1)->RmsNorm(x.data(), gain.data(), n_rows, width, 1e-5f, exact.data());
    std::vector<float> portable(x.size());
    MakeCpuOpsFor(Isa::kPortable, 1)->RmsNorm(x.data(), gain.data(), n_rows, width, 1e-5f, portable.data());
    // The mean of squares has width / 16 + 5 roundings of positive terms; its root halves them; 4 more follow.
    const double relative = ((width / 16.0 + 5) / 2 + 5) * 0x1p-24;
    for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(portable[i], exact[i], relative * std::fabs(exact[i])) << i;
    for (const Isa isa : VectorIsas()) {
      for (const int threads : {1, 2, 3}) {
        auto y = x;  // in place
        MakeCpuOpsFor(isa, threads)->RmsNorm(y.data(), gain.data(), n_rows, width, 1e-5f, y.data());
        EXPECT_TRUE(SameBits(y, portable)) << IsaName(isa) << ", " << threads << " threads";
      }
    }
  }
}

TEST(RmsNormTest, NanStaysInItsRow) {
  const int width = 40;
  auto x = Gaussian(3 * width, 1);
  x[width + 3] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> gain(width, 1.0f);
  std::vector<float> y(x.size());
  MakeCpuOps({1})->RmsNorm(x.data(), gain.data(), 3, width, 1e-5f, y.data());
  for (int i = 0; i < 3 * width; ++i) EXPECT_EQ(std::isnan(y[i]), i / width == 1) << i;
}

TEST(SwiGluTest, MatchesTheReferenceAndIsTheSameEverywhere) {
  // The whole range of the exponential, both ends beyond it, in small steps.
  std::vector<float> gate;
  for (double g = -95; g <= 95; g += 0.00137) gate.push_back(static_cast<float>(g));
  gate.resize(gate.size() / 16 * 16 + 5);
  const std::vector<float> up(gate.size(), 1.0f);
  std::vector<float> exact(gate.size());
  MakeCpuOpsFor(Isa::kReference, 1)->SwiGlu(gate.data(), up.data(), gate.size(), exact.data());
  std::vector<float> portable(gate.size());
  MakeCpuOpsFor(Isa::kPortable, 1)->SwiGlu(gate.data(), up.data(), gate.size(), portable.data());
  for (size_t i = 0; i < gate.size(); ++i) {
    // 1.5e-7 of the exponential and 4 roundings; below -87 the exponential is held at e^87, a result of 1e-36 at most.
    ASSERT_NEAR(portable[i], exact[i], std::fabs(exact[i]) * (1.5e-7 + 4 * 0x1p-24) + 1.2e-36) << "gate " << gate[i];
  }
  for (const Isa isa : VectorIsas()) {
    for (const int threads : {1, 3}) {
      auto y = gate;  // in place
      MakeCpuOpsFor(isa, threads)->SwiGlu(y.data(), up.data(), y.size(), y.data());
      EXPECT_TRUE(SameBits(y, portable)) << IsaName(isa) << ", " << threads << " threads";
    }
  }
}

TEST(SwiGluTest, NanStaysNan) {
  for (const Isa isa : SupportedIsas()) {
    std::vector<float> gate(20, 1.0f);
    gate[7] = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> up(20, 2.0f);
    MakeCpuOpsFor(isa, 1)->SwiGlu(gate.data(), up.data(), 20, gate.data());
    for (int i = 0; i < 20; ++i) EXPECT_EQ(std::isnan(gate[i]), i == 7) << IsaName(isa) << " " << i;
  }
}

RopeParams Params(int n_rot) {
  RopeParams params;
  params.n_rot = n_rot;
  return params;
}

TEST(ToBf16Test, RoundsLikeTheScalarConversionEverywhere) {
  std::mt19937 bits(5);
  std::vector<float> x;
  for (int i = 0; i < 4099; ++i) x.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits())));  // every exponent
  for (const uint32_t tie : {0x3f808000u, 0x3f818000u, 0x7f7fffffu, 0x7f800001u, 0xff800000u, 1u}) {
    x.push_back(std::bit_cast<float>(tie));
  }
  for (const Isa isa : VectorIsas()) {
    for (const size_t n : {size_t{1}, size_t{15}, size_t{16}, x.size()}) {
      std::vector<uint16_t> out(n + 1, 0xabcd);
      const float* from = x.data() + (x.size() - n);
      ChooseKernels(isa).row_ops->to_bf16(from, static_cast<int64_t>(n), out.data());
      for (size_t i = 0; i < n; ++i) ASSERT_EQ(out[i], F32ToBF16(from[i])) << IsaName(isa) << " of " << from[i];
      EXPECT_EQ(out[n], 0xabcd);
    }
  }
}

TEST(RopeTest, RotatesPairsByPositionTimesFrequency) {
  for (const bool interleaved : {true, false}) {
    RopeParams params = Params(8);
    params.interleaved = interleaved;
    params.freq_base = 100.0f;
    params.freq_scale = 0.5f;
    const int head_dim = 10;  // the last two dimensions stay
    const auto before = Gaussian(2 * head_dim, 3);
    auto x = before;
    const int32_t positions[] = {1001, 7};
    MakeCpuOps({1})->Rope(x.data(), positions, 1, head_dim, params);
    for (int t = 0; t < 2; ++t) {
      for (int i = 0; i < 4; ++i) {
        const double angle = positions[t] * 0.5 * std::pow(100.0, -2.0 * i / 8);
        const int a = t * head_dim + (interleaved ? 2 * i : i);
        const int b = t * head_dim + (interleaved ? 2 * i + 1 : i + 4);
        EXPECT_NEAR(x[a], before[a] * std::cos(angle) - before[b] * std::sin(angle), 1e-6);
        EXPECT_NEAR(x[b], before[a] * std::sin(angle) + before[b] * std::cos(angle), 1e-6);
      }
      EXPECT_EQ(x[t * head_dim + 8], before[t * head_dim + 8]);
      EXPECT_EQ(x[t * head_dim + 9], before[t * head_dim + 9]);
    }
  }
}

TEST(RopeTest, DotProductDependsOnTheDistanceOnly) {
  const auto q = Gaussian(64, 1);
  const auto k = Gaussian(64, 2);
  const auto ops = MakeCpuOps({1});
  const auto dot_at = [&](int32_t pq, int32_t pk) {
    auto a = q;
    auto b = k;
    ops->Rope(a.data(), {&pq, 1}, 1, 64, Params(64));
    ops->Rope(b.data(), {&pk, 1}, 1, 64, Params(64));
    double dot = 0;
    for (int i = 0; i < 64; ++i) dot += double{a[i]} * b[i];
    return dot;
  };
  EXPECT_NEAR(dot_at(105, 100), dot_at(5, 0), 1e-4);
  EXPECT_NEAR(dot_at(3000, 2000), dot_at(1000, 0), 1e-4);
}

TEST(RopeTest, FrequencyFactorsDivideTheAngle) {
  RopeParams params = Params(4);
  const float factors[] = {2.0f, 8.0f};
  params.freq_factors = factors;
  float cos[2], sin[2];
  RopeAngles(params, 100, cos, sin);
  EXPECT_FLOAT_EQ(cos[0], std::cos(50.0));
  EXPECT_FLOAT_EQ(sin[1], std::sin(100 * 0.01 / 8));
}

// YaRN at its two ends: pairs that turn more than beta_fast times within the context of training keep their angle,
// those that turn less than beta_slow times are interpolated, both with cos and sin grown by 1 + 0.1 ln s.
TEST(RopeTest, YarnKeepsFastPairsAndInterpolatesSlowOnes) {
  RopeParams params = Params(128);
  params.freq_scale = 0.25f;
  params.ext_factor = 1.0f;
  params.n_ctx_orig = 4096;
  std::vector<float> cos(64), sin(64);
  const int position = 37;
  RopeAngles(params, position, cos.data(), sin.data());
  const double growth = 1 + 0.1 * std::log(4.0);
  EXPECT_NEAR(cos[0], growth * std::cos(37.0), 1e-6);
  const double slow = position * std::pow(10000.0, -2.0 * 63 / 128);
  EXPECT_NEAR(sin[63], growth * std::sin(0.25 * slow), 1e-7);
  for (int i = 1; i < 64; ++i) {  // in between the angle lies between both
    const double angle = position * std::pow(10000.0, -2.0 * i / 128);
    if (angle > 1.5) continue;
    EXPECT_LE(sin[i], growth * std::sin(angle) + 1e-6) << i;
    EXPECT_GE(sin[i], growth * std::sin(0.25 * angle) - 1e-6) << i;
  }
}

TEST(RopeTest, SameBitsForEveryInstructionSetBatchAndThreadCount) {
  const int n_tok = 40, n_head = 9, head_dim = 64;
  const auto x = Gaussian(n_tok * n_head * head_dim, 6);
  std::vector<int32_t> positions(n_tok);
  for (int t = 0; t < n_tok; ++t) positions[t] = 17 * t % 31;
  auto portable = x;
  MakeCpuOpsFor(Isa::kPortable, 1)->Rope(portable.data(), positions, n_head, head_dim, Params(64));
  for (const Isa isa : VectorIsas()) {
    auto y = x;
    MakeCpuOpsFor(isa, 3)->Rope(y.data(), positions, n_head, head_dim, Params(64));
    EXPECT_TRUE(SameBits(y, portable)) << IsaName(isa);
    auto one_by_one = x;
    const auto ops = MakeCpuOpsFor(isa, 1);
    for (int t = 0; t < n_tok; ++t) {
      ops->Rope(one_by_one.data() + t * n_head * head_dim, {&positions[t], 1}, n_head, head_dim, Params(64));
    }
    EXPECT_TRUE(SameBits(one_by_one, portable)) << IsaName(isa);
  }
}

TEST(RopeTest, ATableIsComputedAgainWhenParametersChange) {
  RopeTable table;
  const int32_t positions[] = {5};
  RopeParams params = Params(2);
  table.Prepare(params, positions);
  EXPECT_FLOAT_EQ(table.cos(0)[0], std::cos(5.0));
  params.freq_scale = 2.0f;
  table.Prepare(params, positions);
  EXPECT_FLOAT_EQ(table.cos(0)[0], std::cos(10.0));
  const int32_t more[] = {5, 1};
  table.Prepare(params, more);
  EXPECT_FLOAT_EQ(table.cos(1)[0], std::cos(2.0));
}

TEST(EmbedRowsTest, GivesTheDecodedRows) {
  for (const DType type : AllTypes()) {
    const int64_t n_vocab = 9, d_model = 512;
    const auto table = EncodedWeights(type, n_vocab, d_model, 11);
    const auto decoded = DecodedWeights(type, n_vocab, d_model, table);
    std::vector<int32_t> tokens;
    for (int i = 0; i < 50; ++i) tokens.push_back(i * 5 % 9);
    std::vector<float> out(tokens.size() * d_model);
    const auto ops = MakeCpuOps({3});
    ops->EmbedRows(*ops->Table(type, n_vocab, d_model, table.data()), tokens, out.data());
    for (size_t t = 0; t < tokens.size(); ++t) {
      for (int64_t i = 0; i < d_model; ++i) {
        ASSERT_EQ(out[t * d_model + i], decoded[tokens[t] * d_model + i]) << Info(type).name << " token " << t;
      }
    }
  }
}

TEST(OpsNameTest, SaysInstructionSetAndThreads) {
  EXPECT_EQ(MakeCpuOpsFor(Isa::kPortable, 2)->name(), "cpu/portable, 2 threads");
  EXPECT_EQ(MakeCpuOpsFor(Isa::kPortable, 1)->name(), "cpu/portable, 1 thread");
}

}  // namespace
}  // namespace updraft::kernels
