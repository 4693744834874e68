// As avx512.h, with the BF16 dot product: of a pair of products that of the odd elements is added first, each addition
// rounded to nearest, as two fused multiply-adds round. Unlike these it takes numbers below 2^-126 for zero.
#ifndef UPDRAFT_KERNELS_CPU_SIMD_AVX512BF16_H_
#define UPDRAFT_KERNELS_CPU_SIMD_AVX512BF16_H_

#include "kernels/cpu/simd/avx512.h"

namespace updraft::kernels {
namespace {

struct Avx512Bf16 : Avx512Vnni {
  using Pairs = __m512i;
  static constexpr int kPairPhases = 1;
  template <int /*kPhase*/>
  static Pairs LoadPairs(const uint16_t* p) {
    return _mm512_loadu_si512(p);
  }
  template <int /*kPhase*/>
  static Pairs LoadPairsPartial(const uint16_t* p, int n) {
    return LoadSome(p, n);
  }
  static F DotPairs(Pairs a, Pairs b, F c) {
    return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
};

}  // namespace
}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_SIMD_AVX512BF16_H_
