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

template <typename S>
float MultiplyAddBf16(int64_t n_rounds) {
  using F = typename S::F;
  F sum[S::kChains];
#pragma GCC unroll 16
  for (int i = 0; i < S::kChains; ++i) sum[i] = S::Set(static_cast<float>(i));
  uint16_t values[32];
  for (int i = 0; i < 32; ++i) values[i] = static_cast<uint16_t>(0x3c00 + i);  // about 2^-7
  const typename S::Pairs odd = S::template LoadPairs<0>(values);
  const typename S::Pairs even = S::template LoadPairs<S::kPairPhases - 1>(values);
  for (int64_t round = 0; round < n_rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < S::kChains; ++i) sum[i] = S::DotPairs(odd, odd, sum[i]);
    if constexpr (S::kPairPhases == 2) {
#pragma GCC unroll 16
      for (int i = 0; i < S::kChains; ++i) sum[i] = S::DotPairs(even, even, sum[i]);
    }
  }
  for (int i = 1; i < S::kChains; ++i) sum[0] = S::Add(sum[0], sum[i]);
  return S::Sum(sum[0]);
}

// Of two tokens at once, all of whose inputs are one chain's four.
template <typename S>
int32_t DotOfPairs(int64_t n_rounds) {
  alignas(64) uint8_t codes[64];
  for (int i = 0; i < 64; ++i) codes[i] = static_cast<uint8_t>(i % 16);
  const auto columns = S::template Zip<15>(S::LoadW(codes), S::LoadW(codes));
  int8_t x[S::kDotChains][8];
  typename S::PairSums sum[S::kDotChains];
  for (int i = 0; i < S::kDotChains; ++i) {
    for (int k = 0; k < 8; ++k) {
      const int at = 4 * i + k % 4;
      x[i][k] = static_cast<int8_t>(i % 2 == 0 ? at % 7 - 3 : 3 - at % 5);
    }
    sum[i] = S::BeginPair();
  }
  for (int64_t round = 0; round < n_rounds; ++round) {
#pragma GCC unroll 4
    for (int i = 0; i < S::kDotChains; ++i) sum[i] = S::StepPair(sum[i], columns, x[i], x[i]);
  }
  int32_t all = 0;
  for (int i = 0; i < S::kDotChains; ++i) {
    all += S::SumI(S::EndFirst(S::SetI(0), sum[i])) + S::SumI(S::EndSecond(S::SetI(0), sum[i]));
  }
  return all;
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
  ProbeKernels probe{.read = ReadAll<S>,
                     .multiply_add = MultiplyAdd<S>,
                     .flops_per_round = S::kChains * 16 * 2,
                     .multiply_add_bf16 = MultiplyAddBf16<S>,
                     .bf16_flops_per_round = S::kChains * 32 * 2};
  if constexpr (S::kTokenPairs) {
    probe.dot = DotOfPairs<S>;
    probe.dot_chains = S::kDotChains;
    probe.ops_per_round = S::kDotChains * 2 * 2 * 64 * 2;
  } else {
    probe.dot = Dot<S>;
    probe.dot_chains = S::kChains;
    probe.ops_per_round = S::kChains * S::MaxRun(15) * 64 * 2;
  }
  return probe;
}

}  // namespace
}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_PROBE_GENERIC_H_
