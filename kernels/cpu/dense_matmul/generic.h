// The one body of the float matmul: a block of rows times a block of tokens, one vector of sums for each pair, so that
// a loaded weight serves all tokens of the block and a loaded activation all its rows.
#ifndef UPDRAFT_KERNELS_CPU_DENSE_MATMUL_GENERIC_H_
#define UPDRAFT_KERNELS_CPU_DENSE_MATMUL_GENERIC_H_

#include "kernels/cpu/dense_matmul/dense_matmul.h"

namespace updraft::kernels {
namespace {

// How the weights' elements become floats.
template <typename S>
struct F32Weights {
  using Element = float;
  static typename S::F Load(const float* p) { return S::Load(p); }
  static typename S::F LoadPartial(const float* p, int n) { return S::LoadPartial(p, n); }
};
template <typename S>
struct F16Weights {
  using Element = uint16_t;
  static typename S::F Load(const uint16_t* p) { return S::LoadF16(p); }
  static typename S::F LoadPartial(const uint16_t* p, int n) { return S::LoadF16Partial(p, n); }
};
template <typename S>
struct Bf16Weights {
  using Element = uint16_t;
  static typename S::F Load(const uint16_t* p) { return S::LoadBf16(p); }
  static typename S::F LoadPartial(const uint16_t* p, int n) { return S::LoadBf16Partial(p, n); }
};

constexpr int kPrefetchBytes = 4096;  // ahead of a sequential read

template <typename S, typename Weights, int kRows, int kTok>
struct DenseBlock {
  using F = typename S::F;
  using Element = typename Weights::Element;

  // One step of 16 inputs; kPartial: only n of them.
  template <bool kPartial>
  static inline __attribute__((always_inline)) void Step(const Element* w, const float* x, int64_t n_in, int n,
                                                         F (&sum)[kRows][kTok]) {
    F wv[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      if constexpr (kPartial) {
        wv[r] = Weights::LoadPartial(w + r * n_in, n);
      } else {
        wv[r] = Weights::Load(w + r * n_in);
        if constexpr (kRows * kTok == 1) S::Prefetch(reinterpret_cast<const char*>(w) + kPrefetchBytes);
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTok; ++t) {
      F xv;
      if constexpr (kPartial) {
        xv = S::LoadPartial(x + t * n_in, n);
      } else {
        xv = S::Load(x + t * n_in);
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) sum[r][t] = S::Fma(wv[r], xv, sum[r][t]);
    }
  }

  static void Run(const DenseMatMulArgs& args, int64_t out, int tok) {
    const Element* w = static_cast<const Element*>(args.w) + out * args.n_in;
    const float* x = args.x + tok * args.n_in;
    F sum[kRows][kTok];
    for (int r = 0; r < kRows; ++r) {
      for (int t = 0; t < kTok; ++t) sum[r][t] = S::Zero();
    }
    int64_t i = 0;
    for (; i + 16 <= args.n_in; i += 16) Step<false>(w + i, x + i, args.n_in, 16, sum);
    if (i < args.n_in) Step<true>(w + i, x + i, args.n_in, static_cast<int>(args.n_in - i), sum);
    for (int t = 0; t < kTok; ++t) {
      for (int r = 0; r < kRows; ++r) {
        float& y = args.y[(tok + t) * args.y_stride + out + r];
        float value = S::Sum(sum[r][t]);
        if (args.bias != nullptr) value += args.bias[out + r];
        y = args.accumulate ? value + y : value;
      }
    }
  }
};

// Tokens [tok, tok + n), n <= kTok, of rows [out, out + kRows).
template <typename S, typename Weights, int kRows, int kTok = S::kDenseTokens>
void RunTokens(const DenseMatMulArgs& args, int64_t out, int tok, int n) {
  if (n == kTok) {
    DenseBlock<S, Weights, kRows, kTok>::Run(args, out, tok);
  } else if constexpr (kTok > 1) {
    RunTokens<S, Weights, kRows, kTok - 1>(args, out, tok, n);
  }
}

template <typename S, typename Weights, int kRows>
void RunRows(const DenseMatMulArgs& args, int64_t out) {
  for (int tok = args.tok_from; tok < args.tok_to; tok += S::kDenseTokens) {
    const int left = args.tok_to - tok;
    RunTokens<S, Weights, kRows>(args, out, tok, left < S::kDenseTokens ? left : S::kDenseTokens);
  }
}

template <typename S, typename Weights, int kRows>
void RunAll(const DenseMatMulArgs& args) {
  int64_t out = args.out_from;
  for (; out + kRows <= args.out_to; out += kRows) RunRows<S, Weights, kRows>(args, out);
  for (; out < args.out_to; ++out) RunRows<S, Weights, 1>(args, out);
}

template <typename S, typename Weights>
void DenseMatMul(const DenseMatMulArgs& args) {
  // One token is bound by memory: row after row is one sequential stream, faster than several rows side by side, whose
  // addresses a power of two apart get into each other's way in the cache.
  if (args.tok_to - args.tok_from == 1) {
    RunAll<S, Weights, 1>(args);
  } else {
    RunAll<S, Weights, S::kDenseRows>(args);
  }
}

// The table of one instruction set.
template <typename S>
constexpr DenseMatMulKernels MakeDenseMatMulKernels() {
  return {DenseMatMul<S, F32Weights<S>>, DenseMatMul<S, F16Weights<S>>, DenseMatMul<S, Bf16Weights<S>>};
}

}  // namespace
}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_DENSE_MATMUL_GENERIC_H_
