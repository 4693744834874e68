#include "kernels/formats/codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "kernels/formats/blocks.h"
#include "kernels/formats/lowbit_blocks.h"
#include "tests/kernels/formats/samples.h"

namespace updraft::kernels {
namespace {

using testing::BellWeights;
using testing::Fingerprint;
using testing::RandomBlocks;
using testing::SampleWeights;

std::vector<DType> AllTypes() {
  std::vector<DType> types;
  for (int i = 0; i < kNumDTypes; ++i) types.push_back(static_cast<DType>(i));
  return types;
}

std::vector<DType> WritableTypes() {
  std::vector<DType> types = AllTypes();
  std::erase_if(types, [](DType type) { return !CanQuantize(type); });
  return types;
}

bool IsQuantized(DType type) { return Info(type).block_elems > 1; }

std::vector<uint8_t> Encode(DType type, const std::vector<float>& x) {
  std::vector<uint8_t> bytes(RowBytes(type, static_cast<int64_t>(x.size())));
  QuantizeRow(type, x.data(), bytes.data(), static_cast<int64_t>(x.size()));
  return bytes;
}

std::vector<float> Decode(DType type, const std::vector<uint8_t>& bytes, size_t n) {
  std::vector<float> x(n);
  DequantizeRow(type, bytes.data(), x.data(), static_cast<int64_t>(n));
  return x;
}

std::vector<float> RoundTrip(DType type, const std::vector<float>& x) {
  return Decode(type, Encode(type, x), x.size());
}

double SquaredError(const std::vector<float>& x, const std::vector<float>& y) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += (static_cast<double>(x[i]) - y[i]) * (static_cast<double>(x[i]) - y[i]);
  return sum;
}

double RelativeError(const std::vector<float>& x, const std::vector<float>& y) {
  return SquaredError(x, y) / SquaredError(x, std::vector<float>(x.size(), 0.0f));
}

class CodecTest : public ::testing::TestWithParam<DType> {};

std::string TypeName(const ::testing::TestParamInfo<DType>& info) { return Info(info.param).name; }

INSTANTIATE_TEST_SUITE_P(Types, CodecTest, ::testing::ValuesIn(WritableTypes()), TypeName);

// ---- Against ggml -------------------------------------------------------------------------------------------------

// Fingerprints of what ggml's reference functions (to_float and from_float_ref of its type traits; llama.cpp commit
// 3f545bec, compiled without fused multiply-add) make of the same samples.
struct GgmlFingerprints {
  DType type;
  uint64_t decoded;  // of RandomBlocks(type, 7 + number of the type, 16384)
  uint64_t encoded;  // of SampleWeights(20261121, 16384)
};

constexpr GgmlFingerprints kGgml[] = {
    {DType::kF16, 0xe888bc8e60d03fe4, 0x915219eaa7a415ee},
    {DType::kBF16, 0x47291b085c624acf, 0x28ad5fc03db510ef},
    {DType::kQ8_0, 0x4c02f81a6e2355a9, 0x593ecf923c68ec6d},
    {DType::kQ4_0, 0xf933a25f1bac070f, 0x760f488eb3599a50},
    {DType::kQ4_1, 0xbe7b512922a568be, 0x1a2db14a4157d906},
    {DType::kQ5_0, 0xc30f9e93de473884, 0x750f54943c801b1d},
    {DType::kQ5_1, 0xc543079449fa920d, 0x9c0df24ca8c8403e},
    {DType::kQ4_K, 0x653d50d0eff07dea, 0},
    {DType::kQ5_K, 0x68887e9ba5ecd14c, 0},
    {DType::kQ6_K, 0x573215ac9363102a, 0},
    {DType::kQ2_K, 0x076fdf7b92e046e0, 0},
    {DType::kQ3_K, 0x66710f7457c2cf75, 0},
    {DType::kIQ4_NL, 0xa1a36ea932ed1108, 0},
    {DType::kIQ4_XS, 0x7d837ddca69178bb, 0},
    {DType::kMXFP4, 0xb55c44404c5e4bbe, 0xbee0384a0c82be4e},
    {DType::kNVFP4, 0x0f478be222db254a, 0},
    {DType::kTQ1_0, 0x0f0ad770045d4b55, 0xe7d846a99f630749},
    {DType::kTQ2_0, 0x55a038dd525a258f, 0x211a45e9f24fe3bd},
    {DType::kQ1_0, 0xb8f59a94e57ef0a5, 0xa49a31bd22ae1e9c},
    {DType::kQ2_0, 0x8d203d36e78eb223, 0xab650b96ae540ab8},
    {DType::kIQ1_S, 0x4fcb2aed5bdd2f1c, 0},
    {DType::kIQ1_M, 0xe8e9797182b22b68, 0},
    {DType::kIQ2_XXS, 0x2892ae9cb580d004, 0},
    {DType::kIQ2_XS, 0x5c303f702d1ef72c, 0},
    {DType::kIQ2_S, 0x4b4a2e93f115f35c, 0},
    {DType::kIQ3_XXS, 0xe0a17182602fdaf0, 0},
    {DType::kIQ3_S, 0xcda5ea04b060ed19, 0},
};

TEST(CodecAgainstGgml, EveryQuantizedTypeIsCompared) {
  for (const DType type : AllTypes()) {
    if (type == DType::kF32 || Info(type).ggml_id >= kOwnTypeIds) continue;
    EXPECT_EQ(1, std::count_if(std::begin(kGgml), std::end(kGgml), [type](const auto& g) { return g.type == type; }))
        << Info(type).name;
  }
}

TEST(CodecAgainstGgml, DecodesTheSameBits) {
  constexpr int kN = 16384;
  for (const GgmlFingerprints& ggml : kGgml) {
    const std::vector<float> x =
        Decode(ggml.type, RandomBlocks(ggml.type, 7 + static_cast<uint64_t>(ggml.type), kN), kN);
    EXPECT_EQ(Fingerprint(x.data(), x.size() * sizeof(float)), ggml.decoded) << Info(ggml.type).name;
  }
}

TEST(CodecAgainstGgml, EncodesTheSameBytes) {
  const std::vector<float> x = SampleWeights(20261121, 16384);
  for (const GgmlFingerprints& ggml : kGgml) {
    if (ggml.encoded == 0) continue;  // the format leaves the search open, or is only read
    const std::vector<uint8_t> bytes = Encode(ggml.type, x);
    EXPECT_EQ(Fingerprint(bytes.data(), bytes.size()), ggml.encoded) << Info(ggml.type).name;
  }
}

// Some encoders are searches in floating point; still, the same weights give the same bytes with every compiler, at
// every optimisation level and on every machine (here: GCC and Clang, x86-64 and AArch64), so that a model file can be
// reproduced. A deliberate change of the search changes these figures, and nothing else may.
TEST(Codec, SearchesAreReproducible) {
  const std::vector<float> x = SampleWeights(20261121, 16384);
  const auto fingerprint = [&x](DType type) {
    const std::vector<uint8_t> bytes = Encode(type, x);
    return Fingerprint(bytes.data(), bytes.size());
  };
  EXPECT_EQ(fingerprint(DType::kQ4_K), 0x759d0cce96eba324u);
  EXPECT_EQ(fingerprint(DType::kQ5_K), 0x783b7cff8717c68du);
  EXPECT_EQ(fingerprint(DType::kQ6_K), 0x7f6dc182339fca79u);
  EXPECT_EQ(fingerprint(DType::kQ2_K), 0x9ba48485ff3b94bfu);
  EXPECT_EQ(fingerprint(DType::kQ3_K), 0x6cf21d47f6387dbdu);
  EXPECT_EQ(fingerprint(DType::kIQ4_NL), 0x35f9f79a2f40a4b6u);
  EXPECT_EQ(fingerprint(DType::kIQ4_XS), 0xa38a5cead26d70c4u);
}

// Relative squared error of ggml's own encoders where they search, on the same million weights: ours may not be worse.
TEST(CodecAgainstGgml, SearchesLoseNoMoreThanItsEncoders) {
  struct Figures {
    DType type;
    double mixed;  // SampleWeights(5)
    double plain;  // BellWeights(9)
  };
  constexpr Figures kFigures[] = {{DType::kQ2_K, 7.7279e-02, 8.2983e-02},   {DType::kQ3_K, 2.1192e-02, 2.1270e-02},
                                  {DType::kIQ4_NL, 5.8609e-03, 5.8748e-03}, {DType::kIQ4_XS, 5.6274e-03, 5.5324e-03},
                                  {DType::kQ4_K, 4.3172e-03, 4.7397e-03},   {DType::kQ5_K, 1.1324e-03, 1.2125e-03},
                                  {DType::kQ6_K, 2.9143e-04, 2.9039e-04}};
  const std::vector<float> mixed = SampleWeights(5, 1 << 20);
  const std::vector<float> plain = BellWeights(9, 1 << 20);
  for (const Figures& ggml : kFigures) {
    const double mixed_error = RelativeError(mixed, RoundTrip(ggml.type, mixed));
    const double plain_error = RelativeError(plain, RoundTrip(ggml.type, plain));
    EXPECT_LE(mixed_error, ggml.mixed) << Info(ggml.type).name;
    EXPECT_LE(plain_error, ggml.plain) << Info(ggml.type).name;
    const std::string name = Info(ggml.type).name;
    RecordProperty(name + "_mixed", std::to_string(mixed_error / ggml.mixed));
    RecordProperty(name + "_plain", std::to_string(plain_error / ggml.plain));
  }
}

// ---- Error bounds that follow from the formats --------------------------------------------------------------------

// The most that one element of a block can be off. Rounding to a code costs at most half a step; a 16-bit scale is off
// by at most 2^-11 of itself (2^-25 when subnormal), times the greatest code. In q4_0 and q5_0 the end of the range
// away from the extreme element lacks a code, which costs up to a whole step. A little is left for float arithmetic.
double Bound(DType type, const float* x) {
  const auto [low, high] = std::minmax_element(x, x + Info(type).block_elems);
  const double extreme = std::max(std::fabs(*low), std::fabs(*high));
  const double range = static_cast<double>(*high) - *low;
  const auto scaled = [](double step, double steps, double max_code) {
    return (step * steps + max_code * std::max(step * 0x1p-11, 0x1p-25)) * (1 + 1e-5);
  };
  switch (type) {
    case DType::kF32:
      return 0.0;
    case DType::kF16:
      return std::max(extreme * 0x1p-11, 0x1p-25);
    case DType::kBF16:
      return extreme * 0x1p-8;
    case DType::kQ8_0:
      return scaled(extreme / 127, 0.5, 127);
    case DType::kQ4_0:
      return scaled(extreme / 8, 1.0, 8);
    case DType::kQ5_0:
      return scaled(extreme / 16, 1.0, 16);
    case DType::kQ4_1:
      return scaled(range / 15, 0.5, 15) + std::max(std::fabs(*low) * 0x1p-11, 0x1p-25);
    case DType::kQ5_1:
      return scaled(range / 31, 0.5, 31) + std::max(std::fabs(*low) * 0x1p-11, 0x1p-25);
    default:
      return 0.0;
  }
}

TEST(CodecBounds, EveryElementIsWithinTheBoundOfItsFormat) {
  constexpr uint64_t kSeed = 3;
  const std::vector<float> x = SampleWeights(kSeed, 1 << 16);
  for (const DType type :
       {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ5_0, DType::kQ4_1, DType::kQ5_1}) {
    const std::vector<float> y = RoundTrip(type, x);
    double used = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const size_t block =
          i / static_cast<size_t>(Info(type).block_elems) * static_cast<size_t>(Info(type).block_elems);
      const double bound = Bound(type, x.data() + block);
      const double miss = std::fabs(static_cast<double>(x[i]) - y[i]);
      ASSERT_LE(miss, bound) << Info(type).name << ", seed " << kSeed << ", element " << i << " = " << x[i];
      if (bound > 0) used = std::max(used, miss / bound);
    }
    // A bound that is never approached would hide a broken encoder.
    if (type != DType::kF32) {
      EXPECT_GE(used, 0.8) << Info(type).name;
    }
  }
}

// The obvious encoder of the K formats: each group from its least to its greatest element, scales to the nearest
// multiple. The search starts from there, so on any data it ends at or below that error.
double PlainAffineError(const float* x, int max_code) {
  float scales[8], mins[8];
  for (int g = 0; g < 8; ++g) {
    const auto [low, high] = std::minmax_element(x + 32 * g, x + 32 * g + 32);
    mins[g] = -std::min(*low, 0.0f);
    scales[g] = (std::max(*high, -mins[g]) + mins[g]) / static_cast<float>(max_code);
  }
  const float d = F16ToF32(F32ToF16(*std::max_element(scales, scales + 8) / 63));
  const float dmin = F16ToF32(F32ToF16(*std::max_element(mins, mins + 8) / 63));
  double error = 0;
  for (int i = 0; i < 256; ++i) {
    const float scale = d > 0 ? d * std::min(63.0f, std::round(scales[i / 32] / d)) : 0.0f;
    const float min = dmin > 0 ? dmin * std::min(63.0f, std::round(mins[i / 32] / dmin)) : 0.0f;
    const float q = scale > 0 ? std::clamp(std::round((x[i] + min) / scale), 0.0f, static_cast<float>(max_code)) : 0.0f;
    error += std::pow(static_cast<double>(x[i]) - (static_cast<double>(scale) * q - min), 2);
  }
  return error;
}

double PlainSymmetricError(const float* x) {
  float scales[16];
  for (int g = 0; g < 16; ++g) {
    float extreme = 0;
    for (int i = 16 * g; i < 16 * g + 16; ++i) extreme = std::fabs(x[i]) > std::fabs(extreme) ? x[i] : extreme;
    scales[g] = extreme / -32;
  }
  float greatest = 0;
  for (const float scale : scales) greatest = std::max(greatest, std::fabs(scale));
  const float d = F16ToF32(F32ToF16(greatest / 127));
  double error = 0;
  for (int i = 0; i < 256; ++i) {
    const float scale = d > 0 ? d * std::clamp(std::round(scales[i / 16] / d), -128.0f, 127.0f) : 0.0f;
    const float q = scale != 0 ? std::clamp(std::round(x[i] / scale), -32.0f, 31.0f) : 0.0f;
    error += std::pow(static_cast<double>(x[i]) - static_cast<double>(scale) * q, 2);
  }
  return error;
}

TEST(CodecBounds, KFormatsAreNoWorseThanThePlainEncoderInAnyBlock) {
  constexpr uint64_t kSeed = 11;
  constexpr size_t kBlocks = 512;
  const std::vector<float> x = SampleWeights(kSeed, 256 * kBlocks);
  for (const DType type : {DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    const std::vector<float> y = RoundTrip(type, x);
    for (size_t b = 0; b < kBlocks; ++b) {
      const float* block = x.data() + 256 * b;
      const double plain =
          type == DType::kQ6_K ? PlainSymmetricError(block) : PlainAffineError(block, type == DType::kQ4_K ? 15 : 31);
      const double found = SquaredError({block, block + 256}, {y.data() + 256 * b, y.data() + 256 * b + 256});
      ASSERT_LE(found, plain * 1.0001) << Info(type).name << ", seed " << kSeed << ", block " << b;
    }
  }
}

// ---- Formats that leave elements out ------------------------------------------------------------------------------

// The kept elements are those of largest magnitude of each group, within half a step of theirs; all others are 0.
TEST(SparseCodec, KeepsTheLargestOfEachGroup) {
  for (const auto& [type, group, kept] : {std::tuple{DType::kQ8_2of4, 4, 2}, std::tuple{DType::kQ8_16of32, 32, 16}}) {
    const std::vector<float> x = SampleWeights(33, 4096);
    const std::vector<float> y = RoundTrip(type, x);
    for (size_t from = 0; from < x.size(); from += group) {
      std::vector<float> magnitudes;
      float greatest = 0;
      for (size_t i = from; i < from + group; ++i) magnitudes.push_back(std::fabs(x[i]));
      for (size_t i = from / 32 * 32; i < from / 32 * 32 + 32; ++i) greatest = std::max(greatest, std::fabs(x[i]));
      std::sort(magnitudes.rbegin(), magnitudes.rend());
      const double half_step = greatest / 127 * (0.5 + 127 * 0x1p-11) + 0x1p-25;
      for (size_t i = from; i < from + group; ++i) {
        if (std::fabs(x[i]) > magnitudes[kept]) {
          ASSERT_NEAR(y[i], x[i], half_step) << Info(type).name << " element " << i;
        } else if (std::fabs(x[i]) < magnitudes[kept - 1]) {
          ASSERT_EQ(y[i], 0.0f) << Info(type).name << " element " << i;
        }
      }
    }
  }
}

// Blocks written by hand, byte by byte.
TEST(SparseCodec, ReadsItsByteDiagrams) {
  uint8_t block[22] = {};
  block[1] = 0x3c;  // scale 1
  for (int i = 0; i < 16; ++i) block[2 + i] = static_cast<uint8_t>(i % 2 == 0 ? i + 1 : -(i + 1));
  block[18] = 0b11'01'10'00;  // group 0: elements 0 and 2; group 1: elements 1 and 3
  block[19] = 0b10'10'01'00;  // group 2: elements 0 and 1; group 3: element 2 twice, the second code counts
  const std::vector<uint8_t> bytes(block, block + 22);
  const std::vector<float> two_of_four = Decode(DType::kQ8_2of4, bytes, 32);
  const std::vector<float> first = {1, 0, -2, 0, 0, 3, 0, -4, 5, -6, 0, 0, 0, 0, -8, 0};
  EXPECT_EQ(std::vector<float>(two_of_four.begin(), two_of_four.begin() + 16), first);

  block[18] = 0b1000'0001;
  block[19] = 0;
  block[20] = block[21] = 0xff;  // 18 are said to be kept: the last two are read as 0
  const std::vector<float> mask = Decode(DType::kQ8_16of32, {block, block + 22}, 32);
  EXPECT_EQ(mask[0], 1);
  EXPECT_EQ(mask[7], -2);
  EXPECT_EQ(mask[1], 0);
  EXPECT_EQ(mask[16], 3);
  EXPECT_EQ(mask[29], -16);
  EXPECT_EQ(mask[30], 0);
  EXPECT_EQ(mask[31], 0);
}

// ---- Properties of all formats ------------------------------------------------------------------------------------

TEST_P(CodecTest, ZerosStayZeros) {
  const std::vector<float> zeros(512, 0.0f);
  EXPECT_EQ(RoundTrip(GetParam(), zeros), zeros);
}

// What a block can hold exactly comes back exactly: decoding, encoding and decoding again changes nothing. For the
// affine formats a second rounding of scale and minimum may remain, so they are held to a fraction of a step.
TEST_P(CodecTest, DecodedValuesAreStable) {
  const DType type = GetParam();
  const std::vector<float> once = RoundTrip(type, SampleWeights(21, 4096));
  const std::vector<float> twice = RoundTrip(type, once);
  if (!IsQuantized(type)) {
    EXPECT_EQ(once, twice);
    return;
  }
  const bool coarse = type == DType::kQ4_0 || type == DType::kQ5_0 || type == DType::kQ2_K;
  EXPECT_LE(RelativeError(once, twice), coarse ? 2e-3 : 2e-4) << Info(type).name;
}

TEST_P(CodecTest, NeedsNoAlignment) {
  const DType type = GetParam();
  const std::vector<float> x = SampleWeights(8, 512);
  const std::vector<uint8_t> aligned = Encode(type, x);
  std::vector<uint8_t> shifted(aligned.size() + 1);
  QuantizeRow(type, x.data(), shifted.data() + 1, 512);
  EXPECT_EQ(0, std::memcmp(aligned.data(), shifted.data() + 1, aligned.size()));
  std::vector<float> y(512);
  DequantizeRow(type, shifted.data() + 1, y.data(), 512);
  EXPECT_EQ(y, Decode(type, aligned, 512));
}

TEST_P(CodecTest, AnEmptyRowTouchesNothing) {
  QuantizeRow(GetParam(), nullptr, nullptr, 0);
  DequantizeRow(GetParam(), nullptr, nullptr, 0);
}

// NaN, infinities, the largest and the smallest numbers, alone and among ordinary ones (run under UBSan).
TEST_P(CodecTest, EveryFloatCanBeEncodedAndQuantizedFormatsDecodeToFiniteNumbers) {
  const DType type = GetParam();
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kMax = std::numeric_limits<float>::max();
  constexpr float kTiny = std::numeric_limits<float>::denorm_min();
  const float specials[] = {
      std::numeric_limits<float>::quiet_NaN(), kInf, -kInf, kMax, -kMax, kTiny, -kTiny, 1e-38f, -0.0f, 65504.0f, 1e-7f};
  for (const float special : specials) {
    for (const bool alone : {true, false}) {
      std::vector<float> x = SampleWeights(2, 256);
      if (alone) std::fill(x.begin(), x.end(), special);
      x[37] = special;
      const std::vector<float> y = RoundTrip(type, x);
      if (IsQuantized(type)) {
        for (const float v : y) ASSERT_TRUE(std::isfinite(v)) << Info(type).name << " made " << v << " of " << special;
      }
    }
  }
  testing::Random random(77);
  std::vector<float> x(4096);
  for (float& v : x) v = std::bit_cast<float>(static_cast<uint32_t>(random.Next()));
  const std::vector<float> y = RoundTrip(type, x);
  if (IsQuantized(type)) {
    EXPECT_TRUE(std::all_of(y.begin(), y.end(), [](float v) { return std::isfinite(v); })) << Info(type).name;
  }
}

TEST_P(CodecTest, TooLargeNumbersKeepTheirSignAndMagnitudeOrder) {
  const DType type = GetParam();
  if (!IsQuantized(type)) return;
  std::vector<float> x(256, 0.0f);
  for (size_t i = 0; i < x.size(); i += 16) x[i] = i % 32 == 0 ? 1e30f : -1e30f;
  const std::vector<float> y = RoundTrip(type, x);
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] == 0) continue;
    EXPECT_EQ(std::signbit(x[i]), std::signbit(y[i])) << Info(type).name << " element " << i;
    EXPECT_GT(std::fabs(y[i]), 1e4f) << Info(type).name << " element " << i;
  }
}

// ---- Packing ------------------------------------------------------------------------------------------------------

TEST(GroupScales, PackAndUnpackAreInverse) {
  testing::Random random(6);
  for (int round = 0; round < 1000; ++round) {
    GroupScale groups[8];
    for (GroupScale& g : groups)
      g = {static_cast<uint8_t>(random.Next() % 64), static_cast<uint8_t>(random.Next() % 64)};
    uint8_t packed[12];
    PackGroupScales(groups, packed);
    for (int g = 0; g < 8; ++g) {
      const GroupScale back = UnpackGroupScale(packed, g);
      ASSERT_EQ(back.scale, groups[g].scale) << round;
      ASSERT_EQ(back.min, groups[g].min) << round;
    }
  }
}

// As many different numbers as a block of the type can hold exactly, at most 16.
std::vector<float> ExactLevels(DType type) {
  switch (type) {
    case DType::kIQ4_NL:
    case DType::kIQ4_XS:
      return {kIq4Values, kIq4Values + 16};
    case DType::kMXFP4:
      return {kE2M1Doubled, kE2M1Doubled + 16};
    case DType::kTQ1_0:
    case DType::kTQ2_0:
    case DType::kQ2_0:
      return {-1, 0, 1};
    case DType::kQ1_0:
      return {-1, 1};
    default:
      break;
  }
  const int n = type == DType::kQ2_K ? 4 : type == DType::kQ3_K ? 8 : 16;
  std::vector<float> levels;
  for (int i = 0; i < n; ++i) levels.push_back(static_cast<float>(i - n / 2));
  return levels;
}

// Every element has its own code: with codes that tell elements apart, no two are mixed up by packing. The levels come
// in an order that differs between groups, and within 16 elements each comes as often as the others.
TEST(Packing, ElementsKeepTheirPlaces) {
  for (const DType type : WritableTypes()) {
    if (!IsQuantized(type) || Info(type).ggml_id >= kOwnTypeIds) continue;
    const std::vector<float> levels = ExactLevels(type);
    std::vector<float> x(256);
    for (size_t i = 0; i < x.size(); ++i) x[i] = levels[(i * 5 + i / 16 * 3) % levels.size()];
    const std::vector<float> y = RoundTrip(type, x);
    for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(y[i], x[i], 0.49) << Info(type).name << " element " << i;
  }
}

}  // namespace
}  // namespace updraft::kernels
