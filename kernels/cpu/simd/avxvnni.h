// As avx2.h, with the 256-bit integer dot product of AVX-VNNI: client processors that have it but no AVX-512.
#ifndef UPDRAFT_KERNELS_CPU_SIMD_AVXVNNI_H_
#define UPDRAFT_KERNELS_CPU_SIMD_AVXVNNI_H_

#include "kernels/cpu/simd/avx2.h"

namespace updraft::kernels {
namespace {

struct AvxVnni : Avx2 {
  using Partial = I;
  static constexpr bool kSignedBytes = false;
  static constexpr int MaxRun(int /*max_code*/) { return 8; }

  static Partial Begin(I acc) { return acc; }
  template <int kMaxCode>
  static Partial Step(Partial acc, W w, const int8_t* x) {
    int32_t four;
    __builtin_memcpy(&four, x, 4);
    const __m256i x8 = _mm256_set1_epi32(four);
    return {_mm256_dpbusd_avx_epi32(acc.lo, w.lo, x8), _mm256_dpbusd_avx_epi32(acc.hi, w.hi, x8)};
  }
  static I End(I /*acc*/, Partial partial) { return partial; }
};

}  // namespace
}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_SIMD_AVXVNNI_H_
