// The one body of the float matmul: a block of rows times a block of tokens, one vector of sums for each pair, so that
// a loaded weight serves all tokens of the block and a loaded activation all its rows.
//
// Many tokens: the inputs are cut too, so that what a block of tokens reads stays in the nearest cache while rows pass
// by (Goto and van de Geijn 2008). Sums wait between two cuts as they are, in lanes: no bit depends on the cut.
#ifndef UPDRAFT_KERNELS_CPU_DENSE_MATMUL_GENERIC_H_
#define UPDRAFT_KERNELS_CPU_DENSE_MATMUL_GENERIC_H_

#include "kernels/cpu/dense_matmul/dense_matmul.h"

namespace updraft::kernels {
namespace {

// The operands of a step: kWidth consecutive inputs of a row and of a token, in kPhases parts that are added one after
// the other. Load is overloaded: of weights (Element) and of activations (Activation).
template <typename S>
struct F32Weights {
  using Element = float;
  using Activation = float;
  static constexpr int kWidth = 16;
  static constexpr int kPhases = 1;
  template <int /*kPhase*/>
  static typename S::F Load(const float* p) {
    return S::Load(p);
  }
  template <int /*kPhase*/>
  static typename S::F LoadPartial(const float* p, int n) {
    return S::LoadPartial(p, n);
  }
  static typename S::F MultiplyAdd(typename S::F w, typename S::F x, typename S::F sum) { return S::Fma(w, x, sum); }
};
template <typename S>
struct F16Weights {
  using Element = uint16_t;
  using Activation = float;
  static constexpr int kWidth = 16;
  static constexpr int kPhases = 1;
  template <int /*kPhase*/>
  static typename S::F Load(const uint16_t* p) {
    return S::LoadF16(p);
  }
  template <int /*kPhase*/>
  static typename S::F Load(const float* p) {
    return S::Load(p);
  }
  template <int /*kPhase*/>
  static typename S::F LoadPartial(const uint16_t* p, int n) {
    return S::LoadF16Partial(p, n);
  }
  template <int /*kPhase*/>
  static typename S::F LoadPartial(const float* p, int n) {
    return S::LoadPartial(p, n);
  }
  static typename S::F MultiplyAdd(typename S::F w, typename S::F x, typename S::F sum) { return S::Fma(w, x, sum); }
};
template <typename S>
struct Bf16Weights {
  using Element = uint16_t;
  using Activation = uint16_t;
  static constexpr int kWidth = 32;
  static constexpr int kPhases = S::kPairPhases;
  template <int kPhase>
  static typename S::Pairs Load(const uint16_t* p) {
    return S::template LoadPairs<kPhase>(p);
  }
  template <int kPhase>
  static typename S::Pairs LoadPartial(const uint16_t* p, int n) {
    return S::template LoadPairsPartial<kPhase>(p, n);
  }
  static typename S::F MultiplyAdd(typename S::Pairs w, typename S::Pairs x, typename S::F sum) {
    return S::DotPairs(w, x, sum);
  }
};

constexpr int kPrefetchBytes = 4096;  // ahead of a sequential read

template <typename S, typename Weights, int kRows, int kTok>
struct DenseBlock {
  using F = typename S::F;
  using Element = typename Weights::Element;
  using Activation = typename Weights::Activation;

  // One part of a step; kPartial: of only n inputs.
  template <int kPhase, bool kPartial>
  static inline __attribute__((always_inline)) void Part(const Element* w, const Activation* x, int64_t n_in, int n,
                                                         F (&sum)[kRows][kTok]) {
    const auto load = [n](const auto* p) __attribute__((always_inline)) {
      if constexpr (kPartial) {
        return Weights::template LoadPartial<kPhase>(p, n);
      } else {
        return Weights::template Load<kPhase>(p);
      }
    };
    decltype(load(w)) wv[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      wv[r] = load(w + r * n_in);
      if constexpr (!kPartial && kRows * kTok == 1 && kPhase == 0) {
        S::Prefetch(reinterpret_cast<const char*>(w) + kPrefetchBytes);
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTok; ++t) {
      const auto xv = load(x + t * n_in);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) sum[r][t] = Weights::MultiplyAdd(wv[r], xv, sum[r][t]);
    }
  }

  template <bool kPartial>
  static inline __attribute__((always_inline)) void Step(const Element* w, const Activation* x, int64_t n_in, int n,
                                                         F (&sum)[kRows][kTok]) {
    Part<0, kPartial>(w, x, n_in, n, sum);
    if constexpr (Weights::kPhases == 2) Part<1, kPartial>(w, x, n_in, n, sum);
  }

  // Adds inputs [from, to) to sum.
  static inline __attribute__((always_inline)) void Add(const DenseMatMulArgs& args, int64_t out, int tok, int64_t from,
                                                        int64_t to, F (&sum)[kRows][kTok]) {
    constexpr int kWidth = Weights::kWidth;
    const Element* w = static_cast<const Element*>(args.w) + out * args.n_in;
    const Activation* x = static_cast<const Activation*>(args.x) + tok * args.n_in;
    int64_t i = from;
    for (; i + kWidth <= to; i += kWidth) Step<false>(w + i, x + i, args.n_in, kWidth, sum);
    if (i < to) Step<true>(w + i, x + i, args.n_in, static_cast<int>(to - i), sum);
  }

  static inline __attribute__((always_inline)) void Write(const DenseMatMulArgs& args, int64_t out, int tok,
                                                          const F (&sum)[kRows][kTok]) {
    for (int t = 0; t < kTok; ++t) {
      float values[kRows];
      if constexpr (kRows == 4) {
        S::Sum4(sum[0][t], sum[1][t], sum[2][t], sum[3][t], values);
      } else {
        for (int r = 0; r < kRows; ++r) values[r] = S::Sum(sum[r][t]);
      }
      float* y = args.y + (tok + t) * args.y_stride + out;
      for (int r = 0; r < kRows; ++r) {
        float value = values[r];
        if (args.bias != nullptr) value += args.bias[out + r];
        y[r] = args.accumulate ? value + y[r] : value;
      }
    }
  }

  static void Run(const DenseMatMulArgs& args, int64_t out, int tok) {
    F sum[kRows][kTok];
    for (int r = 0; r < kRows; ++r) {
      for (int t = 0; t < kTok; ++t) sum[r][t] = S::Zero();
    }
    Add(args, out, tok, 0, args.n_in, sum);
    Write(args, out, tok, sum);
  }

  // Of inputs [from, to) alone: sums start at zero or at `waiting` and end there or, after the last input, in y.
  // waiting: [kRows][kTok][16].
  static void RunCut(const DenseMatMulArgs& args, int64_t out, int tok, int64_t from, int64_t to, float* waiting) {
    F sum[kRows][kTok];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int t = 0; t < kTok; ++t) sum[r][t] = from == 0 ? S::Zero() : S::Load(waiting + 16 * (r * kTok + t));
    }
    Add(args, out, tok, from, to, sum);
    if (to == args.n_in) {
      Write(args, out, tok, sum);
      return;
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int t = 0; t < kTok; ++t) S::Store(waiting + 16 * (r * kTok + t), sum[r][t]);
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

// A panel is what is multiplied cut by cut. Of a cut, a block of tokens and the block of rows that passes by lie in the
// nearest cache, the panel's rows, tokens and waiting sums in a private one.
constexpr int64_t kCut = 1024;  // inputs
constexpr int kPanelRows = 32;
constexpr int kPanelTokens = 96;

// Rows [out, out + n_rows) times n_groups full blocks of tokens from tok on.
template <typename S, typename Weights>
void RunPanel(const DenseMatMulArgs& args, int64_t out, int n_rows, int tok, int n_groups) {
  using Block = DenseBlock<S, Weights, S::kDenseRows, S::kDenseTokens>;
  constexpr int kSums = 16 * S::kDenseRows * S::kDenseTokens;
  for (int64_t from = 0; from < args.n_in; from += kCut) {
    const int64_t to = from + kCut < args.n_in ? from + kCut : args.n_in;
    float* waiting = args.scratch;
    for (int group = 0; group < n_groups; ++group) {
      for (int row = 0; row < n_rows; row += S::kDenseRows) {
        Block::RunCut(args, out + row, tok + group * S::kDenseTokens, from, to, waiting);
        waiting += kSums;
      }
    }
  }
}

// Whole blocks of tokens and rows in panels; what is left over as for few tokens.
template <typename S, typename Weights>
void RunMany(const DenseMatMulArgs& args) {
  constexpr int kMost = kPanelTokens / S::kDenseTokens;
  static_assert(kPanelRows % S::kDenseRows == 0 && kCut % Weights::kWidth == 0);
  const int64_t out_end = args.out_to - (args.out_to - args.out_from) % S::kDenseRows;
  int tok = args.tok_from;
  while (args.tok_to - tok >= S::kDenseTokens) {
    const int left = (args.tok_to - tok) / S::kDenseTokens;
    const int n_groups = left < kMost ? left : kMost;
    for (int64_t out = args.out_from; out < out_end; out += kPanelRows) {
      const int64_t n_rows = out_end - out < kPanelRows ? out_end - out : kPanelRows;
      RunPanel<S, Weights>(args, out, static_cast<int>(n_rows), tok, n_groups);
    }
    tok += n_groups * S::kDenseTokens;
  }
  DenseMatMulArgs rest = args;
  rest.out_from = out_end;
  rest.tok_to = tok;
  RunAll<S, Weights, S::kDenseRows>(rest);
  rest = args;
  rest.tok_from = tok;
  RunAll<S, Weights, S::kDenseRows>(rest);
}

template <typename S, typename Weights>
void DenseMatMul(const DenseMatMulArgs& args) {
  // One token is bound by memory: row after row is one sequential stream, faster than several rows side by side, whose
  // addresses a power of two apart get into each other's way in the cache.
  const int n_tok = args.tok_to - args.tok_from;
  if (n_tok == 1) {
    RunAll<S, Weights, 1>(args);
  } else if (n_tok < 4 * S::kDenseTokens) {
    RunAll<S, Weights, S::kDenseRows>(args);
  } else {
    RunMany<S, Weights>(args);
  }
}

// The table of one instruction set.
template <typename S>
constexpr DenseMatMulKernels MakeDenseMatMulKernels() {
  return {DenseMatMul<S, F32Weights<S>>, DenseMatMul<S, F16Weights<S>>, DenseMatMul<S, Bf16Weights<S>>,
          16 * kPanelRows * kPanelTokens};
}

}  // namespace
}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_DENSE_MATMUL_GENERIC_H_
