// Encoding into the K formats is a search: which scale (and minimum) per group, given that all of a block are multiples
// of one or two 16-bit numbers, makes the decoded block closest to the original in squared error? Three steps:
//
//   1. Each group alone: from several starting ranges, alternate between the nearest codes for a scale and the
//      least-squares scale for those codes (Lloyd's iteration for a uniform quantizer) and keep the best.
//   2. The block: its 16-bit scales follow from the largest group scale; each group then tries the integer multiples
//      around its own optimum, with the codes each of them implies.
//   3. With codes and multiples fixed, the best 16-bit scales are again a least-squares solution; step 2 is repeated
//      from there as long as the block's error falls.
//
// Squared error without weights is the right goal when nothing is known of the activations: the expected error of a dot
// product with independent inputs of equal variance is proportional to it.
#include "kernels/formats/kquants.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/formats/sanitize.h"

namespace updraft::kernels {
namespace {

constexpr int kMaxRefinements = 3;

// Four floats at a time, which every supported machine has (SSE2, NEON): the same operations in the same order
// everywhere, and so the same model file from the same weights.
using Float4 = float __attribute__((vector_size(16)));
using Int4 = int32_t __attribute__((vector_size(16)));

Float4 Load4(const float* x) {
  Float4 v;
  std::memcpy(&v, x, sizeof(v));
  return v;
}

float Total(Float4 v) { return (v[0] + v[2]) + (v[1] + v[3]); }

int NearestCode(float v, int max_code) {
  return static_cast<int>(std::clamp(v, 0.0f, static_cast<float>(max_code)) + 0.5f);
}

// 1 / scale where codes can be computed with it; 0, which makes every code that of zero, for scales too small or zero.
float UsableInverse(float scale) {
  const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
  return std::isfinite(inverse) ? inverse : 0.0f;
}

// The nearest codes, kept as floats, of N numbers under x ~ scale * (q - zero) + offset; returns the squared error.
template <int N>
float NearestCodes(const float* x, float scale, float offset, float zero, float max_code, float* q) {
  const float inverse = UsableInverse(scale);
  const Float4 least = {};
  const Float4 greatest = least + max_code;
  Float4 error = {};
  for (int i = 0; i < N; i += 4) {
    const Float4 xs = Load4(x + i);
    const Float4 v = (xs - offset) * inverse + zero;
    const Float4 floored = v > least ? v : least;
    const Float4 clamped = floored < greatest ? floored : greatest;
    const Float4 codes = __builtin_convertvector(__builtin_convertvector(clamped + 0.5f, Int4), Float4);
    const Float4 miss = xs - (scale * (codes - zero) + offset);
    error += miss * miss;
    std::memcpy(q + i, &codes, sizeof(codes));
  }
  return Total(error);
}

void StoreCodes(const float* q, int n, uint8_t* codes) {
  for (int i = 0; i < n; ++i) codes[i] = static_cast<uint8_t>(q[i]);
}

// A positive scale must not vanish in binary16: a block of tiny numbers is better kept in multiples of 2^-24.
uint16_t PositiveF16(float x) {
  const uint16_t h = SaturatedF16(x);
  return h == 0 && x > 0.0f ? uint16_t{1} : h;
}

// ---- Affine groups: x ~ scale * q - min, scale >= 0, min >= 0 -----------------------------------------------------
// kGroup: elements of a group; kMaxUnit: the greatest multiple that a group's scale or minimum can be.

struct Affine {
  float scale = 0.0f;
  float min = 0.0f;
  float error = std::numeric_limits<float>::infinity();
};

// The least-squares (scale, min) for given codes.
template <int kGroup>
Affine SolveAffine(const float* x, const float* codes, float sum_x) {
  Float4 q_sums = {}, qq_sums = {}, qx_sums = {};
  for (int i = 0; i < kGroup; i += 4) {
    const Float4 q = Load4(codes + i);
    q_sums += q;
    qq_sums += q * q;
    qx_sums += q * Load4(x + i);
  }
  const float sum_q = Total(q_sums), sum_qq = Total(qq_sums), sum_qx = Total(qx_sums);
  const float determinant = kGroup * sum_qq - sum_q * sum_q;
  Affine fit;
  if (determinant > 0.0f) fit.scale = std::max(0.0f, (kGroup * sum_qx - sum_q * sum_x) / determinant);
  const float offset = (sum_x - fit.scale * sum_q) / kGroup;
  fit.min = -offset;
  if (offset > 0.0f) {  // minima are stored without a sign: the best fit is then on the boundary
    fit.min = 0.0f;
    fit.scale = sum_qq > 0.0f ? std::max(0.0f, sum_qx / sum_qq) : 0.0f;
  }
  return fit;
}

template <int kGroup>
Affine FitAffine(const float* x, int max_code) {
  // Shares of the full range to start from. Clipping outliers gives finer steps to all others; a range a little wider
  // than the data shifts the grid.
  constexpr float kRangeShares[] = {1.04f, 1.0f, 0.95f, 0.9f, 0.84f, 0.77f, 0.7f};
  constexpr int kIterations = 4;
  const auto [least, greatest] = std::minmax_element(x, x + kGroup);
  const float low = std::min(0.0f, *least);
  const float high = std::max(*greatest, low);
  Float4 sum_x = {};
  for (int i = 0; i < kGroup; i += 4) sum_x += Load4(x + i);
  Affine best;
  float codes[kGroup];
  for (const float share : kRangeShares) {
    Affine fit;
    fit.scale = share * (high - low) / static_cast<float>(max_code);
    fit.min = -low * share;
    for (int iteration = 0; iteration < kIterations; ++iteration) {
      const float error = NearestCodes<kGroup>(x, fit.scale, -fit.min, 0.0f, static_cast<float>(max_code), codes);
      if (error < best.error) best = {fit.scale, fit.min, error};
      const Affine next = SolveAffine<kGroup>(x, codes, Total(sum_x));
      if (next.scale == fit.scale && next.min == fit.min) break;
      fit = next;
    }
  }
  return best;
}

template <int kGroup>
struct AffineBlock {
  uint16_t d = 0;
  uint16_t dmin = 0;
  GroupScale groups[256 / kGroup] = {};
  uint8_t codes[256] = {};
  float error = std::numeric_limits<float>::infinity();
};

// Step 2 for the given 16-bit scales. wanted: [256 / kGroup], the groups' own optima.
template <int kGroup, int kMaxUnit>
AffineBlock<kGroup> AssignAffine(const float* x, uint16_t d, uint16_t dmin, const Affine* wanted, int max_code) {
  AffineBlock<kGroup> block;
  block.d = d;
  block.dmin = dmin;
  block.error = 0.0f;
  const float scale_unit = F16ToF32(d);
  const float min_unit = F16ToF32(dmin);
  for (int g = 0; g < 256 / kGroup; ++g) {
    const int scale0 = scale_unit > 0.0f ? NearestCode(wanted[g].scale / scale_unit, kMaxUnit) : 0;
    const int min0 = min_unit > 0.0f ? NearestCode(wanted[g].min / min_unit, kMaxUnit) : 0;
    float best = std::numeric_limits<float>::infinity();
    for (int s = std::max(0, scale0 - 1); s <= std::min(kMaxUnit, scale0 + 1); ++s) {
      for (int m = std::max(0, min0 - 1); m <= std::min(kMaxUnit, min0 + 1); ++m) {
        float codes[kGroup];
        const float error =
            NearestCodes<kGroup>(x + kGroup * g, scale_unit * static_cast<float>(s), -min_unit * static_cast<float>(m),
                                 0.0f, static_cast<float>(max_code), codes);
        if (error >= best) continue;
        best = error;
        block.groups[g] = {static_cast<uint8_t>(s), static_cast<uint8_t>(m)};
        StoreCodes(codes, kGroup, block.codes + kGroup * g);
      }
    }
    block.error += best;
  }
  return block;
}

// Step 3: the least-squares (d, dmin) for fixed multiples and codes. False where the system has no unique solution.
template <int kGroup>
bool SolveUnits(const float* x, const AffineBlock<kGroup>& block, float* d, float* dmin) {
  double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;  // x ~ d * a - dmin * b
  for (int g = 0; g < 256 / kGroup; ++g) {
    const double b = block.groups[g].min;
    for (int i = kGroup * g; i < kGroup * g + kGroup; ++i) {
      const double a = static_cast<double>(block.groups[g].scale) * block.codes[i];
      aa += a * a;
      ab += a * b;
      bb += b * b;
      ax += a * x[i];
      bx += b * x[i];
    }
  }
  const double determinant = aa * bb - ab * ab;
  if (bb == 0.0 && aa > 0.0) {
    *d = static_cast<float>(ax / aa);
    *dmin = 0.0f;
  } else if (determinant > 1e-9 * aa * bb) {
    *d = static_cast<float>((ax * bb - bx * ab) / determinant);
    *dmin = static_cast<float>((ax * ab - bx * aa) / determinant);
  } else {
    return false;
  }
  return *d > 0.0f && *dmin >= 0.0f;
}

template <int kGroup, int kMaxUnit>
AffineBlock<kGroup> SearchAffine(const float* x, int max_code) {
  Affine wanted[256 / kGroup];
  float max_scale = 0.0f;
  float max_min = 0.0f;
  for (int g = 0; g < 256 / kGroup; ++g) {
    wanted[g] = FitAffine<kGroup>(x + kGroup * g, max_code);
    max_scale = std::max(max_scale, wanted[g].scale);
    max_min = std::max(max_min, wanted[g].min);
  }
  AffineBlock<kGroup> best = AssignAffine<kGroup, kMaxUnit>(x, PositiveF16(max_scale / kMaxUnit),
                                                            PositiveF16(max_min / kMaxUnit), wanted, max_code);
  for (int round = 0; round < kMaxRefinements; ++round) {
    float d, dmin;
    if (!SolveUnits(x, best, &d, &dmin)) break;
    const AffineBlock<kGroup> next =
        AssignAffine<kGroup, kMaxUnit>(x, PositiveF16(d), PositiveF16(dmin), wanted, max_code);
    if (next.error >= best.error) break;
    best = next;
  }
  return best;
}

// ---- Symmetric groups of 16: x ~ scale * q, scale of either sign ---------------------------------------------------
// kHalf: q in [-kHalf, kHalf - 1]; kMaxUnit: multiples of the block's scale in [-kMaxUnit - 1, kMaxUnit].

struct Symmetric {
  float scale = 0.0f;
  float error = std::numeric_limits<float>::infinity();
};

template <int kHalf>
Symmetric FitSymmetric(const float* x) {
  // The code that the element of the largest magnitude starts from: on either side, clipped a little or not at all.
  constexpr float kStep = kHalf < 16 ? 0.25f : 1.0f;
  constexpr float kExtremeCodes[] = {
      -kHalf - kStep,    -kHalf,        -kHalf + kStep, -kHalf + 2 * kStep, -kHalf + 3 * kStep, kHalf - 3 * kStep,
      kHalf - 2 * kStep, kHalf - kStep, kHalf};
  constexpr int kIterations = 3;
  float extreme = 0.0f;
  for (int i = 0; i < 16; ++i) {
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  }
  Symmetric best;
  float codes[16];
  for (const float code : kExtremeCodes) {
    float scale = extreme / code;
    for (int iteration = 0; iteration < kIterations; ++iteration) {
      const float error = NearestCodes<16>(x, scale, 0.0f, kHalf, 2 * kHalf - 1, codes);
      if (error < best.error) best = {scale, error};
      Float4 qq = {}, qx = {};
      for (int i = 0; i < 16; i += 4) {
        const Float4 q = Load4(codes + i) - static_cast<float>(kHalf);
        qq += q * q;
        qx += q * Load4(x + i);
      }
      if (Total(qq) == 0.0f) break;
      const float next = Total(qx) / Total(qq);
      if (next == scale) break;
      scale = next;
    }
  }
  return best;
}

struct SymmetricBlock {
  uint16_t d = 0;
  int8_t scales[16] = {};
  uint8_t codes[256] = {};
  float error = std::numeric_limits<float>::infinity();
};

template <int kHalf, int kMaxUnit>
SymmetricBlock AssignSymmetric(const float* x, uint16_t d, const Symmetric* wanted) {
  SymmetricBlock block;
  block.d = d;
  block.error = 0.0f;
  const float unit = F16ToF32(d);
  for (int g = 0; g < 16; ++g) {
    const int scale0 =
        unit > 0.0f ? NearestCode(wanted[g].scale / unit + (kMaxUnit + 1), 2 * kMaxUnit + 1) - (kMaxUnit + 1) : 0;
    float best = std::numeric_limits<float>::infinity();
    for (int s = std::max(-kMaxUnit - 1, scale0 - 1); s <= std::min(kMaxUnit, scale0 + 1); ++s) {
      float codes[16];
      const float error = NearestCodes<16>(x + 16 * g, unit * static_cast<float>(s), 0.0f, kHalf, 2 * kHalf - 1, codes);
      if (error >= best) continue;
      best = error;
      block.scales[g] = static_cast<int8_t>(s);
      StoreCodes(codes, 16, block.codes + 16 * g);
    }
    block.error += best;
  }
  return block;
}

template <int kHalf, int kMaxUnit>
SymmetricBlock SearchSymmetric(const float* x) {
  Symmetric wanted[16];
  float max_scale = 0.0f;
  for (int g = 0; g < 16; ++g) {
    wanted[g] = FitSymmetric<kHalf>(x + 16 * g);
    max_scale = std::max(max_scale, std::fabs(wanted[g].scale));
  }
  SymmetricBlock best = AssignSymmetric<kHalf, kMaxUnit>(x, PositiveF16(max_scale / kMaxUnit), wanted);
  for (int round = 0; round < kMaxRefinements; ++round) {
    double aa = 0, ax = 0;
    for (int i = 0; i < 256; ++i) {
      const double a = static_cast<double>(best.scales[i / 16]) * (best.codes[i] - kHalf);
      aa += a * a;
      ax += a * x[i];
    }
    if (aa == 0.0 || ax <= 0.0) break;
    const SymmetricBlock next = AssignSymmetric<kHalf, kMaxUnit>(x, PositiveF16(static_cast<float>(ax / aa)), wanted);
    if (next.error >= best.error) break;
    best = next;
  }
  return best;
}

// Low four bits of the codes: byte i of run r holds groups 2r and 2r + 1.
void PackRuns(const uint8_t* codes, uint8_t qs[128]) {
  for (int r = 0; r < 4; ++r) {
    for (int i = 0; i < 32; ++i) {
      qs[32 * r + i] = static_cast<uint8_t>((codes[64 * r + i] & 15) | (codes[64 * r + 32 + i] & 15) << 4);
    }
  }
}

// Codes of 2 bits: those of 32h + i, 32h + 32 + i, ... of half h share byte 32h + i.
void PackQuarters(const uint8_t* codes, uint8_t qs[64]) {
  for (int i = 0; i < 64; ++i) {
    const uint8_t* q = codes + 128 * (i / 32) + i % 32;
    qs[i] = static_cast<uint8_t>((q[0] & 3) | (q[32] & 3) << 2 | (q[64] & 3) << 4 | (q[96] & 3) << 6);
  }
}

}  // namespace

void EncodeBlock(const float* x, BlockQ2_K& block) {
  const AffineBlock<16> found = SearchAffine<16, 15>(x, 3);
  block.d = found.d;
  block.dmin = found.dmin;
  for (int g = 0; g < 16; ++g) {
    block.scales[g] = static_cast<uint8_t>(found.groups[g].scale | found.groups[g].min << 4);
  }
  PackQuarters(found.codes, block.qs);
}

void EncodeBlock(const float* x, BlockQ3_K& block) {
  const SymmetricBlock found = SearchSymmetric<4, 31>(x);
  block.d = found.d;
  PackScales3(found.scales, block.scales);
  PackQuarters(found.codes, block.qs);
  std::memset(block.hmask, 0, sizeof(block.hmask));
  for (int i = 0; i < 256; ++i) block.hmask[i % 32] |= static_cast<uint8_t>((found.codes[i] >> 2) << (i / 32));
}

void EncodeBlock(const float* x, BlockQ4_K& block) {
  const AffineBlock<32> found = SearchAffine<32, 63>(x, 15);
  block.d = found.d;
  block.dmin = found.dmin;
  PackGroupScales(found.groups, block.scales);
  PackRuns(found.codes, block.qs);
}

void EncodeBlock(const float* x, BlockQ5_K& block) {
  const AffineBlock<32> found = SearchAffine<32, 63>(x, 31);
  block.d = found.d;
  block.dmin = found.dmin;
  PackGroupScales(found.groups, block.scales);
  PackRuns(found.codes, block.qs);
  std::memset(block.qh, 0, sizeof(block.qh));
  for (int i = 0; i < 256; ++i) block.qh[i % 32] |= static_cast<uint8_t>((found.codes[i] >> 4) << (i / 32));
}

void EncodeBlock(const float* x, BlockQ6_K& block) {
  const SymmetricBlock found = SearchSymmetric<32, 127>(x);
  block.d = found.d;
  std::memcpy(block.scales, found.scales, sizeof(block.scales));
  for (int h = 0; h < 2; ++h) {
    for (int i = 0; i < 32; ++i) {
      const uint8_t* q = found.codes + 128 * h + i;
      block.ql[64 * h + i] = static_cast<uint8_t>((q[0] & 15) | (q[64] & 15) << 4);
      block.ql[64 * h + 32 + i] = static_cast<uint8_t>((q[32] & 15) | (q[96] & 15) << 4);
      block.qh[32 * h + i] =
          static_cast<uint8_t>(q[0] >> 4 | (q[32] >> 4) << 2 | (q[64] >> 4) << 4 | (q[96] >> 4) << 6);
    }
  }
}

}  // namespace updraft::kernels
