#include "kernels/formats/codec.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "kernels/formats/blocks.h"
#include "kernels/formats/kquants.h"
#include "kernels/formats/lowbit.h"
#include "kernels/formats/sanitize.h"
#include "kernels/formats/sparse.h"

namespace updraft::kernels {
namespace {

// ---- Decoders, one block each -------------------------------------------------------------------------------------

void DecodeBlock(const BlockQ8_0& b, float* x) {
  const float d = F16ToF32(b.d);
  for (int i = 0; i < 32; ++i) x[i] = static_cast<float>(b.qs[i]) * d;
}

void DecodeBlock(const BlockQ4_0& b, float* x) {
  const float d = F16ToF32(b.d);
  for (int i = 0; i < 16; ++i) {
    x[i] = static_cast<float>((b.qs[i] & 15) - 8) * d;
    x[i + 16] = static_cast<float>((b.qs[i] >> 4) - 8) * d;
  }
}

void DecodeBlock(const BlockQ4_1& b, float* x) {
  const float d = F16ToF32(b.d);
  const float m = F16ToF32(b.m);
  for (int i = 0; i < 16; ++i) {
    x[i] = static_cast<float>(b.qs[i] & 15) * d + m;
    x[i + 16] = static_cast<float>(b.qs[i] >> 4) * d + m;
  }
}

uint32_t LoadLittleEndian32(const uint8_t bytes[4]) {
  return static_cast<uint32_t>(bytes[0]) | static_cast<uint32_t>(bytes[1]) << 8 |
         static_cast<uint32_t>(bytes[2]) << 16 | static_cast<uint32_t>(bytes[3]) << 24;
}

void StoreLittleEndian32(uint32_t word, uint8_t bytes[4]) {
  for (int i = 0; i < 4; ++i) bytes[i] = static_cast<uint8_t>(word >> (8 * i));
}

// The 5-bit code of element i of a block of 32.
int Code5(const uint8_t qs[16], uint32_t qh, int i) {
  const int low = i < 16 ? qs[i] & 15 : qs[i - 16] >> 4;
  return low | static_cast<int>((qh >> i) & 1u) << 4;
}

void DecodeBlock(const BlockQ5_0& b, float* x) {
  const float d = F16ToF32(b.d);
  const uint32_t qh = LoadLittleEndian32(b.qh);
  for (int i = 0; i < 32; ++i) x[i] = static_cast<float>(Code5(b.qs, qh, i) - 16) * d;
}

void DecodeBlock(const BlockQ5_1& b, float* x) {
  const float d = F16ToF32(b.d);
  const float m = F16ToF32(b.m);
  const uint32_t qh = LoadLittleEndian32(b.qh);
  for (int i = 0; i < 32; ++i) x[i] = static_cast<float>(Code5(b.qs, qh, i)) * d + m;
}

void DecodeBlock(const BlockQ2_K& b, float* x) {
  const float d = F16ToF32(b.d);
  const float dmin = F16ToF32(b.dmin);
  for (int i = 0; i < 256; ++i) {
    const uint8_t group = b.scales[i / 16];
    const int q = b.qs[i / 128 * 32 + i % 32] >> (2 * (i / 32 % 4)) & 3;
    x[i] = d * static_cast<float>(group & 15) * static_cast<float>(q) - dmin * static_cast<float>(group >> 4);
  }
}

void DecodeBlock(const BlockQ3_K& b, float* x) {
  const float d = F16ToF32(b.d);
  for (int i = 0; i < 256; ++i) {
    const int low = b.qs[i / 128 * 32 + i % 32] >> (2 * (i / 32 % 4)) & 3;
    const int q = low | (b.hmask[i % 32] >> (i / 32) & 1) << 2;
    x[i] = d * static_cast<float>(UnpackScale3(b.scales, i / 16)) * static_cast<float>(q - 4);
  }
}

// Of the formats with a scale and a minimum for each group of 32; high(g, i): bits above the lowest four.
template <typename Block, typename High>
void DecodeGroups(const Block& b, High high, float* x) {
  const float d = F16ToF32(b.d);
  const float dmin = F16ToF32(b.dmin);
  for (int g = 0; g < 8; ++g) {
    const GroupScale group = UnpackGroupScale(b.scales, g);
    const float scale = d * static_cast<float>(group.scale);
    const float min = dmin * static_cast<float>(group.min);
    const uint8_t* run = b.qs + 32 * (g / 2);
    const int shift = 4 * (g % 2);
    for (int i = 0; i < 32; ++i) {
      x[32 * g + i] = scale * static_cast<float>(((run[i] >> shift) & 15) | high(g, i)) - min;
    }
  }
}

void DecodeBlock(const BlockQ4_K& b, float* x) {
  DecodeGroups(
      b, [](int, int) { return 0; }, x);
}

void DecodeBlock(const BlockQ5_K& b, float* x) {
  DecodeGroups(
      b, [&b](int g, int i) { return ((b.qh[i] >> g) & 1) << 4; }, x);
}

void DecodeBlock(const BlockQ6_K& b, float* x) {
  const float d = F16ToF32(b.d);
  for (int h = 0; h < 2; ++h) {
    for (int quarter = 0; quarter < 4; ++quarter) {
      const uint8_t* low = b.ql + 64 * h + 32 * (quarter % 2);
      const uint8_t* high = b.qh + 32 * h;
      float* out = x + 128 * h + 32 * quarter;
      for (int i = 0; i < 32; ++i) {
        const int q = ((low[i] >> (4 * (quarter / 2))) & 15) | ((high[i] >> (2 * quarter)) & 3) << 4;
        const int8_t scale = b.scales[8 * h + 2 * quarter + i / 16];
        out[i] = d * static_cast<float>(scale) * static_cast<float>(q - 32);
      }
    }
  }
}

// ---- Encoders of the 32-element formats ---------------------------------------------------------------------------

// 1 / scale; 0 where that is not a finite number, which makes every code that of zero.
float InverseOrZero(float scale) {
  const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
  return std::isfinite(inverse) ? inverse : 0.0f;
}

// Truncates after adding 0.5 as the reference encoder does, within [0, max_code].
int TruncateToCode(float v, int max_code) {
  return static_cast<int>(std::clamp(v, 0.0f, static_cast<float>(max_code)));
}

// The element of the largest magnitude, with its sign; the first such.
float SignedExtreme(const float* x) {
  float extreme = 0.0f;
  for (int i = 0; i < 32; ++i) {
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  }
  return extreme;
}

void EncodeBlock(const float* x, BlockQ8_0& b) {
  const float d = std::fabs(SignedExtreme(x)) / 127.0f;
  const float inverse = InverseOrZero(d);
  b.d = SaturatedF16(d);
  for (int i = 0; i < 32; ++i) b.qs[i] = static_cast<int8_t>(std::clamp(std::round(x[i] * inverse), -127.0f, 127.0f));
}

// Symmetric codes 0 .. 2*half-1 around `half`. The element of the largest magnitude takes code 0, so that the one code
// more on the negative side is used whichever sign it has.
float EncodeSymmetric(const float* x, int half, int* codes) {
  const float d = SignedExtreme(x) / static_cast<float>(-half);
  const float inverse = InverseOrZero(d);
  for (int i = 0; i < 32; ++i) {
    codes[i] = TruncateToCode(x[i] * inverse + (static_cast<float>(half) + 0.5f), 2 * half - 1);
  }
  return d;
}

struct ScaleMin {
  float d;
  float m;
};

// Codes 0 .. max_code from the least element to the greatest.
ScaleMin EncodeAffine(const float* x, int max_code, int* codes) {
  const auto [least, greatest] = std::minmax_element(x, x + 32);
  const float d = (*greatest - *least) / static_cast<float>(max_code);
  const float inverse = InverseOrZero(d);
  for (int i = 0; i < 32; ++i) codes[i] = TruncateToCode((x[i] - *least) * inverse + 0.5f, max_code);
  return {d, *least};
}

void PackNibbles(const int* codes, uint8_t qs[16]) {
  for (int i = 0; i < 16; ++i) qs[i] = static_cast<uint8_t>((codes[i] & 15) | (codes[i + 16] & 15) << 4);
}

void PackFifthBits(const int* codes, uint8_t qh[4]) {
  uint32_t word = 0;
  for (int i = 0; i < 32; ++i) word |= static_cast<uint32_t>(codes[i] >> 4) << i;
  StoreLittleEndian32(word, qh);
}

void EncodeBlock(const float* x, BlockQ4_0& b) {
  int codes[32];
  b.d = SaturatedF16(EncodeSymmetric(x, 8, codes));
  PackNibbles(codes, b.qs);
}

void EncodeBlock(const float* x, BlockQ4_1& b) {
  int codes[32];
  const ScaleMin s = EncodeAffine(x, 15, codes);
  b.d = SaturatedF16(s.d);
  b.m = SaturatedF16(s.m);
  PackNibbles(codes, b.qs);
}

void EncodeBlock(const float* x, BlockQ5_0& b) {
  int codes[32];
  b.d = SaturatedF16(EncodeSymmetric(x, 16, codes));
  PackNibbles(codes, b.qs);
  PackFifthBits(codes, b.qh);
}

void EncodeBlock(const float* x, BlockQ5_1& b) {
  int codes[32];
  const ScaleMin s = EncodeAffine(x, 31, codes);
  b.d = SaturatedF16(s.d);
  b.m = SaturatedF16(s.m);
  PackNibbles(codes, b.qs);
  PackFifthBits(codes, b.qh);
}

// ---- Rows ---------------------------------------------------------------------------------------------------------

// Formats that are integers times a scale (lowbit.h).
template <typename Block>
concept IntegerBlock = requires(const Block& block, int8_t* codes, float* scales) {
  Unpack(block, codes, scales);
};

template <IntegerBlock Block>
void DecodeBlock(const Block& block, float* x) {
  int8_t codes[Block::kElems];
  float scales[Block::kElems / 16];
  Unpack(block, codes, scales);
  for (int i = 0; i < Block::kElems; ++i) x[i] = scales[i / 16] * static_cast<float>(codes[i]);
}

// Blocks are copied in and out, because coded rows carry no alignment.
template <typename Block>
void DecodeRow(const void* src, float* dst, int64_t n) {
  const auto* bytes = static_cast<const unsigned char*>(src);
  for (int64_t i = 0; i < n; i += Block::kElems, bytes += sizeof(Block)) {
    Block block;
    std::memcpy(&block, bytes, sizeof(block));
    DecodeBlock(block, dst + i);
  }
}

template <typename Block>
void EncodeRow(const float* src, void* dst, int64_t n) {
  auto* bytes = static_cast<unsigned char*>(dst);
  for (int64_t i = 0; i < n; i += Block::kElems, bytes += sizeof(Block)) {
    float x[Block::kElems];
    for (int j = 0; j < Block::kElems; ++j) x[j] = Sanitized(src[i + j]);
    Block block;
    EncodeBlock(x, block);
    std::memcpy(bytes, &block, sizeof(block));
  }
}

template <float (*Widen)(uint16_t)>
void DecodeHalves(const void* src, float* dst, int64_t n) {
  const auto* bytes = static_cast<const unsigned char*>(src);
  for (int64_t i = 0; i < n; ++i) {
    uint16_t h;
    std::memcpy(&h, bytes + 2 * i, sizeof(h));
    dst[i] = Widen(h);
  }
}

template <uint16_t (*Narrow)(float)>
void EncodeHalves(const float* src, void* dst, int64_t n) {
  auto* bytes = static_cast<unsigned char*>(dst);
  for (int64_t i = 0; i < n; ++i) {
    const uint16_t h = Narrow(src[i]);
    std::memcpy(bytes + 2 * i, &h, sizeof(h));
  }
}

template <typename Block>
void UnpackRow(const void* src, int8_t* codes, float* scales, int64_t n) {
  const auto* bytes = static_cast<const unsigned char*>(src);
  for (int64_t i = 0; i < n; i += Block::kElems, bytes += sizeof(Block)) {
    Block block;
    std::memcpy(&block, bytes, sizeof(block));
    Unpack(block, codes + i, scales + i / 16);
  }
}

void CopyFloats(const void* src, float* dst, int64_t n) { std::memcpy(dst, src, static_cast<size_t>(n) * 4); }
void CopyFloats(const float* src, void* dst, int64_t n) { std::memcpy(dst, src, static_cast<size_t>(n) * 4); }

// ---- The table ----------------------------------------------------------------------------------------------------

struct Codec {
  void (*decode)(const void* src, float* dst, int64_t n) = nullptr;
  void (*encode)(const float* src, void* dst, int64_t n) = nullptr;  // null: this project only reads the format
  void (*unpack)(const void* src, int8_t* codes, float* scales,
                 int64_t n) = nullptr;  // null: has minima, or is no code
};

template <typename Block>
constexpr Codec kReadOnly = {DecodeRow<Block>, nullptr, UnpackRow<Block>};

template <typename Block>
constexpr Codec kBoth = {DecodeRow<Block>, EncodeRow<Block>};

template <IntegerBlock Block>
constexpr Codec kBoth<Block> = {DecodeRow<Block>, EncodeRow<Block>, UnpackRow<Block>};

const Codec& CodecOf(DType type) {
  static constexpr auto kCodecs = [] {
    std::array<Codec, kNumDTypes> codecs{};
    std::array<bool, kNumDTypes> has_codec{};
    const auto set = [&](DType t, const Codec& codec) {
      codecs[static_cast<size_t>(t)] = codec;
      has_codec[static_cast<size_t>(t)] = true;
    };
    set(DType::kF32, {CopyFloats, CopyFloats});
    set(DType::kF16, {DecodeHalves<F16ToF32>, EncodeHalves<F32ToF16>});
    set(DType::kBF16, {DecodeHalves<BF16ToF32>, EncodeHalves<F32ToBF16>});
    set(DType::kQ8_0, kBoth<BlockQ8_0>);
    set(DType::kQ4_0, kBoth<BlockQ4_0>);
    set(DType::kQ4_1, kBoth<BlockQ4_1>);
    set(DType::kQ5_0, kBoth<BlockQ5_0>);
    set(DType::kQ5_1, kBoth<BlockQ5_1>);
    set(DType::kQ2_K, kBoth<BlockQ2_K>);
    set(DType::kQ3_K, kBoth<BlockQ3_K>);
    set(DType::kQ4_K, kBoth<BlockQ4_K>);
    set(DType::kQ5_K, kBoth<BlockQ5_K>);
    set(DType::kQ6_K, kBoth<BlockQ6_K>);
    set(DType::kIQ4_NL, kBoth<BlockIQ4_NL>);
    set(DType::kIQ4_XS, kBoth<BlockIQ4_XS>);
    set(DType::kMXFP4, kBoth<BlockMXFP4>);
    set(DType::kNVFP4, kReadOnly<BlockNVFP4>);
    set(DType::kTQ1_0, kBoth<BlockTQ1_0>);
    set(DType::kTQ2_0, kBoth<BlockTQ2_0>);
    set(DType::kQ1_0, kBoth<BlockQ1_0>);
    set(DType::kQ2_0, kBoth<BlockQ2_0>);
    set(DType::kIQ1_S, kReadOnly<BlockIQ1_S>);
    set(DType::kIQ1_M, kReadOnly<BlockIQ1_M>);
    set(DType::kIQ2_XXS, kReadOnly<BlockIQ2_XXS>);
    set(DType::kIQ2_XS, kReadOnly<BlockIQ2_XS>);
    set(DType::kIQ2_S, kReadOnly<BlockIQ2_S>);
    set(DType::kIQ3_XXS, kReadOnly<BlockIQ3_XXS>);
    set(DType::kIQ3_S, kReadOnly<BlockIQ3_S>);
    set(DType::kQ8_2of4, kBoth<BlockQ8_2of4>);
    set(DType::kQ8_16of32, kBoth<BlockQ8_16of32>);
    for (const bool has : has_codec) {
      if (!has) std::abort();  // in a constant expression: a type without a codec does not compile
    }
    return codecs;
  }();
  return kCodecs[static_cast<size_t>(type)];
}

}  // namespace

void DequantizeRow(DType type, const void* src, float* dst, int64_t n) {
  assert(n >= 0 && n % Info(type).block_elems == 0);
  if (n > 0) CodecOf(type).decode(src, dst, n);
}

bool CanUnpack(DType type) { return CodecOf(type).unpack != nullptr; }

void UnpackRow(DType type, const void* src, int8_t* codes, float* scales, int64_t n) {
  assert(n >= 0 && n % Info(type).block_elems == 0 && CanUnpack(type));
  if (n > 0) CodecOf(type).unpack(src, codes, scales, n);
}

bool CanQuantize(DType type) { return CodecOf(type).encode != nullptr; }

void QuantizeRow(DType type, const float* src, void* dst, int64_t n) {
  assert(n >= 0 && n % Info(type).block_elems == 0 && CanQuantize(type));
  if (n > 0) CodecOf(type).encode(src, dst, n);
}

}  // namespace updraft::kernels
