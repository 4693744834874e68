// The one body of each reduction over logits, over the sixteen lanes of an instruction set (../simd/README.md).
#ifndef UPDRAFT_KERNELS_CPU_LOGITS_GENERIC_H_
#define UPDRAFT_KERNELS_CPU_LOGITS_GENERIC_H_

#include "kernels/cpu/logits/logits.h"
#include "kernels/cpu/simd/vec_math.h"

namespace updraft::kernels {
namespace {

constexpr float kLowestLogit = -3.40282347e+38f;

// Max(NaN, b) is b: what is not finite becomes NaN (x - x is 0 or NaN) and then the lowest float.
template <typename S>
typename S::F FiniteOrLowest(typename S::F x) {
  return S::Max(S::Add(x, S::Sub(x, x)), S::Set(kLowestLogit));
}

// The last values of a row, the lanes beyond them set to `fill`.
template <typename S>
typename S::F LoadTail(const float* x, int n, float fill) {
  float padded[16];
  for (int i = 0; i < 16; ++i) padded[i] = i < n ? x[i] : fill;
  return S::Load(padded);
}

template <typename S>
float Peak(const float* logits, int64_t n) {
  using F = typename S::F;
  const float none = -__builtin_inff();
  F peak = S::Set(none);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) peak = S::Max(S::Load(logits + i), peak);
  if (i < n) peak = S::Max(LoadTail<S>(logits + i, static_cast<int>(n - i), none), peak);
  return S::MaxOf(peak);
}

template <typename S>
TopTwoLogits TopTwo(const float* logits, int64_t n) {
  using F = typename S::F;
  F first = S::Set(kLowestLogit);
  F second = first;
  const auto see = [&](F x) {
    x = FiniteOrLowest<S>(x);
    second = S::Max(S::Min(x, first), second);
    first = S::Max(x, first);
  };
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) see(S::Load(logits + i));
  if (i < n) see(LoadTail<S>(logits + i, static_cast<int>(n - i), kLowestLogit));
  // The second of all is a second of a lane or one of the lanes' firsts but the first.
  float firsts[16], seconds[16];
  S::Store(firsts, first);
  S::Store(seconds, second);
  TopTwoLogits top = {kLowestLogit, kLowestLogit};
  for (int k = 0; k < 32; ++k) {
    const float x = k < 16 ? firsts[k] : seconds[k - 16];
    if (x > top.first) {
      top.second = top.first;
      top.first = x;
    } else if (x > top.second) {
      top.second = x;
    }
  }
  return top;
}

template <typename S>
void Moments(const float* logits, int64_t n, float peak, double* mass, double* weighted) {
  using F = typename S::F;
  constexpr int64_t kPiece = 1024;
  const F least = S::Set(-87.0f);
  *mass = 0;
  *weighted = 0;
  for (int64_t from = 0; from < n; from += kPiece) {
    const int64_t to = from + kPiece < n ? from + kPiece : n;
    F e_sum = S::Zero();
    F de_sum = S::Zero();
    int64_t i = from;
    for (; i + 16 <= to; i += 16) {
      const F d = S::Max(S::Sub(FiniteOrLowest<S>(S::Load(logits + i)), S::Set(peak)), least);
      const F e = Exp<S>(d);
      e_sum = S::Add(e_sum, e);
      de_sum = S::Fma(d, e, de_sum);
    }
    *mass += static_cast<double>(S::Sum(e_sum));
    *weighted += static_cast<double>(S::Sum(de_sum));
    if (i == to) continue;
    // Lanes beyond the end must not count, so they are taken out after the fact.
    const int tail = static_cast<int>(to - i);
    const F d = S::Max(S::Sub(FiniteOrLowest<S>(LoadTail<S>(logits + i, tail, kLowestLogit)), S::Set(peak)), least);
    float e[16], de[16];
    S::Store(e, Exp<S>(d));
    S::Store(de, S::Mul(d, S::Load(e)));
    for (int lane = 0; lane < tail; ++lane) {
      *mass += static_cast<double>(e[lane]);
      *weighted += static_cast<double>(de[lane]);
    }
  }
}

// The table of one instruction set.
template <typename S>
constexpr LogitsKernels MakeLogitsKernels() {
  return {Peak<S>, TopTwo<S>, Moments<S>};
}

}  // namespace
}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_LOGITS_GENERIC_H_
