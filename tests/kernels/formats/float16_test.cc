#include "kernels/formats/float16.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/kernels/formats/samples.h"

namespace updraft::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The definition of binary16, in double.
double SlowF16(uint16_t h) {
  const double sign = (h & 0x8000) != 0 ? -1.0 : 1.0;
  const int exponent = (h >> 10) & 31;
  const int mantissa = h & 1023;
  if (exponent == 31) return mantissa == 0 ? sign * HUGE_VAL : std::nan("");
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

// Nearest of two neighbours, ties to the even code, by comparing distances exactly (both fit in double). `below` is the
// greatest code whose value is at most |x|; value(below + 1) may be the one that stands for overflow.
template <typename Value>
uint16_t NearestMagnitude(double x, uint16_t last, Value value) {
  uint16_t low = 0, high = last;  // value(low) <= x < value(high)
  while (high - low > 1) {
    const auto middle = static_cast<uint16_t>((low + high) / 2);
    (value(middle) <= x ? low : high) = middle;
  }
  const double down = x - value(low);
  const double up = value(high) - x;
  if (down != up) return down < up ? low : high;
  return low % 2 == 0 ? low : high;
}

// Infinity's code is one above the greatest finite one, and it behaves as if the exponent went on: 65536 for binary16.
uint16_t SlowF32ToF16(float x) {
  const auto sign = static_cast<uint16_t>(std::signbit(x) ? 0x8000 : 0);
  const double a = std::fabs(static_cast<double>(x));
  if (a >= 65536.0) return sign | 0x7c00;
  const auto value = [](uint16_t h) { return h == 0x7c00 ? 65536.0 : SlowF16(h); };
  return sign | NearestMagnitude(a, 0x7c00, value);
}

double SlowBF16(uint16_t h) {
  const int exponent = (h >> 7) & 255;
  const int mantissa = h & 127;
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -133) : std::ldexp(128 + mantissa, exponent - 134);
  return (h & 0x8000) != 0 ? -magnitude : magnitude;
}

uint16_t SlowF32ToBF16(float x) {
  const auto sign = static_cast<uint16_t>(std::signbit(x) ? 0x8000 : 0);
  return sign | NearestMagnitude(std::fabs(static_cast<double>(x)), 0x7f80, SlowBF16);
}

TEST(Float16, EveryHalfWidensToItsDefinition) {
  for (uint32_t h = 0; h < 65536; ++h) {
    const double expected = SlowF16(static_cast<uint16_t>(h));
    const float found = F16ToF32(static_cast<uint16_t>(h));
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(found)) << h;
      ASSERT_EQ(std::signbit(found), (h & 0x8000) != 0) << h;
    } else {
      ASSERT_EQ(found, expected) << h;
      ASSERT_EQ(std::signbit(found), (h & 0x8000) != 0) << h;  // minus zero too
    }
  }
}

TEST(Float16, EveryHalfSurvivesTheRoundTrip) {
  for (uint32_t h = 0; h < 65536; ++h) {
    const auto half = static_cast<uint16_t>(h);
    const uint16_t quiet = std::isnan(F16ToF32(half)) ? half | 0x0200 : half;  // a NaN comes back quiet, payload kept
    ASSERT_EQ(F32ToF16(F16ToF32(half)), quiet) << h;
    const bool is_nan = (h & 0x7fff) > 0x7f80;
    ASSERT_EQ(F32ToBF16(BF16ToF32(half)), is_nan ? half | 0x40 : half) << h;
  }
}

// Where rounding can go wrong: at each boundary between two neighbours and one float on either side of it.
TEST(Float16, RoundsToNearestEvenAroundEveryBoundary) {
  for (uint32_t h = 0; h < 0x7c00; ++h) {
    const double upper = h + 1 == 0x7c00 ? 65536.0 : SlowF16(static_cast<uint16_t>(h + 1));
    const auto middle = static_cast<float>((SlowF16(static_cast<uint16_t>(h)) + upper) / 2);  // exact: one bit more
    for (const float x : {std::nextafter(middle, 0.0f), middle, std::nextafter(middle, kInfinity)}) {
      ASSERT_EQ(F32ToF16(x), SlowF32ToF16(x)) << x;
      ASSERT_EQ(F32ToF16(-x), SlowF32ToF16(-x)) << -x;
    }
  }
  for (uint32_t h = 0; h < 0x7f80; ++h) {
    const float middle = std::bit_cast<float>((h << 16) | 0x8000u);
    for (const float x : {std::nextafter(middle, 0.0f), middle, std::nextafter(middle, kInfinity)}) {
      ASSERT_EQ(F32ToBF16(x), SlowF32ToBF16(x)) << x;
      ASSERT_EQ(F32ToBF16(-x), SlowF32ToBF16(-x)) << -x;
    }
  }
}

TEST(Float16, AgreesWithTheDefinitionOnRandomFloats) {
  constexpr uint64_t kSeed = 16;
  testing::Random random(kSeed);
  for (int i = 0; i < 300000; ++i) {
    const auto x = std::bit_cast<float>(static_cast<uint32_t>(random.Next()));
    if (!std::isfinite(x)) continue;
    ASSERT_EQ(F32ToF16(x), SlowF32ToF16(x)) << "seed " << kSeed << ", number " << i << ": " << x;
    ASSERT_EQ(F32ToBF16(x), SlowF32ToBF16(x)) << "seed " << kSeed << ", number " << i << ": " << x;
  }
}

TEST(Float16, InfinityAndNaN) {
  EXPECT_EQ(F32ToF16(kInfinity), 0x7c00);
  EXPECT_EQ(F32ToF16(-kInfinity), 0xfc00);
  EXPECT_EQ(F32ToBF16(kInfinity), 0x7f80);
  EXPECT_EQ(F32ToBF16(std::numeric_limits<float>::max()), 0x7f80);
  // A NaN whose payload is all in the dropped bits must not become infinity.
  const auto low_payload = std::bit_cast<float>(0x7f800001u);
  EXPECT_EQ(F32ToF16(low_payload), 0x7e00);
  EXPECT_EQ(F32ToBF16(low_payload), 0x7fc0);
  EXPECT_EQ(F32ToF16(std::bit_cast<float>(0xffc00000u)), 0xfe00);
}

// They work in constant expressions, so that tables can be made at compile time.
static_assert(F16ToF32(0x3c00) == 1.0f && F16ToF32(0x0001) == 0x1p-24f && F32ToF16(-2.0f) == 0xc000);
static_assert(BF16ToF32(0x3f80) == 1.0f && F32ToBF16(1.0f) == 0x3f80);

}  // namespace
}  // namespace updraft::kernels
