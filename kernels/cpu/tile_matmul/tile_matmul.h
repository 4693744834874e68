// y [n_tok, n_out] = x W^T for quantized weights in tiles (tile_format.h) and activations quantized to 8 bits. A span
// of TileFormat::span_blocks() blocks of 32 activations shares one scale. The integer products of a block are exact;
// what is rounded, and in which order, is fixed here for every instruction set, every n_tok and every split of the
// work:
//
//   formats with spans of one block; for each block b of 32 inputs, in ascending order:
//     dot = sum of (code - offset) * q over the block                  exact, int32 (scales of 16: two halves in turn)
//     sum = fma(float(dot), weight_scale * x.scale, sum)               one rounding for the product, one for the fma
//     sum = fma(weight_min, x.min_factor, sum)                         formats with a minimum; negated where subtracted
//   formats with longer spans; for each span, from part = 0:
//     for each of its blocks: dot as above
//       part = fma(float(dot), weight_scale, part)
//       part = fma(weight_min, -sum of q, part)                        kSuperScaleMin16: each half with its own part
//                                                                      of the sum
//     sum = fma(part, x.scale, sum)
//   y = sum [+ bias] [+ y]
#ifndef UPDRAFT_KERNELS_CPU_TILE_MATMUL_TILE_MATMUL_H_
#define UPDRAFT_KERNELS_CPU_TILE_MATMUL_TILE_MATMUL_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/tile_matmul/tile_format.h"

namespace updraft::kernels {

// What goes with 32 quantized activations of one token.
struct ActivationBlock {
  float scale;              // of its span: x ~ scale * q; NaN when the span holds a NaN or an infinity
  float min_factor;         // spans of one block: scale * (sum of q); longer ones: -(sum of q)
  int32_t neg_sum;          // -(sum of q)
  int32_t neg_half_sum[2];  // the same of each half of 16
};

// Quantized activations x [n_tok, n_in]. Tokens are processed in groups; a group's tokens lie side by side block by
// block, so that one pointer walks through all of them:
//   group of tokens [from, from + size): codes at q + from * n_in, as [n_in / 32][size][32];
//   its blocks at blocks + from * n_in / 32, as [n_in / 32][size].
struct QuantizedRows {
  const int8_t* q = nullptr;
  const ActivationBlock* blocks = nullptr;
  int n_tok = 0;
  int n_groups = 0;
  int64_t n_in = 0;
};

// The tokens of one group: sizes differ by at most one.
struct TokenGroup {
  int from;
  int size;
};

constexpr TokenGroup GroupOf(int n_tok, int n_groups, int index) {
  const int base = n_tok / n_groups;
  const int larger = n_tok % n_groups;  // the first `larger` groups have base + 1
  return {index * base + (index < larger ? index : larger), base + (index < larger ? 1 : 0)};
}

// The group that has token `token`.
constexpr TokenGroup GroupWith(int n_tok, int n_groups, int token) {
  const int base = n_tok / n_groups;
  const int in_larger = n_tok % n_groups * (base + 1);
  const int index = token < in_larger ? token / (base + 1) : n_tok % n_groups + (token - in_larger) / base;
  return GroupOf(n_tok, n_groups, index);
}

// Where results go.
struct TileOutput {
  int64_t n_out = 0;
  float* y = nullptr;  // [n_tok, n_out] with row stride y_stride
  int64_t y_stride = 0;
  const float* bias = nullptr;  // [n_out] or null
  bool accumulate = false;      // y += ...
};

// Tiles [tile_from, tile_to) times the token groups [group_from, group_to). tile_from and tile_to are even.
struct TileMatMulArgs {
  TileView w;
  int64_t tile_from = 0;
  int64_t tile_to = 0;
  QuantizedRows x;
  int group_from = 0;
  int group_to = 0;
  TileOutput out;
  uint8_t* scratch = nullptr;  // TileMatMulKernels::scratch_bytes bytes at a cache line, of the calling thread alone
};

// One token times the listed tiles and blocks of inputs alone: outputs of other tiles are not written, inputs of other
// blocks count as zero. The same bits as the whole product with such inputs, unless a weight there is NaN or infinite.
// Reads nothing of what is not listed. Blocks of one span have one scale, as if the span had been quantized whole.
struct SparseTileMatMulArgs {
  TileView w;
  const int32_t* tiles = nullptr;  // ascending
  int64_t n_tiles = 0;
  const int32_t* blocks = nullptr;  // ascending
  int64_t n_blocks = 0;
  const int8_t* q = nullptr;           // [n_blocks][32]: the listed blocks' inputs, side by side
  const ActivationBlock* x = nullptr;  // [n_blocks]
  TileOutput out;
};

// What goes with the inputs of B of one token, in a low-rank addition.
struct LowRankInput {
  float scale;      // input ~ scale * q; NaN when one of them is NaN or infinite
  int32_t neg_sum;  // -(sum of q)
};

// y += B h (low_rank.h) for outputs of tiles [tile_from, tile_to) and tokens [token_from, token_to).
struct LowRankArgs {
  const uint8_t* codes = nullptr;    // [tiles][rank / 4][16 outputs][4 ranks], 128 + code in [-127, 127]
  const uint16_t* scales = nullptr;  // [tiles][16], bf16: B ~ scale * code
  int64_t rank = 0;                  // a multiple of 16
  int64_t n_out = 0;
  int64_t tile_from = 0;
  int64_t tile_to = 0;
  const int8_t* q = nullptr;             // [n_tok][rank]
  const LowRankInput* inputs = nullptr;  // [n_tok]
  int token_from = 0;
  int token_to = 0;
  float* y = nullptr;  // [n_tok, n_out] with row stride y_stride
  int64_t y_stride = 0;
};

using TileMatMulFunction = void (*)(const TileMatMulArgs& args);
using SparseTileMatMulFunction = void (*)(const SparseTileMatMulArgs& args);

// One instruction set's kernels, an entry of kernels.inc.
struct TileMatMulKernels {
  int NumGroups(int n_tok) const { return n_tok <= skinny ? 1 : (n_tok + group - 1) / group; }

  int skinny = 0;                              // up to so many tokens form one group
  int group = 0;                               // more are cut evenly into groups of at most so many
  size_t scratch_bytes = 0;                    // where more than `skinny` tokens are multiplied
  TileMatMulFunction run[kNumTileKinds] = {};  // by TileKind
  SparseTileMatMulFunction run_sparse[kNumTileKinds] = {};
  // Quantizes token `index` of a group of `size`: its row x [n_in] to its places in the group's q and blocks. n_in a
  // multiple of 32 * span_blocks.
  void (*quantize)(const float* x, int64_t n_in, int span_blocks, int index, int size, int8_t* q,
                   ActivationBlock* blocks) = nullptr;
  // Of low-rank additions: as run of TileKind::k8, but tile_from and tile_to may be odd; inputs of B; B.
  TileMatMulFunction run_narrow = nullptr;
  void (*quantize_low_rank)(const float* h, int rank, int8_t* q, LowRankInput* input) = nullptr;
  void (*add_low_rank)(const LowRankArgs& args) = nullptr;
};

// An instruction set's kernels of TileKind::k8Kept alone, where it differs in these from the one that it extends.
struct KeptTileMatMulKernels {
  TileMatMulFunction run = nullptr;
  SparseTileMatMulFunction run_sparse = nullptr;
};

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_TILE_MATMUL_TILE_MATMUL_H_
