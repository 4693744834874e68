// As neon_dotprod.h, with the 8-bit matrix products of ARMv8.6: two outputs times two tokens over eight inputs in one
// instruction.
#ifndef UPDRAFT_KERNELS_CPU_SIMD_NEON_I8MM_H_
#define UPDRAFT_KERNELS_CPU_SIMD_NEON_I8MM_H_

#include "kernels/cpu/simd/neon_dotprod.h"

namespace updraft::kernels {
namespace {

struct NeonI8mm : NeonDotprod {
  static constexpr bool kTokenPairs = true;
  static constexpr int kGroup = 4;
  static constexpr int kSkinny = 4;

  struct Columns {
    int8x16_t v[8];  // outputs 2i, 2i + 1: eight inputs each
  };
  struct PairSums {
    int32x4_t v[8];  // outputs 2i, 2i + 1: two tokens each
  };

  template <int kMaxCode>
  static Columns Zip(W first, W second) {
    Columns columns;
    for (int i = 0; i < 4; ++i) {
      const int32x4_t a = vreinterpretq_s32_s8(Signed<kMaxCode>(first.v[i]));
      const int32x4_t b = vreinterpretq_s32_s8(Signed<kMaxCode>(second.v[i]));
      columns.v[2 * i] = vreinterpretq_s8_s32(vzip1q_s32(a, b));
      columns.v[2 * i + 1] = vreinterpretq_s8_s32(vzip2q_s32(a, b));
    }
    return columns;
  }
  static PairSums BeginPair() {
    PairSums sums;
    for (int i = 0; i < 8; ++i) sums.v[i] = vdupq_n_s32(0);
    return sums;
  }
  static PairSums StepPair(PairSums sums, Columns w, const int8_t* x, const int8_t* next_x) {
    const int8x16_t both = vcombine_s8(vld1_s8(x), vld1_s8(next_x));
    for (int i = 0; i < 8; ++i) sums.v[i] = vmmlaq_s32(sums.v[i], w.v[i], both);
    return sums;
  }
  static I EndFirst(I acc, PairSums sums) {
    return MapI([&](int i) { return vaddq_s32(acc.v[i], vuzp1q_s32(sums.v[2 * i], sums.v[2 * i + 1])); });
  }
  static I EndSecond(I acc, PairSums sums) {
    return MapI([&](int i) { return vaddq_s32(acc.v[i], vuzp2q_s32(sums.v[2 * i], sums.v[2 * i + 1])); });
  }

  static constexpr int kDotChains = 2;
};

}  // namespace
}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_SIMD_NEON_I8MM_H_
