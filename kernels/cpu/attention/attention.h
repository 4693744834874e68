// Softmax attention of some queries of one sequence over one head of its paged keys and values, in one pass (online
// softmax; Milakov and Gimelshein 2018, Dao et al. 2022).
//
// Positions are taken in tiles of TilePositions(head_dim), aligned to multiples of that, in ascending order; a row's
// result depends on its own query, position and window only, never on the rows that share the pass:
//
//   score[j] = 0, then fma(q[d], k[j][d], score[j]) for ascending d; times scale
//   max' = max(max, scores of the tile);  factor = e^(max - max');  p[j] = e^(score[j] - max')
//   total = total * factor + Sum(p), where Sum adds positions j, j + 16, ... in lane j first, then across the lanes
//   out = out * factor, then out = fma(p[j], v[j], out) for ascending j
//
// Sinks before a row's window are a row of tiles of their own, before those of the window. A sink score is where max
// begins, with a total of 1.
#ifndef UPDRAFT_KERNELS_CPU_ATTENTION_ATTENTION_H_
#define UPDRAFT_KERNELS_CPU_ATTENTION_ATTENTION_H_

#include <cstddef>
#include <cstdint>

#include "kernels/ops.h"

namespace updraft::kernels {

// Queries (rows times heads of a group) that share the conversion of a tile of keys and values.
inline constexpr int kAttentionQueries = 64;

// Rows [row_from, row_to) of args, at most AttentionRows(args), all with the same block table and ascending positions;
// their query heads [head_from, head_to), all of KV head kv_head.
struct AttentionPass {
  const AttentionRow* rows = nullptr;  // all rows of args
  int row_from = 0;
  int row_to = 0;
  int kv_head = 0;
  int head_from = 0;
  int head_to = 0;
  float* scratch = nullptr;  // AttentionScratchFloats(args), aligned to 64 bytes
};

inline int AttentionRows(const AttentionArgs& args) {
  const int rows = kAttentionQueries / (args.n_head / args.shape.n_kv_head);
  return rows > 1 ? rows : 1;
}

constexpr int PaddedHeadDim(int head_dim) { return (head_dim + 15) / 16 * 16; }

// Keys and values of a tile, as floats, fit a nearest cache of 32 KiB up to a head of 128.
constexpr int TilePositions(int head_dim) { return head_dim <= 64 ? 64 : 32; }

// Floats of scratch that a pass over all heads of one KV head needs: a tile of keys, one of values, and per query its
// weights, its output, its maximum and its total.
inline size_t AttentionScratchFloats(const AttentionArgs& args) {
  const size_t dim = PaddedHeadDim(args.shape.head_dim);
  const size_t tile = TilePositions(args.shape.head_dim);
  const size_t queries = static_cast<size_t>(AttentionRows(args)) * (args.n_head / args.shape.n_kv_head);
  return 2 * tile * dim + queries * (tile + dim + 2);
}

// One instruction set's kernel, an entry of kernels.inc.
struct AttentionKernels {
  void (*run)(const AttentionArgs& args, const AttentionPass& pass) = nullptr;
};

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_ATTENTION_ATTENTION_H_
