// As avx512.h, with the byte expansion of VBMI2.
#ifndef UPDRAFT_KERNELS_CPU_SIMD_AVX512VBMI2_H_
#define UPDRAFT_KERNELS_CPU_SIMD_AVX512VBMI2_H_

#include "kernels/cpu/simd/avx512.h"

namespace updraft::kernels {
namespace {

struct Avx512Vbmi2 : Avx512Vnni {
  // Reads 64 bytes at codes. Not from memory in one instruction, which some processors take apart byte by byte.
  static W Expand(const uint8_t* codes, uint64_t mask, uint8_t fill) {
    return _mm512_mask_expand_epi8(_mm512_set1_epi8(static_cast<char>(fill)), mask, _mm512_loadu_si512(codes));
  }
};

}  // namespace
}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_SIMD_AVX512VBMI2_H_
