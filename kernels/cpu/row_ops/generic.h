// The one body of each row operation, over the sixteen lanes of an instruction set (../simd/README.md).
#ifndef UPDRAFT_KERNELS_CPU_ROW_OPS_GENERIC_H_
#define UPDRAFT_KERNELS_CPU_ROW_OPS_GENERIC_H_

#include "kernels/cpu/row_ops/row_ops.h"
#include "kernels/cpu/simd/vec_math.h"

namespace updraft::kernels {
namespace {

template <typename S>
void RmsNormRow(const float* x, const float* gain, int width, float eps, float* y) {
  using F = typename S::F;
  F squares = S::Zero();
  int i = 0;
  for (; i + 16 <= width; i += 16) {
    const F v = S::Load(x + i);
    squares = S::Fma(v, v, squares);
  }
  const int tail = width - i;
  if (tail > 0) {
    const F v = S::LoadPartial(x + i, tail);
    squares = S::Fma(v, v, squares);
  }
  const float mean = S::Sum(squares) / static_cast<float>(width);
  const F scale = S::Set(1.0f / __builtin_sqrtf(mean + eps));
  for (i = 0; i + 16 <= width; i += 16) {
    S::Store(y + i, S::Mul(S::Mul(S::Load(x + i), scale), S::Load(gain + i)));
  }
  if (tail > 0) {
    const F v = S::Mul(S::Mul(S::LoadPartial(x + i, tail), scale), S::LoadPartial(gain + i, tail));
    S::StorePartial(y + i, v, tail);
  }
}

template <typename S>
typename S::F Silu(typename S::F gate) {
  return S::Div(gate, S::Add(S::Set(1.0f), Exp<S>(S::Sub(S::Zero(), gate))));
}

template <typename S>
void SwiGluValues(const float* gate, const float* up, int64_t n, float* out) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) S::Store(out + i, S::Mul(Silu<S>(S::Load(gate + i)), S::Load(up + i)));
  const int tail = static_cast<int>(n - i);
  if (tail > 0) {
    const typename S::F v = S::Mul(Silu<S>(S::LoadPartial(gate + i, tail)), S::LoadPartial(up + i, tail));
    S::StorePartial(out + i, v, tail);
  }
}

template <typename S>
int SiluActive(float* x, int n_groups, int group, float threshold, int32_t* active) {
  int n_active = 0;
  for (int g = 0; g < n_groups; ++g, x += group) {
    bool below = true;
    for (int i = 0; i < group; i += 32) {
      const typename S::F lo = Silu<S>(S::Load(x + i));
      const typename S::F hi = Silu<S>(S::Load(x + i + 16));
      S::Store(x + i, lo);
      S::Store(x + i + 16, hi);
      below &= S::MaxAbs(lo, hi) < threshold;  // false for NaN, which counts as largest
    }
    active[n_active] = g;
    n_active += below ? 0 : 1;
  }
  return n_active;
}

template <typename S>
void Multiply(const float* a, const float* b, int64_t n, float* out) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) S::Store(out + i, S::Mul(S::Load(a + i), S::Load(b + i)));
  const int tail = static_cast<int>(n - i);
  if (tail > 0) S::StorePartial(out + i, S::Mul(S::LoadPartial(a + i, tail), S::LoadPartial(b + i, tail)), tail);
}

template <typename S>
void ToF16(const float* x, int n, uint16_t* out) {
  int i = 0;
  for (; i + 16 <= n; i += 16) S::StoreF16(out + i, S::Load(x + i));
  if (i < n) S::StoreF16Partial(out + i, S::LoadPartial(x + i, n - i), n - i);
}

template <typename S>
void ToBf16(const float* x, int64_t n, uint16_t* out) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) S::StoreBf16(out + i, S::Load(x + i));
  const int tail = static_cast<int>(n - i);
  if (tail > 0) {
    uint16_t full[16];
    S::StoreBf16(full, S::LoadPartial(x + i, tail));
    __builtin_memcpy(out + i, full, tail * sizeof(uint16_t));
  }
}

// The table of one instruction set.
template <typename S>
constexpr RowOpsKernels MakeRowOpsKernels() {
  return {RmsNormRow<S>, SwiGluValues<S>, SiluActive<S>, Multiply<S>, ToF16<S>, ToBf16<S>};
}

}  // namespace
}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_ROW_OPS_GENERIC_H_
