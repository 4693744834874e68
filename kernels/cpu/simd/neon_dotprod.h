// As neon.h, with the dot product extension of ARMv8.2 for the integer products.
#ifndef UPDRAFT_KERNELS_CPU_SIMD_NEON_DOTPROD_H_
#define UPDRAFT_KERNELS_CPU_SIMD_NEON_DOTPROD_H_

#include "kernels/cpu/simd/neon.h"

namespace updraft::kernels {
namespace {

struct NeonDotprod : Neon {
  using Partial = I;
  static constexpr int kGroup = 3;
  static constexpr int kChains = 5;
  static constexpr int MaxRun(int /*max_code*/) { return 8; }

  static Partial Begin(I acc) { return acc; }
  template <int kMaxCode>
  static Partial Step(Partial acc, W w, const int8_t* x) {
    int32_t four;
    __builtin_memcpy(&four, x, 4);
    const int8x16_t x16 = vreinterpretq_s8_s32(vdupq_n_s32(four));
    return MapI([&](int i) { return vdotq_s32(acc.v[i], Signed<kMaxCode>(w.v[i]), x16); });
  }
  static I End(I /*acc*/, Partial partial) { return partial; }
};

}  // namespace
}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_SIMD_NEON_DOTPROD_H_
