// The feed-forward layer of one token over its active neurons alone (see FeedForwardWeights in ops.h).
//
// What is skipped is not read: tiles of `up` whose neurons are all inactive, and in every tile of `down` the blocks of
// inputs that are zero. Both are whole runs of cache lines when groups have 64 neurons or more.
#ifndef UPDRAFT_KERNELS_CPU_SPARSE_FEED_FORWARD_H_
#define UPDRAFT_KERNELS_CPU_SPARSE_FEED_FORWARD_H_

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/tiled_matrix.h"
#include "kernels/ops.h"
#include "kernels/thread_pool.h"

namespace updraft::kernels {

class SparseFeedForward {
 public:
  // Both outlive this object, which is used by one thread at a time.
  SparseFeedForward(const KernelTable& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  // Quantized matrices only; others are read row by row, where a skipped neuron spares nothing of `down`.
  static bool Supports(const FeedForwardWeights& w) { return IsTiled(w.up->type()) && IsTiled(w.down->type()); }

  // y += down (gate * (up x)) over the groups listed in `active`, ascending. x [d_model]; gate [d_ff], already
  // silu(gate x); up: [d_ff] for intermediate values. Supports(w).
  void Run(const FeedForwardWeights& w, const float* x, const float* gate, std::span<const int32_t> active, float* up,
           float* y);

  // Ops::TuneSparsity; `all` computes the products over all neurons.
  SparsityTuning Tune(Ops& all, std::span<const FeedForwardWeights> layers);

 private:
  // The listed tiles times the listed blocks, whose inputs are in q_ and q_blocks_, on all threads where it is worth
  // it.
  void Multiply(const PackedMatrix& w, std::span<const int32_t> tiles, std::span<const int32_t> blocks, float* y,
                bool accumulate);
  // x [d_ff], of which the blocks that blocks_ lists are quantized to q_ and q_blocks_, the others counting as zero.
  void QuantizeListed(const float* x, int span_blocks);
  std::span<const int32_t> UpTo(int64_t n);  // 0, 1, ... n - 1

  const KernelTable& kernels_;
  ThreadPool& pool_;
  std::vector<int8_t> q_;
  std::vector<ActivationBlock> q_blocks_;
  std::vector<int32_t> tiles_, blocks_, up_to_;
};

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_SPARSE_FEED_FORWARD_H_
