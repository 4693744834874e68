// Encoders of lowbit_blocks.h. The ternary and MX ones follow from the formats (and give ggml's bytes). Those with a
// table of 16 values search: from several starting scales, alternate between the nearest values for a scale and the
// least-squares scale for those values.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/formats/lowbit.h"
#include "kernels/formats/sanitize.h"

namespace updraft::kernels {
namespace {

float GreatestMagnitude(const float* x, int n) {
  float greatest = 0.0f;
  for (int i = 0; i < n; ++i) greatest = std::max(greatest, std::fabs(x[i]));
  return greatest;
}

float InverseOrZero(float scale) {
  const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
  return std::isfinite(inverse) ? inverse : 0.0f;
}

// ---- Tables of 16 values ------------------------------------------------------------------------------------------

// The code whose value is nearest to v; the greater of two that are equally near.
uint8_t NearestIq4(float v) {
  int code = 0;
  while (code < 15 && v - kIq4Values[code] >= kIq4Values[code + 1] - v) ++code;
  return static_cast<uint8_t>(code);
}

// Codes of 32 elements under a scale; the squared error.
float NearestIq4Codes(const float* x, float scale, uint8_t* codes) {
  const float inverse = InverseOrZero(scale);
  float error = 0.0f;
  for (int i = 0; i < 32; ++i) {
    codes[i] = NearestIq4(std::clamp(x[i] * inverse, -127.0f, 113.0f));
    const float miss = x[i] - scale * static_cast<float>(kIq4Values[codes[i]]);
    error += miss * miss;
  }
  return error;
}

// The best scale of 32 elements, of either sign, whatever it can be written as.
float FitIq4(const float* x) {
  // The value that the element of the largest magnitude starts from.
  constexpr float kExtremeValues[] = {-140.0f, -127.0f, -116.0f, -104.0f, -94.0f, 89.0f, 101.0f, 113.0f, 124.0f};
  constexpr int kIterations = 3;
  float extreme = 0.0f;
  for (int i = 0; i < 32; ++i) {
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  }
  float best = 0.0f;
  float best_error = std::numeric_limits<float>::infinity();
  uint8_t codes[32];
  for (const float value : kExtremeValues) {
    float scale = extreme / value;
    for (int iteration = 0; iteration < kIterations; ++iteration) {
      const float error = NearestIq4Codes(x, scale, codes);
      if (error < best_error) {
        best_error = error;
        best = scale;
      }
      float vv = 0.0f, vx = 0.0f;
      for (int i = 0; i < 32; ++i) {
        const float v = kIq4Values[codes[i]];
        vv += v * v;
        vx += v * x[i];
      }
      if (vx / vv == scale) break;  // no value of the table is 0, so vv is positive
      scale = vx / vv;
    }
  }
  return best;
}

void PackNibbles(const uint8_t* codes, uint8_t* qs) {
  for (int i = 0; i < 16; ++i) qs[i] = static_cast<uint8_t>(codes[i] | codes[i + 16] << 4);
}

// ---- Ternary ------------------------------------------------------------------------------------------------------

// round(x / d) + 1 with d the greatest magnitude: 0, 1 or 2.
struct Trits {
  uint16_t d;
  uint8_t digits[256];
};

Trits ToTrits(const float* x, int n) {
  Trits trits;
  const float d = GreatestMagnitude(x, n);
  const float inverse = InverseOrZero(d);
  trits.d = SaturatedF16(d);
  for (int i = 0; i < n; ++i) trits.digits[i] = static_cast<uint8_t>(std::lround(x[i] * inverse) + 1);
  return trits;
}

// n digits, `stride` apart, as the fraction that BlockTQ1_0 describes.
uint8_t PackTrits(const uint8_t* digits, int stride, int n) {
  int value = 0;
  for (int k = 0; k < 5; ++k) value = 3 * value + (k < n ? digits[stride * k] : 0);
  return static_cast<uint8_t>((value * 256 + 242) / 243);
}

}  // namespace

void EncodeBlock(const float* x, BlockIQ4_NL& block) {
  block.d = SaturatedF16(FitIq4(x));
  uint8_t codes[32];
  NearestIq4Codes(x, F16ToF32(block.d), codes);
  PackNibbles(codes, block.qs);
}

void EncodeBlock(const float* x, BlockIQ4_XS& block) {
  float wanted[8];
  for (int g = 0; g < 8; ++g) wanted[g] = FitIq4(x + 32 * g);
  float extreme = 0.0f;  // takes the code -32, of which there is one more
  for (const float scale : wanted) extreme = std::fabs(scale) > std::fabs(extreme) ? scale : extreme;
  std::memset(&block, 0, sizeof(block));
  block.d = SaturatedF16(extreme / -32.0f);
  const float d = F16ToF32(block.d);
  for (int g = 0; g < 8; ++g) {
    const int near = static_cast<int>(std::clamp(std::round(wanted[g] * InverseOrZero(d)), -32.0f, 31.0f));
    float best = std::numeric_limits<float>::infinity();
    int scale = 0;
    for (int s = std::max(-32, near - 1); s <= std::min(31, near + 1); ++s) {
      uint8_t codes[32];
      const float error = NearestIq4Codes(x + 32 * g, d * static_cast<float>(s), codes);
      if (error >= best) continue;
      best = error;
      scale = s;
      PackNibbles(codes, block.qs + 16 * g);
    }
    block.scales_l[g / 2] = static_cast<uint8_t>(block.scales_l[g / 2] | ((scale + 32) & 15) << (4 * (g % 2)));
    block.scales_h = static_cast<uint16_t>(block.scales_h | ((scale + 32) >> 4) << (2 * g));
  }
}

void EncodeBlock(const float* x, BlockMXFP4& block) {
  const float greatest = GreatestMagnitude(x, 32);
  // The greatest element lies in [4, 8) scales; E2M1 reaches 6.
  block.e = greatest > 0.0f ? static_cast<uint8_t>(std::max(0, std::ilogb(greatest) - 2 + 127)) : 0;
  const float d = std::ldexp(1.0f, block.e - 128);
  const auto nearest = [d](float v) {
    int best = 0;
    for (int code = 1; code < 16; ++code) {
      const auto miss = [d, v](int c) { return std::fabs(static_cast<float>(kE2M1Doubled[c]) * d - v); };
      if (miss(code) < miss(best)) best = code;
    }
    return best;
  };
  for (int i = 0; i < 16; ++i) block.qs[i] = static_cast<uint8_t>(nearest(x[i]) | nearest(x[i + 16]) << 4);
}

void EncodeBlock(const float* x, BlockQ1_0& block) {
  float sum = 0.0f;
  for (int i = 0; i < 128; ++i) sum += std::fabs(x[i]);
  block.d = SaturatedF16(sum / 128.0f);
  std::memset(block.qs, 0, sizeof(block.qs));
  for (int i = 0; i < 128; ++i) block.qs[i / 8] |= static_cast<uint8_t>((x[i] >= 0.0f ? 1 : 0) << (i % 8));
}

void EncodeBlock(const float* x, BlockQ2_0& block) {
  const Trits trits = ToTrits(x, 64);
  block.d = trits.d;
  std::memset(block.qs, 0, sizeof(block.qs));
  for (int i = 0; i < 64; ++i) block.qs[i / 4] |= static_cast<uint8_t>(trits.digits[i] << (2 * (i % 4)));
}

void EncodeBlock(const float* x, BlockTQ1_0& block) {
  const Trits trits = ToTrits(x, 256);
  block.d = trits.d;
  for (int i = 0; i < 32; ++i) block.qs[i] = PackTrits(trits.digits + i, 32, 5);
  for (int i = 0; i < 16; ++i) block.qs[32 + i] = PackTrits(trits.digits + 160 + i, 16, 5);
  for (int i = 0; i < 4; ++i) block.qh[i] = PackTrits(trits.digits + 240 + i, 4, 4);
}

void EncodeBlock(const float* x, BlockTQ2_0& block) {
  const Trits trits = ToTrits(x, 256);
  block.d = trits.d;
  std::memset(block.qs, 0, sizeof(block.qs));
  for (int i = 0; i < 256; ++i) {
    block.qs[32 * (i / 128) + i % 32] |= static_cast<uint8_t>(trits.digits[i] << (2 * (i / 32 % 4)));
  }
}

}  // namespace updraft::kernels
