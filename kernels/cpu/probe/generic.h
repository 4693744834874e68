// The one body of the probes, over the sixteen lanes of an instruction set (../simd/README.md).
#ifndef UPDRAFT_KERNELS_CPU_PROBE_GENERIC_H_
#define UPDRAFT_KERNELS_CPU_PROBE_GENERIC_H_

#include "kernels/cpu/probe/probe.h"

namespace updraft::kernels {
namespace {

template <typename S>
float ReadAll(const uint8_t* p, size_t n) {
  using F = typename S::F;
  F sum[4] = {S::Zero(), S::Zero(), S::Zero(), S::Zero()};
  for (size_t at = 0; at < n; at += 256) {
    S::Prefetch(p + at + 4096);
    S::Prefetch(p + at + 4096 + 64);
    S::Prefetch(p + at + 4096 + 128);
    S::Prefetch(p + at + 4096 + 192);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) sum[i] = S::Add(sum[i], S::Load(reinterpret_cast<const float*>(p + at) + 16 * i));
  }
  return S::Sum(S::Add(S::Add(sum[0], sum[1]), S::Add(sum[2], sum[3])));
}

// S::kChains independent sums hide the latency of one.
template <typename S>
float MultiplyAdd(int64_t n_rounds) {
  using F = typename S::F;
  F sum[S::kChains];
#pragma GCC unroll 16
  for (int i = 0; i < S::kChains; ++i) sum[i] = S::Set(static_cast<float>(i));
  const F a = S::Set(0.999f);
  const F b = S::Set(0.001f);
  for (int64_t round = 0; round < n_rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < S::kChains; ++i) sum[i] = S::Fma(sum[i], a, b);
  }
  for (int i = 1; i < S::kChains; ++i) sum[0] = S::Add(sum[0], sum[i]);
  return S::Sum(sum[0]);
}

// The chains differ in their activations: of equal ones the compiler would compute one.
template <typename S>
int32_t Dot(int64_t n_rounds) {
  using I = typename S::I;
  using Partial = typename S::Partial;
  alignas(64) uint8_t codes[64];
  for (int i = 0; i < 64; ++i) codes[i] = static_cast<uint8_t>(i % 16);
  const typename S::W w = S::LoadW(codes);
  int8_t x[4 * S::kChains];
  for (int i = 0; i < 4 * S::kChains; ++i) x[i] = static_cast<int8_t>(i / 4 % 2 == 0 ? i % 7 - 3 : 3 - i % 5);
  constexpr int kRun = S::MaxRun(15);
  I total[S::kChains];
  Partial sum[S::kChains];
#pragma GCC unroll 16
  for (int i = 0; i < S::kChains; ++i) total[i] = S::SetI(0);
  for (int64_t round = 0; round < n_rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < S::kChains; ++i) sum[i] = S::Begin(total[i]);
    for (int step = 0; step < kRun; ++step) {
#pragma GCC unroll 16
      for (int i = 0; i < S::kChains; ++i) sum[i] = S::template Step<15>(sum[i], w, x + 4 * i);
    }
#pragma GCC unroll 16
    for (int i = 0; i < S::kChains; ++i) total[i] = S::End(total[i], sum[i]);
  }
  int32_t all = 0;
  for (int i = 0; i < S::kChains; ++i) all += S::SumI(total[i]);
  return all;
}

// The table of one instruction set.
template <typename S>
constexpr ProbeKernels MakeProbeKernels() {
  return {ReadAll<S>, MultiplyAdd<S>, S::kChains * 16 * 2, Dot<S>, S::kChains * S::MaxRun(15) * 64 * 2};
}

}  // namespace
}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_PROBE_GENERIC_H_
