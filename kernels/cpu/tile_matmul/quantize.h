// Activations to 8 bits, over the sixteen lanes of an instruction set (../simd/README.md).
#ifndef UPDRAFT_KERNELS_CPU_TILE_MATMUL_QUANTIZE_H_
#define UPDRAFT_KERNELS_CPU_TILE_MATMUL_QUANTIZE_H_

#include <cstdint>

#include "kernels/cpu/tile_matmul/tile_matmul.h"

namespace updraft::kernels {
namespace {

// What NaN and infinity count as the largest of.
inline int32_t MagnitudeOf(float max_abs) { return __builtin_bit_cast(int32_t, max_abs); }

template <typename S>
void QuantizeToken(const float* x, int64_t n_in, int span_blocks, int index, int size, int8_t* q,
                   ActivationBlock* blocks) {
  using F = typename S::F;
  using I = typename S::I;
  constexpr float kLargest = 3.40282347e+38f;
  constexpr float kLeast = 4e-37f;  // below it 127 / max overflows; such a span counts as zero
  float inverse = 0.0f;
  float scale = 0.0f;
  for (int64_t b = 0; b < n_in / kTileBlock; ++b) {
    const float* from = x + b * kTileBlock;
    if (b % span_blocks == 0) {
      int32_t most = 0;
      for (int i = 0; i < span_blocks; ++i) {
        const float* values = from + i * kTileBlock;
        const int32_t magnitude = MagnitudeOf(S::MaxAbs(S::Load(values), S::Load(values + 16)));
        most = magnitude > most ? magnitude : most;
      }
      const float max = __builtin_bit_cast(float, most);
      const bool finite = max <= kLargest;
      inverse = finite && max >= kLeast ? 127.0f / max : 0.0f;
      scale = !finite ? __builtin_nanf("") : inverse == 0.0f ? 0.0f : max / 127.0f;
    }
    const F zero = S::Zero();
    const bool finite = scale == scale;
    const I lo = S::ToInt(finite ? S::Mul(S::Load(from), S::Set(inverse)) : zero);
    const I hi = S::ToInt(finite ? S::Mul(S::Load(from + 16), S::Set(inverse)) : zero);
    int8_t* codes = q + (b * size + index) * kTileBlock;
    S::StoreI8(codes, lo);
    S::StoreI8(codes + 16, hi);
    const int32_t sum_lo = S::SumI(lo);
    const int32_t sum_hi = S::SumI(hi);
    const auto sum = static_cast<float>(sum_lo + sum_hi);
    blocks[b * size + index] = {.scale = scale,
                                .min_factor = span_blocks == 1 ? scale * sum : -sum,
                                .neg_sum = -(sum_lo + sum_hi),
                                .neg_half_sum = {-sum_lo, -sum_hi}};
  }
}

}  // namespace
}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_TILE_MATMUL_QUANTIZE_H_
