// Functions over the sixteen lanes of an instruction set, from its basic operations alone: the same bits everywhere.
#ifndef UPDRAFT_KERNELS_CPU_SIMD_VEC_MATH_H_
#define UPDRAFT_KERNELS_CPU_SIMD_VEC_MATH_H_

namespace updraft::kernels {
namespace {

// e^x for x in [-87, 88], to which arguments are clamped; NaN stays NaN.
//
// x = n ln 2 + r with |r| <= 0.347, e^x = 2^n e^r. ln 2 is split so that n * kLn2High is exact. The Taylor polynomial
// of degree 7 leaves out less than 0.347^8 / 8! < 6e-9 of e^r; with the roundings of its last steps the relative error
// is below 1.5e-7 (tests/kernels/cpu/row_ops_test.cc checks it over the whole range).
template <typename S>
typename S::F Exp(typename S::F x) {
  using F = typename S::F;
  constexpr float kLog2E = 1.44269504f;
  constexpr float kLn2High = 0.693359375f;
  constexpr float kLn2Low = -2.12194440e-4f;
  x = S::Min(S::Set(88.0f), S::Max(S::Set(-87.0f), x));  // NaN is in the operand that Min and Max let through
  const typename S::I n = S::ToInt(S::Mul(x, S::Set(kLog2E)));
  const F fn = S::ToFloat(n);
  F r = S::Fma(fn, S::Set(-kLn2High), x);
  r = S::Fma(fn, S::Set(-kLn2Low), r);
  F p = S::Set(1.0f / 5040);
  p = S::Fma(p, r, S::Set(1.0f / 720));
  p = S::Fma(p, r, S::Set(1.0f / 120));
  p = S::Fma(p, r, S::Set(1.0f / 24));
  p = S::Fma(p, r, S::Set(1.0f / 6));
  p = S::Fma(p, r, S::Set(0.5f));
  p = S::Fma(p, r, S::Set(1.0f));
  p = S::Fma(p, r, S::Set(1.0f));
  return S::Mul(p, S::Pow2(n));
}

}  // namespace
}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_SIMD_VEC_MATH_H_
