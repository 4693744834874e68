// The narrow products of a low-rank addition, y += B (A x) (LowRank in kernels/ops.h), over the sixteen lanes of an
// instruction set (../simd/README.md). A [rank, n_in] is a matrix of kind k8 like any other, but of one tile or few. B
// has so few inputs that reading and writing y costs as much as the products: its codes have one scale for each output,
// its inputs one for each token, and a block of tokens passes over y once.
//
//   dot = sum of (code - 128) * q over all ranks                       exact, int32
//   y   = fma(float(dot), scale of the output * scale of the token, y)
#ifndef UPDRAFT_KERNELS_CPU_TILE_MATMUL_LOW_RANK_H_
#define UPDRAFT_KERNELS_CPU_TILE_MATMUL_LOW_RANK_H_

#include <cstdint>

#include "kernels/cpu/tile_matmul/quantize.h"
#include "kernels/cpu/tile_matmul/tile_matmul.h"
#include "kernels/cpu/tile_matmul/tile_reader.h"

namespace updraft::kernels {
namespace {

// One token's inputs of B: h [rank] to q [rank], a multiple of 16. Not finite: a scale that is NaN.
template <typename S>
void QuantizeLowRank(const float* h, int rank, int8_t* q, LowRankInput* input) {
  int32_t most = 0;
  for (int k = 0; k < rank; k += 16) {
    const int32_t magnitude = MagnitudeOf(S::MaxAbs(S::Load(h + k), S::Zero()));
    most = magnitude > most ? magnitude : most;
  }
  const CodeScale scale = ScaleOf(most);
  int32_t sum = 0;
  for (int k = 0; k < rank; k += 16) {
    const auto codes = S::ToInt(scale.finite ? S::Mul(S::Load(h + k), S::Set(scale.inverse)) : S::Zero());
    S::StoreI8(q + k, codes);
    sum += S::SumI(codes);
  }
  *input = {.scale = scale.scale, .neg_sum = -sum};
}

template <typename S>
struct LowRankKernel {
  using F = typename S::F;
  using I = typename S::I;
  static constexpr int kMaxCode = 255;
  static constexpr int kRun = S::MaxRun(kMaxCode) < 4 ? S::MaxRun(kMaxCode) : 4;
  static constexpr int kTokens = 4;  // that share a loaded word of weights

  // Four words, 16 ranks, of tokens whose inputs lie `stride` bytes apart.
  template <int kTok>
  static UPDRAFT_INLINE void Words(const uint8_t* codes, const int8_t* q, int64_t stride, I (&dot)[kTok]) {
    typename S::Partial partial[kTok];
#pragma GCC unroll 4
    for (int word = 0; word < 4; ++word) {
      const auto w = S::LoadW(codes + 64 * word);
#pragma GCC unroll 4
      for (int t = 0; t < kTok; ++t) {
        if (word % kRun == 0) partial[t] = S::Begin(dot[t]);
        partial[t] = S::template Step<kMaxCode>(partial[t], w, q + t * stride + 4 * word);
        if ((word + 1) % kRun == 0) dot[t] = S::End(dot[t], partial[t]);
      }
    }
  }

  template <int kTok>
  static UPDRAFT_INLINE void Write(float* y, int64_t y_stride, int lanes, F scale, const F (&x_scale)[kTok],
                                   const I (&dot)[kTok]) {
#pragma GCC unroll 4
    for (int t = 0; t < kTok; ++t, y += y_stride) {
      const F factor = S::Mul(scale, x_scale[t]);
      if (lanes == kTileOutputs) {
        S::Store(y, S::Fma(S::ToFloat(dot[t]), factor, S::Load(y)));
      } else {
        S::StorePartial(y, S::Fma(S::ToFloat(dot[t]), factor, S::LoadPartial(y, lanes)), lanes);
      }
    }
  }

  // kRank16: of rank 16, the commonest. A copy of the inputs that no store to y can change stays in registers.
  template <int kTok, bool kRank16>
  static void Tokens(const LowRankArgs& args, int token) {
    const int64_t rank = kRank16 ? 16 : args.rank;
    const int64_t n_out = args.n_out, tile_to = args.tile_to, y_stride = args.y_stride;
    const uint8_t* const all_codes = args.codes;
    const uint16_t* const scales = args.scales;
    float* const y = args.y + token * y_stride;
    const int8_t* const q = args.q + token * rank;
    int8_t near[kTok * 16];
    if constexpr (kRank16) __builtin_memcpy(near, q, sizeof(near));
    I start[kTok];
    F x_scale[kTok];
    for (int t = 0; t < kTok; ++t) {
      const LowRankInput& x = args.inputs[token + t];
      start[t] = S::kSignedBytes ? S::SetI(0) : S::template ShiftLeft<7>(S::SetI(x.neg_sum));
      x_scale[t] = S::Set(x.scale);
    }
    for (int64_t tile = args.tile_from; tile < tile_to; ++tile) {
      const int64_t out = tile * kTileOutputs;
      if (out >= n_out) return;
      const int lanes = n_out - out < kTileOutputs ? static_cast<int>(n_out - out) : kTileOutputs;
      I dot[kTok];
#pragma GCC unroll 4
      for (int t = 0; t < kTok; ++t) dot[t] = start[t];
      const uint8_t* codes = all_codes + out * rank;
      if constexpr (kRank16) {
        Words<kTok>(codes, near, 16, dot);
      } else {
        for (int64_t k = 0; k < rank; k += 16) Words<kTok>(codes + k * kTileOutputs, q + k, rank, dot);
      }
      Write<kTok>(y + out, y_stride, lanes, S::LoadBf16(scales + out), x_scale, dot);
    }
  }

  template <bool kRank16>
  static void AllTokens(const LowRankArgs& args) {
    int token = args.token_from;
    for (; token + kTokens <= args.token_to; token += kTokens) Tokens<kTokens, kRank16>(args, token);
    for (; token < args.token_to; ++token) Tokens<1, kRank16>(args, token);
  }

  static void Run(const LowRankArgs& args) { args.rank == 16 ? AllTokens<true>(args) : AllTokens<false>(args); }
};

}  // namespace
}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_TILE_MATMUL_LOW_RANK_H_
