// Reductions over logits against plain loops in double, and the same bits on every instruction set.
#include "kernels/logits.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/kernel_table.h"
#include "tests/kernels/cpu/test_util.h"

namespace updraft::kernels {
namespace {

constexpr float kLowest = std::numeric_limits<float>::lowest();
constexpr float kInf = std::numeric_limits<float>::infinity();
const float kNan = std::numeric_limits<float>::quiet_NaN();

struct Sums {
  double mass;
  double weighted;
};

Sums Moments(const LogitsKernels& kernels, const std::vector<float>& x, float peak) {
  Sums sums;
  kernels.moments(x.data(), static_cast<int64_t>(x.size()), peak, &sums.mass, &sums.weighted);
  return sums;
}

LogitSummary Exact(const std::vector<float>& logits) {
  std::vector<float> finite;
  for (const float x : logits) {
    if (std::isfinite(x)) finite.push_back(x);
  }
  std::sort(finite.rbegin(), finite.rend());
  LogitSummary exact{finite.empty() ? kLowest : finite[0], finite.size() < 2 ? kLowest : finite[1], 0, 0};
  for (const float x : finite) {
    const double d = double{x} - exact.first;
    exact.mass += std::exp(d);
    exact.weighted += d * std::exp(d);
  }
  return exact;
}

// Odd lengths around the lanes and the pieces; wide and narrow distributions; what is not finite in between.
std::vector<std::vector<float>> Rows() {
  std::vector<std::vector<float>> rows;
  for (const int n : {1, 2, 15, 16, 17, 31, 100, 1023, 1024, 1025, 2091, 5000}) {
    for (const float spread : {0.01f, 3.0f, 60.0f}) {
      auto row = Gaussian(n, 100 * n + static_cast<uint64_t>(spread));
      for (float& x : row) x *= spread;
      rows.push_back(row);
      for (int i = 0; i < n; i += 7) row[i] = i % 3 == 0 ? kNan : i % 3 == 1 ? -kInf : kInf;
      rows.push_back(row);
    }
  }
  rows.push_back({1.0f, 5.0f, 5.0f, 2.0f});
  rows.push_back({-kInf, -kInf, kNan});
  rows.push_back({3e38f, -3e38f, 3e38f});
  rows.push_back(std::vector<float>(40, -0.0f));
  return rows;
}

// A term is off by 1.5e-7 of itself; 64 additions in a lane and 4 across lanes round 2^-24 of a sum of terms of one
// sign each. What is below e^-87 of the peak counts as e^-87.
TEST(LogitsTest, MatchPlainLoops) {
  for (const Isa isa : VectorIsas()) {
    SCOPED_TRACE(IsaName(isa));
    const LogitsKernels& kernels = *ChooseKernels(isa).logits;
    for (const auto& row : Rows()) {
      SCOPED_TRACE(row.size());
      const LogitSummary exact = Exact(row);
      const auto n = static_cast<int64_t>(row.size());
      const TopTwoLogits top = kernels.top_two(row.data(), n);
      EXPECT_EQ(top.first, exact.first);
      EXPECT_EQ(top.second, exact.second);
      float peak = -kInf;
      for (const float x : row) peak = x > peak ? x : peak;
      EXPECT_EQ(kernels.peak(row.data(), n), peak);
      if (exact.first == kLowest) continue;
      const Sums sums = Moments(kernels, row, exact.first);
      constexpr double kRelative = 1.5e-7 + 69 * 0x1p-24;
      EXPECT_NEAR(sums.mass, exact.mass, kRelative * exact.mass + static_cast<double>(n) * 1e-37);
      EXPECT_NEAR(sums.weighted, exact.weighted, 2 * kRelative * -exact.weighted + static_cast<double>(n) * 1e-35);
    }
  }
}

TEST(LogitsTest, SameBitsOnEveryInstructionSet) {
  const LogitsKernels& portable = *ChooseKernels(Isa::kPortable).logits;
  for (const Isa isa : VectorIsas()) {
    const LogitsKernels& kernels = *ChooseKernels(isa).logits;
    for (const auto& row : Rows()) {
      const float peak = Exact(row).first;
      const Sums a = Moments(kernels, row, peak);
      const Sums b = Moments(portable, row, peak);
      EXPECT_EQ(a.mass, b.mass) << IsaName(isa) << ", " << row.size();
      EXPECT_EQ(a.weighted, b.weighted) << IsaName(isa) << ", " << row.size();
    }
  }
}

TEST(LogitsTest, ArgMaxIsTheLowestIndexOfThePeak) {
  std::vector<float> row(70, -2.0f);
  EXPECT_EQ(ArgMaxLogit(row), 0);
  row[33] = row[65] = 4.0f;
  row[2] = kNan;
  EXPECT_EQ(ArgMaxLogit(row), 33);
  row[68] = kInf;
  EXPECT_EQ(ArgMaxLogit(row), 68);
  EXPECT_EQ(ArgMaxLogit(std::vector<float>{-kInf, kNan, -kInf}), -1);
  EXPECT_EQ(SummarizeLogits(std::vector<float>{kNan, kInf}).first, kLowest);
  EXPECT_EQ(SummarizeLogits(std::vector<float>{kNan, 2.0f}).mass, 1.0);
}

}  // namespace
}  // namespace updraft::kernels
