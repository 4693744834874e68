// Activations to 8 bits, over the sixteen lanes of an instruction set (../simd/README.md).
#ifndef UPDRAFT_KERNELS_CPU_TILE_MATMUL_QUANTIZE_H_
#define UPDRAFT_KERNELS_CPU_TILE_MATMUL_QUANTIZE_H_

#include <cstdint>

#include "kernels/cpu/tile_matmul/tile_matmul.h"

namespace updraft::kernels {
namespace {

// What NaN and infinity count as the largest of.
inline int32_t MagnitudeOf(float max_abs) { return __builtin_bit_cast(int32_t, max_abs); }

// How numbers whose largest magnitude is `most` become codes in [-127, 127].
struct CodeScale {
  float inverse;  // code = x * inverse
  float scale;    // x ~ scale * code; NaN when not finite
  bool finite;
};
inline CodeScale ScaleOf(int32_t most) {
  constexpr float kLargest = 3.40282347e+38f;
  constexpr float kLeast = 4e-37f;  // below it 127 / max overflows; such numbers count as zero
  const float max = __builtin_bit_cast(float, most);
  if (!(max <= kLargest)) return {0.0f, __builtin_nanf(""), false};
  if (max < kLeast) return {0.0f, 0.0f, true};
  return {127.0f / max, max / 127.0f, true};
}

template <typename S>
void QuantizeToken(const float* x, int64_t n_in, int span_blocks, int index, int size, int8_t* q,
                   ActivationBlock* blocks) {
  using F = typename S::F;
  using I = typename S::I;
  CodeScale span = {};
  for (int64_t b = 0; b < n_in / kTileBlock; ++b) {
    const float* from = x + b * kTileBlock;
    if (b % span_blocks == 0) {
      int32_t most = 0;
      for (int i = 0; i < span_blocks; ++i) {
        const float* values = from + i * kTileBlock;
        const int32_t magnitude = MagnitudeOf(S::MaxAbs(S::Load(values), S::Load(values + 16)));
        most = magnitude > most ? magnitude : most;
      }
      span = ScaleOf(most);
    }
    const F zero = S::Zero();
    const I lo = S::ToInt(span.finite ? S::Mul(S::Load(from), S::Set(span.inverse)) : zero);
    const I hi = S::ToInt(span.finite ? S::Mul(S::Load(from + 16), S::Set(span.inverse)) : zero);
    int8_t* codes = q + (b * size + index) * kTileBlock;
    S::StoreI8(codes, lo);
    S::StoreI8(codes + 16, hi);
    const int32_t sum_lo = S::SumI(lo);
    const int32_t sum_hi = S::SumI(hi);
    const auto sum = static_cast<float>(sum_lo + sum_hi);
    blocks[b * size + index] = {.scale = span.scale,
                                .min_factor = span_blocks == 1 ? span.scale * sum : -sum,
                                .neg_sum = -(sum_lo + sum_hi),
                                .neg_half_sum = {-sum_lo, -sum_hi}};
  }
}

}  // namespace
}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_TILE_MATMUL_QUANTIZE_H_
