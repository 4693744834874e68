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

// 32 elements by nibbles, low ones first.
void DecodeNibbles(const uint8_t* qs, const int8_t* values, float scale, int n, float* x) {
  for (int i = 0; i < n / 2; ++i) {
    x[i] = scale * static_cast<float>(values[qs[i] & 15]);
    x[i + n / 2] = scale * static_cast<float>(values[qs[i] >> 4]);
  }
}

// Digit k of a byte of base-3 digits.
int Ternary(uint8_t byte, int k) {
  constexpr uint8_t kPowers[] = {1, 3, 9, 27, 81};
  return static_cast<uint8_t>(byte * kPowers[k]) * 3 >> 8;
}

float Signed(float x, uint8_t signs, int i) { return x * ((signs >> i & 1) ? -1.0f : 1.0f); }

// Eight elements of a point of an iq2 list.
void DecodeIq2Octet(uint16_t point, uint8_t signs, float scale, float* x) {
  for (int i = 0; i < 8; ++i) x[i] = Signed(scale * static_cast<float>(Iq2Value(point, i)), signs, i);
}

void DecodeIq1Octet(uint16_t point, float delta, float scale, float* x) {
  for (int i = 0; i < 8; ++i) x[i] = scale * (static_cast<float>(Iq1Value(point, i)) + delta);
}

}  // namespace

void DecodeBlock(const BlockIQ4_NL& b, float* x) { DecodeNibbles(b.qs, kIq4Values, F16ToF32(b.d), 32, x); }

void DecodeBlock(const BlockIQ4_XS& b, float* x) {
  const float d = F16ToF32(b.d);
  for (int g = 0; g < 8; ++g) {
    const int scale = (b.scales_l[g / 2] >> (4 * (g % 2)) & 15) | (b.scales_h >> (2 * g) & 3) << 4;
    DecodeNibbles(b.qs + 16 * g, kIq4Values, d * static_cast<float>(scale - 32), 32, x + 32 * g);
  }
}

void DecodeBlock(const BlockMXFP4& b, float* x) { DecodeNibbles(b.qs, kE2M1Doubled, HalfE8M0(b.e), 32, x); }

void DecodeBlock(const BlockNVFP4& b, float* x) {
  for (int g = 0; g < 4; ++g) DecodeNibbles(b.qs + 8 * g, kE2M1Doubled, HalfUE4M3(b.d[g]), 16, x + 16 * g);
}

void DecodeBlock(const BlockQ1_0& b, float* x) {
  const float d = F16ToF32(b.d);
  for (int i = 0; i < 128; ++i) x[i] = (b.qs[i / 8] >> (i % 8) & 1) ? d : -d;
}

void DecodeBlock(const BlockQ2_0& b, float* x) {
  const float d = F16ToF32(b.d);
  for (int i = 0; i < 64; ++i) x[i] = static_cast<float>((b.qs[i / 4] >> (2 * (i % 4)) & 3) - 1) * d;
}

void DecodeBlock(const BlockTQ1_0& b, float* x) {
  const float d = F16ToF32(b.d);
  const auto decode = [d](uint8_t byte, int k) { return static_cast<float>(Ternary(byte, k) - 1) * d; };
  for (int k = 0; k < 5; ++k) {
    for (int i = 0; i < 32; ++i) x[32 * k + i] = decode(b.qs[i], k);
    for (int i = 0; i < 16; ++i) x[160 + 16 * k + i] = decode(b.qs[32 + i], k);
  }
  for (int k = 0; k < 4; ++k) {
    for (int i = 0; i < 4; ++i) x[240 + 4 * k + i] = decode(b.qh[i], k);
  }
}

void DecodeBlock(const BlockTQ2_0& b, float* x) {
  const float d = F16ToF32(b.d);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128;
    const int code = b.qs[32 * half + i % 32] >> (2 * (i / 32 % 4)) & 3;
    x[i] = static_cast<float>(code - 1) * d;
  }
}

void DecodeBlock(const BlockIQ2_XXS& b, float* x) {
  const float d = F16ToF32(b.d);
  for (int g = 0; g < 8; ++g) {
    const uint8_t* points = b.qs + 8 * g;
    const uint32_t word = Word32(points + 4);
    const float scale = d * (0.5f + static_cast<float>(word >> 28)) * 0.25f;
    for (int l = 0; l < 4; ++l) {
      DecodeIq2Octet(kGridIq2Xxs[points[l]], EvenSigns(word >> (7 * l) & 127), scale, x + 32 * g + 8 * l);
    }
  }
}

void DecodeBlock(const BlockIQ2_XS& b, float* x) {
  const float d = F16ToF32(b.d);
  for (int octet = 0; octet < 32; ++octet) {
    const uint16_t word = Word16(b.qs + 2 * octet);
    const int s = b.scales[octet / 4] >> (octet % 4 < 2 ? 0 : 4) & 15;
    const float scale = d * (0.5f + static_cast<float>(s)) * 0.25f;
    DecodeIq2Octet(kGridIq2Xs[word & 511], EvenSigns(word >> 9), scale, x + 8 * octet);
  }
}

void DecodeBlock(const BlockIQ2_S& b, float* x) {
  const float d = F16ToF32(b.d);
  for (int octet = 0; octet < 32; ++octet) {
    const int high = b.qh[octet / 4] >> (2 * (octet % 4)) & 3;
    const int s = b.scales[octet / 4] >> (octet % 4 < 2 ? 0 : 4) & 15;
    const float scale = d * (0.5f + static_cast<float>(s)) * 0.25f;
    DecodeIq2Octet(kGridIq2S[b.qs[octet] | high << 8], b.signs[octet], scale, x + 8 * octet);
  }
}

void DecodeBlock(const BlockIQ3_XXS& b, float* x) {
  const float d = F16ToF32(b.d);
  for (int g = 0; g < 8; ++g) {
    const uint32_t word = Word32(b.words + 4 * g);
    const float scale = d * (0.5f + static_cast<float>(word >> 28)) * 0.5f;
    for (int i = 0; i < 32; ++i) {
      const uint16_t point = kGridIq3Xxs[b.qs[8 * g + i / 4]];
      const uint8_t signs = EvenSigns(word >> (7 * (i / 8)) & 127);
      x[32 * g + i] = Signed(scale * static_cast<float>(Iq3XxsValue(point, i % 4)), signs, i % 8);
    }
  }
}

void DecodeBlock(const BlockIQ3_S& b, float* x) {
  const float d = F16ToF32(b.d);
  for (int g = 0; g < 8; ++g) {
    const float scale = d * static_cast<float>(1 + 2 * (b.scales[g / 2] >> (4 * (g % 2)) & 15));
    for (int i = 0; i < 32; ++i) {
      const int p = i / 4;
      const uint16_t point = kGridIq3S[b.qs[8 * g + p] | (b.qh[g] >> p & 1) << 8];
      x[32 * g + i] = Signed(scale * static_cast<float>(Iq3SValue(point, i % 4)), b.signs[4 * g + i / 8], i % 8);
    }
  }
}

void DecodeBlock(const BlockIQ1_S& b, float* x) {
  const float d = F16ToF32(b.d);
  for (int octet = 0; octet < 32; ++octet) {
    const int l = octet % 4;
    const uint16_t word = Word16(b.qh + octet / 4 * 2);
    const float scale = d * static_cast<float>(2 * (word >> 12 & 7) + 1);
    const float delta = (word & 0x8000) ? -kIq1Delta : kIq1Delta;
    DecodeIq1Octet(kGridIq1[b.qs[octet] | (word >> (3 * l) & 7) << 8], delta, scale, x + 8 * octet);
  }
}

void DecodeBlock(const BlockIQ1_M& b, float* x) {
  uint16_t half = 0;
  for (int w = 0; w < 4; ++w) half |= static_cast<uint16_t>(Word16(b.scales + 2 * w) >> 12 << (4 * w));
  const float d = F16ToF32(half);
  for (int octet = 0; octet < 32; ++octet) {
    const int group = octet / 4;
    const int sixteenth = octet / 2;
    const int s = Word16(b.scales + group / 2 * 2) >> (3 * (sixteenth % 4)) & 7;
    const int nibble = b.qh[octet / 2] >> (4 * (octet % 2)) & 15;
    const float delta = (nibble & 8) ? -kIq1Delta : kIq1Delta;
    const float scale = d * static_cast<float>(2 * s + 1);
    DecodeIq1Octet(kGridIq1[b.qs[octet] | (nibble & 7) << 8], delta, scale, x + 8 * octet);
  }
}

}  // namespace updraft::kernels
