// Low-rank additions to products: against double precision with a derived bound, and bit for bit against the portable
// body, other batch sizes and other thread counts.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/tile_matmul/tile_format.h"
#include "tests/kernels/cpu/test_util.h"

namespace updraft::kernels {
namespace {

struct Case {
  DType type;
  int64_t rank, n_out, n_in;
  uint64_t seed;

  std::vector<std::byte> w = EncodedWeights(type, n_out, n_in, seed);  // takes long
  // Ranks of sizes far apart, the products of all about the same.
  std::vector<float> a() const { return Scaled(Gaussian(rank * n_in, seed + 1), 1); }
  std::vector<float> b() const { return Scaled(Gaussian(n_out * rank, seed + 2), -1); }
  std::vector<float> x(int n_tok) const { return Gaussian(n_tok * n_in, seed + 3); }
  std::vector<float> Scaled(std::vector<float> values, int sign) const {
    for (size_t i = 0; i < values.size(); ++i) {
      const auto k = static_cast<int>(sign > 0 ? i / n_in : i % rank);
      values[i] = std::ldexp(values[i], sign * (5 * k % 23 - 18));
    }
    return values;
  }
  std::string Name() const {
    return std::string(Info(type).name) + " rank " + std::to_string(rank) + " n_out " + std::to_string(n_out) +
           " n_in " + std::to_string(n_in) + " seed " + std::to_string(seed);
  }
};

// Ranks and outputs below, at and off a tile of 16; inputs of one block and several.
std::vector<Case> CasesOf(DType type) {
  const int64_t block = std::max(32, Info(type).block_elems);
  return {{type, 1, 1, block, 10},       {type, 3, 17, 3 * block, 20},  {type, 16, 70, 2 * block, 30},
          {type, 16, 150, block, 40},    {type, 17, 33, 2 * block, 50}, {type, 64, 48, 5 * block, 60},
          {type, 40, 100, 3 * block, 70}};
}

// Two targets, of which the second has the addition and both are accumulated to 1, with outputs of the first beside.
std::vector<float> Products(Ops& ops, const Case& c, const float* x, int n_tok, bool add = true) {
  const auto a = c.a();
  const auto b = c.b();
  const auto w = ops.Pack(c.type, c.n_out, c.n_in, c.w.data());
  const auto low_rank = ops.PackLowRank(c.type, c.rank, c.n_out, c.n_in, a.data(), b.data());
  std::vector<float> plain(n_tok * c.n_out), y(n_tok * c.n_out, 1.0f);
  const MatMulTarget targets[] = {
      {.w = w.get(), .y = plain.data()},
      {.w = w.get(), .y = y.data(), .accumulate = true, .low_rank = add ? low_rank.get() : nullptr}};
  ops.MatMul(targets, {x}, n_tok);
  y.insert(y.end(), plain.begin(), plain.end());
  return y;
}

// What the addition to one output may differ from double precision.
//
// Beside quantized weights each of A, x, B and h = A x is rounded to half a step of its largest magnitude / 127 (of a
// block of 32, of an output, of a token), A's steps besides to half precision: 2^-11 of a code; B's are up to 2^-7
// longer. Powers of two have brought ranks of A to largest magnitudes in [1, 2), and B the other way. An error of x
// counts beside the rounded A and so on, so magnitudes are taken a step larger. Sums in float add the rest: one
// rounding for each block of A and two for the addition; beside others n / 16 fused steps and 7 additions as in
// matmul_test.
class Bound {
 public:
  Bound(const Case& c, const float* a, const float* x) : c_(c), h_(c.rank), h_error_(c.rank), exponent_(c.rank) {
    for (int64_t k = 0; k < c.rank; ++k) {
      float max = 0.0f;
      for (int64_t i = 0; i < c.n_in; ++i) max = std::max(max, std::fabs(a[k * c.n_in + i]));
      exponent_[k] = std::ilogb(max);
      Project(a + k * c.n_in, x, k);
    }
  }

  double Exact(const float* b) const {
    double sum = 0.0;
    for (int64_t k = 0; k < c_.rank; ++k) sum += h_[k] * b[k];
    return sum;
  }
  double Error(const float* b) const {
    double max_b = 0.0, max_h = 0.0, error = 0.0, sum_h = 0.0, sum_b = 0.0;
    for (int64_t k = 0; k < c_.rank; ++k) {
      const double h = std::ldexp(std::fabs(h_[k]) + h_error_[k], -exponent_[k]);
      const double size_b = std::ldexp(std::fabs(b[k]), exponent_[k]);
      max_b = std::max(max_b, size_b);
      max_h = std::max(max_h, h);
      sum_h += h;
      sum_b += size_b;
      error += h_error_[k] * std::fabs(b[k]);
    }
    if (!IsTiled(c_.type)) return error + (static_cast<double>(c_.rank) / 16 + 7) * kUnit * max_b * sum_h;
    const double b_step = kStep * (1 + 0x1p-7);
    sum_b += static_cast<double>(c_.rank) * max_b * b_step;
    return error * (1 + b_step) + kStep * max_h * sum_b + b_step * max_b * sum_h + 4 * kUnit * max_b * sum_h;
  }

 private:
  static constexpr double kUnit = 0x1p-24;
  static constexpr double kStep = (1 + 0x1p-20) / 254;  // half of one, beside the largest magnitude

  void Project(const float* a, const float* x, int64_t k) {
    double error = 0.0, magnitude = 0.0;
    for (int64_t from = 0; from < c_.n_in; from += 32) {
      const int64_t to = std::min(from + 32, c_.n_in);
      double max_a = 0, max_x = 0, sum_a = 0, sum_x = 0;
      for (int64_t i = from; i < to; ++i) {
        h_[k] += double{a[i]} * x[i];
        max_a = std::max(max_a, std::fabs(double{a[i]}));
        max_x = std::max(max_x, std::fabs(double{x[i]}));
        sum_a += std::fabs(a[i]);
        sum_x += std::fabs(x[i]);
        magnitude += std::fabs(double{a[i]} * x[i]);
      }
      const double a_step = kStep + 0x1p-11;
      error += max_x * kStep * (sum_a + 32 * max_a * a_step) + max_a * a_step * sum_x;
    }
    const double sums = static_cast<double>(c_.n_in) / (IsTiled(c_.type) ? 32 : 16) + 7;
    h_error_[k] = (IsTiled(c_.type) ? error + 2 * sums * kUnit * (magnitude + error) : sums * kUnit * magnitude);
  }

  const Case& c_;
  std::vector<double> h_, h_error_;
  std::vector<int> exponent_;
};

class LowRankTest : public ::testing::TestWithParam<DType> {};

TEST_P(LowRankTest, WithinBoundOfDoublePrecisionAndSameBitsOnEveryInstructionSet) {
  double worst = 0.0;
  for (const Case& c : CasesOf(GetParam())) {
    SCOPED_TRACE(c.Name());
    const auto a = c.a();
    const auto b = c.b();
    for (const int n_tok : {1, 2, 3, 5, 9, 26}) {
      SCOPED_TRACE("n_tok " + std::to_string(n_tok));
      const auto x = c.x(n_tok);
      const auto portable = MakeCpuOpsFor(Isa::kPortable, 1);
      const auto with = Products(*portable, c, x.data(), n_tok);
      const auto without = Products(*portable, c, x.data(), n_tok, false);
      for (int t = 0; t < n_tok; ++t) {
        const Bound bound(c, a.data(), x.data() + t * c.n_in);
        for (int64_t out = 0; out < c.n_out; ++out) {
          const size_t at = t * c.n_out + out;
          const double added = double{with[at]} - without[at];
          const double limit =
              bound.Error(b.data() + out * c.rank) + (std::fabs(with[at]) + std::fabs(without[at])) * 0x1p-23;
          const double error = std::fabs(added - bound.Exact(b.data() + out * c.rank));
          ASSERT_LE(error, limit) << "token " << t << " output " << out;
          worst = std::max(worst, error / limit);
        }
      }
      EXPECT_TRUE(std::equal(with.begin() + n_tok * c.n_out, with.end(), without.begin() + n_tok * c.n_out))
          << "a product without addition changed";
      for (const Isa isa : VectorIsas()) {
        EXPECT_TRUE(SameBits(Products(*MakeCpuOpsFor(isa, 1), c, x.data(), n_tok), with)) << IsaName(isa);
      }
    }
  }
  EXPECT_GT(worst, 0.01) << "the bound is too slack to test anything";
}

TEST_P(LowRankTest, ReferenceIsDoublePrecision) {
  const Case c = CasesOf(GetParam())[2];
  const auto a = c.a();
  const auto b = c.b();
  const auto x = c.x(3);
  const auto ops = MakeCpuOpsFor(Isa::kReference, 1);
  const auto with = Products(*ops, c, x.data(), 3);
  const auto without = Products(*ops, c, x.data(), 3, false);
  for (int t = 0; t < 3; ++t) {
    const Bound bound(c, a.data(), x.data() + t * c.n_in);
    for (int64_t out = 0; out < c.n_out; ++out) {
      const size_t at = t * c.n_out + out;
      EXPECT_NEAR(double{with[at]} - without[at], bound.Exact(b.data() + out * c.rank),
                  (std::fabs(with[at]) + std::fabs(without[at])) * 0x1p-22);
    }
  }
}

TEST_P(LowRankTest, RowsDoNotDependOnBatchNorThreads) {
  const int64_t block = std::max(32, Info(GetParam()).block_elems);
  const Case c{GetParam(), 16, 550, block == 256 ? 512 : 4 * block, 80};
  constexpr int kTok = 83;
  const auto x = c.x(kTok);
  for (const Isa isa : VectorIsas()) {
    SCOPED_TRACE(IsaName(isa));
    const auto single = MakeCpuOpsFor(isa, 1);
    const auto all = Products(*single, c, x.data(), kTok);
    for (const int t : {0, 1, 40, kTok - 1}) {
      const auto one = Products(*single, c, x.data() + t * c.n_in, 1);
      EXPECT_TRUE(std::equal(one.begin(), one.begin() + c.n_out, all.begin() + t * c.n_out)) << "token " << t;
    }
    for (const int threads : {2, 3, 7}) {
      EXPECT_TRUE(SameBits(Products(*MakeCpuOpsFor(isa, threads), c, x.data(), kTok), all)) << threads << " threads";
    }
  }
}

// Of one token, as of a product alone.
TEST_P(LowRankTest, NumbersThatAreNoneStayInTheirRow) {
  const Case c = CasesOf(GetParam())[2];
  auto x = c.x(3);
  x[c.n_in + 5] = std::numeric_limits<float>::infinity();
  for (const Isa isa : VectorIsas()) {
    const auto y = Products(*MakeCpuOpsFor(isa, 1), c, x.data(), 3);
    for (int64_t out = 0; out < c.n_out; ++out) {
      EXPECT_TRUE(std::isfinite(y[out]) && std::isfinite(y[2 * c.n_out + out]));
      EXPECT_FALSE(std::isfinite(y[c.n_out + out])) << IsaName(isa) << " output " << out;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, LowRankTest,
                         ::testing::Values(DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_1,
                                           DType::kQ4_K, DType::kQ6_K),
                         [](const auto& info) { return std::string(Info(info.param).name); });

// The gated layer hands its three additions on, whichever way its neurons are computed.
TEST(LowRankFeedForwardTest, AddsToGateUpAndDown) {
  constexpr int64_t kModel = 64, kFf = 128;
  constexpr int kTok = 3;
  for (const int group : {0, 32}) {
    SCOPED_TRACE(group);
    std::vector<float> results[2];
    for (const Isa isa : {Isa::kReference, Isa::kPortable}) {
      const auto ops = MakeCpuOpsFor(isa, 1);
      const auto up_bytes = EncodedWeights(DType::kF32, kFf, kModel, 1);
      const auto down_bytes = EncodedWeights(DType::kF32, kModel, kFf, 2);
      const auto up = ops->Pack(DType::kF32, kFf, kModel, up_bytes.data());
      const auto down = ops->Pack(DType::kF32, kModel, kFf, down_bytes.data());
      const auto a = Gaussian(4 * kFf, 3);
      const auto b = Gaussian(4 * kFf, 4);
      const auto gate_low = ops->PackLowRank(DType::kF32, 4, kFf, kModel, a.data(), b.data());
      const auto up_low = ops->PackLowRank(DType::kF32, 3, kFf, kModel, a.data() + 7, b.data() + 7);
      const auto down_low = ops->PackLowRank(DType::kF32, 2, kModel, kFf, a.data() + 9, b.data() + 9);
      const auto x = Gaussian(kTok * kModel, 5);
      std::vector<float> y(kTok * kModel), gate(kTok * kFf), up_values(kTok * kFf);
      ops->FeedForward({.gate = up.get(),
                        .up = up.get(),
                        .down = down.get(),
                        .group = group,
                        .threshold = 3.0f,
                        .gate_low_rank = gate_low.get(),
                        .up_low_rank = up_low.get(),
                        .down_low_rank = down_low.get()},
                       {.x = {x.data()},
                        .n_tok = kTok,
                        .y = y.data(),
                        .gate = gate.data(),
                        .up = up_values.data(),
                        .sparse_share = 0.0f});
      results[isa == Isa::kReference ? 0 : 1] = y;
    }
    for (size_t i = 0; i < results[0].size(); ++i) {
      EXPECT_NEAR(results[1][i], results[0][i], 1e-5 * (1000 + std::fabs(results[0][i])));
    }
  }
}

}  // namespace
}  // namespace updraft::kernels
