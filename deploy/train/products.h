#ifndef UPDRAFT_DEPLOY_TRAIN_PRODUCTS_H_
#define UPDRAFT_DEPLOY_TRAIN_PRODUCTS_H_

#include <torch/torch.h>

namespace updraft::train {

// Matrix products of bf16 tensors where the CPU may have no instructions for them: then the operands are widened and
// the product is rounded to bf16 once, which is what the instructions do; libtorch's own loops would take many times
// as long. Differentiable. Other types and devices go to libtorch as they are.

// Whether this CPU multiplies bf16 itself.
bool HasBf16Products();

// x: [..., k], w: [n, k] -> [..., n], x w^T.
torch::Tensor Linear(const torch::Tensor& x, const torch::Tensor& w);

// a: [m, k], b: [k, n] -> [m, n].
torch::Tensor MatMul(const torch::Tensor& a, const torch::Tensor& b);

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_PRODUCTS_H_
