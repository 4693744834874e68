// Softmax attention of a few queries of one sequence over one head of its paged keys and values, in one pass (online
// softmax; Milakov and Gimelshein 2018, Dao et al. 2022).
//
// Positions are taken in tiles of 16 aligned to multiples of 16, in ascending order; a row's result depends on its own
// query, position and window only, never on the rows that share the pass:
//
//   score[j] = Sum over the dimensions (16 lanes, fused) of q * k[j], times scale
//   max' = max(max, scores of the tile);  factor = e^(max - max');  p[j] = e^(score[j] - max')
//   total = total * factor + Sum(p);  out = out * factor, then out = fma(p[j], v[j], out) for ascending j
#ifndef UPDRAFT_KERNELS_CPU_ATTENTION_ATTENTION_H_
#define UPDRAFT_KERNELS_CPU_ATTENTION_ATTENTION_H_

#include <cstddef>
#include <cstdint>

#include "kernels/ops.h"

namespace updraft::kernels {

inline constexpr int kAttentionTile = 16;    // positions
inline constexpr int kAttentionMaxRows = 8;  // rows of one pass

// Rows [row_from, row_to) of args, at most kAttentionMaxRows, all with the same block table and ascending positions;
// their query heads [head_from, head_to), all of KV head kv_head.
struct AttentionPass {
  const AttentionRow* rows = nullptr;  // all rows of args
  int row_from = 0;
  int row_to = 0;
  int kv_head = 0;
  int head_from = 0;
  int head_to = 0;
  float* scratch = nullptr;  // AttentionScratchFloats(args)
};

constexpr int PaddedHeadDim(int head_dim) { return (head_dim + 15) / 16 * 16; }

// Floats of scratch that a pass over all heads of one KV head needs: a tile of keys, one of values, and per query its
// padded values, its output, its maximum and its total.
inline size_t AttentionScratchFloats(const AttentionArgs& args) {
  const size_t dim = PaddedHeadDim(args.shape.head_dim);
  const size_t queries = static_cast<size_t>(kAttentionMaxRows) * (args.n_head / args.shape.n_kv_head);
  return 2 * kAttentionTile * dim + queries * (2 * dim + 2);
}

// One instruction set's kernel, an entry of kernels.inc.
struct AttentionKernels {
  void (*run)(const AttentionArgs& args, const AttentionPass& pass) = nullptr;
};

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_ATTENTION_ATTENTION_H_
