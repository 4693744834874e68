// Sixteen lanes as four 128-bit registers: AArch64 baseline. See README.md for the meaning of each member.
#ifndef UPDRAFT_KERNELS_CPU_SIMD_NEON_H_
#define UPDRAFT_KERNELS_CPU_SIMD_NEON_H_

#include <arm_neon.h>

#include <cstdint>

#include "kernels/cpu/simd/expand.h"

namespace updraft::kernels {
namespace {

struct Neon {
  struct F {
    float32x4_t v[4];
  };
  struct I {
    int32x4_t v[4];
  };
  struct W {
    uint8x16_t v[4];  // outputs 4i .. 4i + 3, 4 inputs each
  };
  struct Partial {
    int16x8_t v[8];  // outputs 2i, 2i + 1, 4 inputs each
  };

  // Each register of the result from the registers of the same index.
  template <typename Fn>
  static F Map(Fn fn) {
    return {fn(0), fn(1), fn(2), fn(3)};
  }
  template <typename Fn>
  static I MapI(Fn fn) {
    return {fn(0), fn(1), fn(2), fn(3)};
  }
  template <typename Fn>
  static W MapW(Fn fn) {
    return {fn(0), fn(1), fn(2), fn(3)};
  }

  // ---- memory
  static F Load(const float* p) {
    return Map([&](int i) { return vld1q_f32(p + 4 * i); });
  }
  static F LoadPartial(const float* p, int n) {
    float full[16] = {};
    __builtin_memcpy(full, p, n * sizeof(float));
    return Load(full);
  }
  static void Store(float* p, F a) {
    for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.v[i]);
  }
  static void StorePartial(float* p, F a, int n) {
    if (n == 16) return Store(p, a);
    float full[16];
    Store(full, a);
    __builtin_memcpy(p, full, n * sizeof(float));
  }
  static F LoadF16(const uint16_t* p) {
    return Map([&](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))); });
  }
  static F LoadF16Partial(const uint16_t* p, int n) {
    uint16_t full[16] = {};
    __builtin_memcpy(full, p, n * sizeof(uint16_t));
    return LoadF16(full);
  }
  static F LoadBf16(const uint16_t* p) {
    return Map([&](int i) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)); });
  }
  static F LoadBf16Partial(const uint16_t* p, int n) {
    uint16_t full[16] = {};
    __builtin_memcpy(full, p, n * sizeof(uint16_t));
    return LoadBf16(full);
  }
  static void StoreF16(uint16_t* p, F a) {
    for (int i = 0; i < 4; ++i) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(a.v[i])));
  }
  static void StoreF16Partial(uint16_t* p, F a, int n) {
    uint16_t full[16];
    StoreF16(full, a);
    __builtin_memcpy(p, full, n * sizeof(uint16_t));
  }
  static void StoreBf16(uint16_t* p, F a) {
    for (int i = 0; i < 4; ++i) {
      const uint32x4_t bits = vreinterpretq_u32_f32(a.v[i]);
      const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
      const uint32x4_t rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
      const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
      vst1_u16(p + 4 * i, vshrn_n_u32(vbslq_u32(vceqq_f32(a.v[i], a.v[i]), rounded, quiet), 16));
    }
  }
  static F LoadU8(const uint8_t* p) { return WidenU8(vld1q_u8(p)); }
  static F LoadLow4(const uint8_t* p) { return WidenU8(vandq_u8(vld1q_u8(p), vdupq_n_u8(15))); }
  static F LoadHigh4(const uint8_t* p) { return WidenU8(vshrq_n_u8(vld1q_u8(p), 4)); }
  static F WidenU8(uint8x16_t bytes) {
    const uint16x8_t lo = vmovl_u8(vget_low_u8(bytes));
    const uint16x8_t hi = vmovl_u8(vget_high_u8(bytes));
    return {vcvtq_f32_u32(vmovl_u16(vget_low_u16(lo))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(lo))),
            vcvtq_f32_u32(vmovl_u16(vget_low_u16(hi))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(hi)))};
  }
  static F LoadI8(const int8_t* p) {
    const int8x16_t bytes = vld1q_s8(p);
    const int16x8_t lo = vmovl_s8(vget_low_s8(bytes));
    const int16x8_t hi = vmovl_s8(vget_high_s8(bytes));
    return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(lo))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(lo))),
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(hi))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(hi)))};
  }

  // ---- float
  static F Zero() { return Set(0.0f); }
  static F Set(float x) {
    return Map([&](int) { return vdupq_n_f32(x); });
  }
  static F SetF16(uint16_t x) { return Set(vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(x))), 0)); }
  static F Add(F a, F b) {
    return Map([&](int i) { return vaddq_f32(a.v[i], b.v[i]); });
  }
  static F Sub(F a, F b) {
    return Map([&](int i) { return vsubq_f32(a.v[i], b.v[i]); });
  }
  static F Mul(F a, F b) {
    return Map([&](int i) { return vmulq_f32(a.v[i], b.v[i]); });
  }
  static F Div(F a, F b) {
    return Map([&](int i) { return vdivq_f32(a.v[i], b.v[i]); });
  }
  static F Abs(F a) {
    return Map([&](int i) { return vabsq_f32(a.v[i]); });
  }
  static F Fma(F a, F b, F c) {
    return Map([&](int i) { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); });
  }
  static float32x4_t Max4(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
  static F Max(F a, F b) {
    return Map([&](int i) { return Max4(a.v[i], b.v[i]); });
  }
  static F Min(F a, F b) {
    return Map([&](int i) { return vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]); });
  }

  // ---- pairs of BF16
  using Pairs = F;
  static constexpr int kPairPhases = 2;
  template <int kPhase>
  static Pairs LoadPairs(const uint16_t* p) {
    return Map([&](int i) {
      const uint32x4_t pairs = vreinterpretq_u32_u16(vld1q_u16(p + 8 * i));
      return vreinterpretq_f32_u32(kPhase == 0 ? vandq_u32(pairs, vdupq_n_u32(0xffff0000)) : vshlq_n_u32(pairs, 16));
    });
  }
  template <int kPhase>
  static Pairs LoadPairsPartial(const uint16_t* p, int n) {
    uint16_t full[32] = {};
    __builtin_memcpy(full, p, n * sizeof(uint16_t));
    return LoadPairs<kPhase>(full);
  }
  static F DotPairs(Pairs a, Pairs b, F c) { return Fma(a, b, c); }

  // ---- integer
  static I SetI(int32_t x) {
    return MapI([&](int) { return vdupq_n_s32(x); });
  }
  template <int kBits>
  static I ShiftLeft(I a) {
    return MapI([&](int i) { return vshlq_n_s32(a.v[i], kBits); });
  }
  static I ToInt(F a) {
    return MapI([&](int i) { return vcvtnq_s32_f32(a.v[i]); });
  }
  static F ToFloat(I a) {
    return Map([&](int i) { return vcvtq_f32_s32(a.v[i]); });
  }
  static F Pow2(I n) {
    return Map([&](int i) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n.v[i], vdupq_n_s32(127)), 23)); });
  }
  static int32_t SumI(I a) { return vaddvq_s32(vaddq_s32(vaddq_s32(a.v[0], a.v[1]), vaddq_s32(a.v[2], a.v[3]))); }
  static void StoreI8(int8_t* p, I a) {
    const int16x8_t lo = vcombine_s16(vqmovn_s32(a.v[0]), vqmovn_s32(a.v[1]));
    const int16x8_t hi = vcombine_s16(vqmovn_s32(a.v[2]), vqmovn_s32(a.v[3]));
    vst1q_s8(p, vcombine_s8(vqmovn_s16(lo), vqmovn_s16(hi)));
  }

  // ---- across lanes
  // The four sums of lanes i, i + 4, i + 8, i + 12, paired as Sum pairs them.
  static float32x4_t Fold(F a) { return vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3])); }
  static float Sum(F a) {
    const float32x4_t s4 = Fold(a);
    const float32x2_t s2 = vadd_f32(vget_low_f32(s4), vget_high_f32(s4));
    return vget_lane_f32(vpadd_f32(s2, s2), 0);
  }
  static float MaxOf(F a) {
    const float32x4_t m4 = Max4(Max4(a.v[0], a.v[2]), Max4(a.v[1], a.v[3]));
    const float m0 = vgetq_lane_f32(m4, 0);
    const float m1 = vgetq_lane_f32(m4, 1);
    const float m2 = vgetq_lane_f32(m4, 2);
    const float m3 = vgetq_lane_f32(m4, 3);
    const float m02 = m0 > m2 ? m0 : m2;
    const float m13 = m1 > m3 ? m1 : m3;
    return m02 > m13 ? m02 : m13;
  }
  // Largest magnitude of 32 values; NaN counts as larger than infinity.
  static float MaxAbs(F a, F b) {
    uint32x4_t m = vdupq_n_u32(0);
    for (int i = 0; i < 4; ++i) {
      m = vmaxq_u32(m, vreinterpretq_u32_f32(vabsq_f32(a.v[i])));
      m = vmaxq_u32(m, vreinterpretq_u32_f32(vabsq_f32(b.v[i])));
    }
    return __builtin_bit_cast(float, vmaxvq_u32(m));
  }

  // ---- integer dot products: all codes are taken as signed bytes (8-bit codes with their offset removed). A 16-bit
  // lane holds one product per step: 8 steps of codes up to 31 (8 * 31 * 127 = 31496), 4 up to 63, 2 of 8-bit codes.
  static constexpr bool kSignedBytes = true;
  static constexpr bool kTokenPairs = false;
  static constexpr int kGroup = 2;
  static constexpr int kSkinny = 3;
  static constexpr int kTiles = 1;
  static constexpr int MaxRun(int max_code) { return max_code <= 31 ? 8 : max_code <= 63 ? 4 : 2; }
  static W LoadW(const uint8_t* p) {
    return MapW([&](int i) { return vld1q_u8(p + 16 * i); });
  }
  static void StoreW(uint8_t* p, W a) {
    for (int i = 0; i < 4; ++i) vst1q_u8(p + 16 * i, a.v[i]);
  }
  static W Low4(W a) {
    return MapW([&](int i) { return vandq_u8(a.v[i], vdupq_n_u8(15)); });
  }
  static W High4(W a) {
    return MapW([&](int i) { return vshrq_n_u8(a.v[i], 4); });
  }
  // Bit kFrom of each byte to bit kTo.
  template <int kFrom, int kTo>
  static uint8x16_t MoveBit(uint8x16_t a) {
    if constexpr (kFrom < kTo) return vshlq_n_u8(a, kTo - kFrom);
    if constexpr (kFrom > kTo) return vshrq_n_u8(a, kFrom - kTo);
    return a;
  }
  template <int kBit>
  static W TwoBits(W a) {
    return MapW([&](int i) { return vandq_u8(MoveBit<kBit, 0>(a.v[i]), vdupq_n_u8(3)); });
  }
  template <int kBit, int kTo, int kMask>
  static W OrPlane(W low, W plane) {
    return MapW(
        [&](int i) { return vorrq_u8(low.v[i], vandq_u8(MoveBit<kBit, kTo>(plane.v[i]), vdupq_n_u8(kMask << kTo))); });
  }
  static W Expand(const uint8_t* codes, uint64_t mask, uint8_t fill) {
    return LoadW(ExpandBytes(codes, mask, fill).bytes);
  }
  static W Lookup(const uint8_t* table, W indices) {
    const uint8x16_t codes = vld1q_u8(table);
    return MapW([&](int i) { return vqtbl1q_u8(codes, indices.v[i]); });
  }
  template <int kMaxCode>
  static int8x16_t Signed(uint8x16_t w) {
    return vreinterpretq_s8_u8(kMaxCode < 128 ? w : veorq_u8(w, vdupq_n_u8(0x80)));
  }
  static Partial Begin(I /*acc*/) {
    Partial p;
    for (int i = 0; i < 8; ++i) p.v[i] = vdupq_n_s16(0);
    return p;
  }
  template <int kMaxCode>
  static Partial Step(Partial acc, W w, const int8_t* x) {
    int32_t four;
    __builtin_memcpy(&four, x, 4);
    const int8x8_t x8 = vreinterpret_s8_s32(vdup_n_s32(four));
    for (int i = 0; i < 4; ++i) {
      const int8x16_t s = Signed<kMaxCode>(w.v[i]);
      acc.v[2 * i] = vmlal_s8(acc.v[2 * i], vget_low_s8(s), x8);
      acc.v[2 * i + 1] = vmlal_s8(acc.v[2 * i + 1], vget_high_s8(s), x8);
    }
    return acc;
  }
  static I End(I acc, Partial p) {
    return MapI(
        [&](int i) { return vaddq_s32(acc.v[i], vpaddq_s32(vpaddlq_s16(p.v[2 * i]), vpaddlq_s16(p.v[2 * i + 1]))); });
  }

  // Not the builtin: GCC 12 takes functions that do nothing but prefetch for pure and drops the calls.
  static void Prefetch(const void* p) { asm volatile("prfm pldl1keep, %a0" : : "p"(p)); }
  static void PrefetchFar(const void* p) { asm volatile("prfm pldl2keep, %a0" : : "p"(p)); }
  static void PrefetchWrite(const void* p) { asm volatile("prfm pstl1keep, %a0" : : "p"(p)); }

  // ---- register blocks of the float matmul and of the probes
  static constexpr int kAttentionQueries = 6;
  static constexpr int kAttentionSums = 6;
  static constexpr int kDenseRows = 2;
  static constexpr int kDenseTokens = 2;
  static constexpr int kChains = 4;
};

}  // namespace
}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_SIMD_NEON_H_
