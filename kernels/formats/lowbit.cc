#include "kernels/formats/lowbit.h"

#include <bit>
#include <cmath>

#include "kernels/formats/grids.h"

namespace updraft::kernels {
namespace {

uint16_t Word16(const uint8_t* bytes) { return static_cast<uint16_t>(bytes[0] | bytes[1] << 8); }

uint32_t Word32(const uint8_t* bytes) { return Word16(bytes) | static_cast<uint32_t>(Word16(bytes + 2)) << 16; }

// 2^(e - 128): half of what the exponent byte says, since E2M1 values are kept doubled.
float HalfE8M0(uint8_t e) {
  return std::bit_cast<float>(e < 2 ? 0x00200000u << e : static_cast<uint32_t>(e - 1) << 23);
}

// Half of an unsigned E4M3 number.
float HalfUE4M3(uint8_t e) {
  if (e == 0x7f) return 0.0f;
  const int exponent = e >> 3 & 15;
  const int mantissa = e & 7;
  const float value = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                    : std::ldexp(1.0f + static_cast<float>(mantissa) / 8.0f, exponent - 7);
  return value * 0.5f;
}

// n elements by nibbles, low ones first.
void UnpackNibbles(const uint8_t* qs, const int8_t* values, int n, int8_t* codes) {
  for (int i = 0; i < n / 2; ++i) {
    codes[i] = values[qs[i] & 15];
    codes[i + n / 2] = values[qs[i] >> 4];
  }
}

template <typename Block>
void SameScale(float scale, float* scales) {
  for (int i = 0; i < Block::kElems / 16; ++i) scales[i] = scale;
}

// Digit k of a byte of base-3 digits.
int Ternary(uint8_t byte, int k) {
  constexpr uint8_t kPowers[] = {1, 3, 9, 27, 81};
  return static_cast<uint8_t>(byte * kPowers[k]) * 3 >> 8;
}

int8_t Signed(int magnitude, uint8_t signs, int i) {
  return static_cast<int8_t>((signs >> i & 1) ? -magnitude : magnitude);
}

// Eight elements of a point of an iq2 list.
void UnpackIq2Octet(uint16_t point, uint8_t signs, int8_t* codes) {
  for (int i = 0; i < 8; ++i) codes[i] = Signed(Iq2Value(point, i), signs, i);
}

// Eight elements in eighths, which is what the IQ1 formats add or take away.
void UnpackIq1Octet(uint16_t point, bool minus, int8_t* codes) {
  static_assert(kIq1Delta == 0.125f);
  for (int i = 0; i < 8; ++i) codes[i] = static_cast<int8_t>(8 * Iq1Value(point, i) + (minus ? -1 : 1));
}

// The iq2 scale of 4 bits, of 16 elements: low nibble for the first half of 32.
float Iq2Scale(float d, uint8_t nibbles, int half) {
  return d * (0.5f + static_cast<float>(nibbles >> (4 * half) & 15)) * 0.25f;
}

}  // namespace

void Unpack(const BlockIQ4_NL& b, int8_t* codes, float* scales) {
  SameScale<BlockIQ4_NL>(F16ToF32(b.d), scales);
  UnpackNibbles(b.qs, kIq4Values, 32, codes);
}

void Unpack(const BlockIQ4_XS& b, int8_t* codes, float* scales) {
  const float d = F16ToF32(b.d);
  for (int g = 0; g < 8; ++g) {
    const int scale = (b.scales_l[g / 2] >> (4 * (g % 2)) & 15) | (b.scales_h >> (2 * g) & 3) << 4;
    scales[2 * g] = scales[2 * g + 1] = d * static_cast<float>(scale - 32);
    UnpackNibbles(b.qs + 16 * g, kIq4Values, 32, codes + 32 * g);
  }
}

void Unpack(const BlockMXFP4& b, int8_t* codes, float* scales) {
  SameScale<BlockMXFP4>(HalfE8M0(b.e), scales);
  UnpackNibbles(b.qs, kE2M1Doubled, 32, codes);
}

void Unpack(const BlockNVFP4& b, int8_t* codes, float* scales) {
  for (int g = 0; g < 4; ++g) {
    scales[g] = HalfUE4M3(b.d[g]);
    UnpackNibbles(b.qs + 8 * g, kE2M1Doubled, 16, codes + 16 * g);
  }
}

void Unpack(const BlockQ1_0& b, int8_t* codes, float* scales) {
  SameScale<BlockQ1_0>(F16ToF32(b.d), scales);
  for (int i = 0; i < 128; ++i) codes[i] = (b.qs[i / 8] >> (i % 8) & 1) ? 1 : -1;
}

void Unpack(const BlockQ2_0& b, int8_t* codes, float* scales) {
  SameScale<BlockQ2_0>(F16ToF32(b.d), scales);
  for (int i = 0; i < 64; ++i) codes[i] = static_cast<int8_t>((b.qs[i / 4] >> (2 * (i % 4)) & 3) - 1);
}

void Unpack(const BlockTQ1_0& b, int8_t* codes, float* scales) {
  SameScale<BlockTQ1_0>(F16ToF32(b.d), scales);
  const auto digit = [](uint8_t byte, int k) { return static_cast<int8_t>(Ternary(byte, k) - 1); };
  for (int k = 0; k < 5; ++k) {
    for (int i = 0; i < 32; ++i) codes[32 * k + i] = digit(b.qs[i], k);
    for (int i = 0; i < 16; ++i) codes[160 + 16 * k + i] = digit(b.qs[32 + i], k);
  }
  for (int k = 0; k < 4; ++k) {
    for (int i = 0; i < 4; ++i) codes[240 + 4 * k + i] = digit(b.qh[i], k);
  }
}

void Unpack(const BlockTQ2_0& b, int8_t* codes, float* scales) {
  SameScale<BlockTQ2_0>(F16ToF32(b.d), scales);
  for (int i = 0; i < 256; ++i) {
    codes[i] = static_cast<int8_t>((b.qs[32 * (i / 128) + i % 32] >> (2 * (i / 32 % 4)) & 3) - 1);
  }
}

void Unpack(const BlockIQ2_XXS& b, int8_t* codes, float* scales) {
  const float d = F16ToF32(b.d);
  for (int g = 0; g < 8; ++g) {
    const uint8_t* points = b.qs + 8 * g;
    const uint32_t word = Word32(points + 4);
    scales[2 * g] = scales[2 * g + 1] = d * (0.5f + static_cast<float>(word >> 28)) * 0.25f;
    for (int l = 0; l < 4; ++l) {
      UnpackIq2Octet(kGridIq2Xxs[points[l]], EvenSigns(word >> (7 * l) & 127), codes + 32 * g + 8 * l);
    }
  }
}

void Unpack(const BlockIQ2_XS& b, int8_t* codes, float* scales) {
  const float d = F16ToF32(b.d);
  for (int i = 0; i < 16; ++i) scales[i] = Iq2Scale(d, b.scales[i / 2], i % 2);
  for (int octet = 0; octet < 32; ++octet) {
    const uint16_t word = Word16(b.qs + 2 * octet);
    UnpackIq2Octet(kGridIq2Xs[word & 511], EvenSigns(word >> 9), codes + 8 * octet);
  }
}

void Unpack(const BlockIQ2_S& b, int8_t* codes, float* scales) {
  const float d = F16ToF32(b.d);
  for (int i = 0; i < 16; ++i) scales[i] = Iq2Scale(d, b.scales[i / 2], i % 2);
  for (int octet = 0; octet < 32; ++octet) {
    const int high = b.qh[octet / 4] >> (2 * (octet % 4)) & 3;
    UnpackIq2Octet(kGridIq2S[b.qs[octet] | high << 8], b.signs[octet], codes + 8 * octet);
  }
}

void Unpack(const BlockIQ3_XXS& b, int8_t* codes, float* scales) {
  const float d = F16ToF32(b.d);
  for (int g = 0; g < 8; ++g) {
    const uint32_t word = Word32(b.words + 4 * g);
    scales[2 * g] = scales[2 * g + 1] = d * (0.5f + static_cast<float>(word >> 28)) * 0.5f;
    for (int i = 0; i < 32; ++i) {
      const uint16_t point = kGridIq3Xxs[b.qs[8 * g + i / 4]];
      codes[32 * g + i] = Signed(Iq3XxsValue(point, i % 4), EvenSigns(word >> (7 * (i / 8)) & 127), i % 8);
    }
  }
}

void Unpack(const BlockIQ3_S& b, int8_t* codes, float* scales) {
  const float d = F16ToF32(b.d);
  for (int g = 0; g < 8; ++g) {
    scales[2 * g] = scales[2 * g + 1] = d * static_cast<float>(1 + 2 * (b.scales[g / 2] >> (4 * (g % 2)) & 15));
    for (int i = 0; i < 32; ++i) {
      const int p = i / 4;
      const uint16_t point = kGridIq3S[b.qs[8 * g + p] | (b.qh[g] >> p & 1) << 8];
      codes[32 * g + i] = Signed(Iq3SValue(point, i % 4), b.signs[4 * g + i / 8], i % 8);
    }
  }
}

void Unpack(const BlockIQ1_S& b, int8_t* codes, float* scales) {
  const float d = F16ToF32(b.d);
  for (int octet = 0; octet < 32; ++octet) {
    const int l = octet % 4;
    const uint16_t word = Word16(b.qh + octet / 4 * 2);
    scales[octet / 2] = d * static_cast<float>(2 * (word >> 12 & 7) + 1) * kIq1Delta;
    UnpackIq1Octet(kGridIq1[b.qs[octet] | (word >> (3 * l) & 7) << 8], (word & 0x8000) != 0, codes + 8 * octet);
  }
}

void Unpack(const BlockIQ1_M& b, int8_t* codes, float* scales) {
  uint16_t half = 0;
  for (int w = 0; w < 4; ++w) half |= static_cast<uint16_t>(Word16(b.scales + 2 * w) >> 12 << (4 * w));
  const float d = F16ToF32(half);
  for (int i = 0; i < 16; ++i) {
    const int s = Word16(b.scales + i / 4 * 2) >> (3 * (i % 4)) & 7;
    scales[i] = d * static_cast<float>(2 * s + 1) * kIq1Delta;
  }
  for (int octet = 0; octet < 32; ++octet) {
    const int nibble = b.qh[octet / 2] >> (4 * (octet % 2)) & 15;
    UnpackIq1Octet(kGridIq1[b.qs[octet] | (nibble & 7) << 8], (nibble & 8) != 0, codes + 8 * octet);
  }
}

}  // namespace updraft::kernels
