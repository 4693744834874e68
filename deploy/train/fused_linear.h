#ifndef UPDRAFT_DEPLOY_TRAIN_FUSED_LINEAR_H_
#define UPDRAFT_DEPLOY_TRAIN_FUSED_LINEAR_H_

#include <torch/torch.h>

#include <cstdint>

namespace updraft::train {

// Operations on a large output matrix and on adapters, in a few rows at a time: logits over a published vocabulary
// never lie in memory as a whole. CPU, bf16 products with f32 sums. Deterministic.

// Sum over rows i of weights[i] * cross-entropy of softmax(rows[i] head^T) against targets[i], differentiable in rows;
// head is frozen. rows: [n, width] bf16; head: [vocabulary, width] bf16; targets: [n] i64; weights: [n] f32 -> f32.
torch::Tensor LinearCrossEntropy(const torch::Tensor& rows, const torch::Tensor& head, const torch::Tensor& targets,
                                 const torch::Tensor& weights);

// Index of the largest logit of each row, [n] i64. Those that bf16 cannot tell apart are compared in f32; the first of
// equals wins.
torch::Tensor LinearArgmax(const torch::Tensor& rows, const torch::Tensor& head);

// out = base + scale * b a. base: [n, k] f32; b: [n, r] f32; a: [r, k] f32; out: [n, k] bf16 or f32; all contiguous.
// Rows [begin, end) alone, so that threads can share them.
void AddLowRank(const torch::Tensor& base, const torch::Tensor& b, const torch::Tensor& a, float scale, int64_t begin,
                int64_t end, torch::Tensor* out);

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_FUSED_LINEAR_H_
