#ifndef UPDRAFT_DEPLOY_TRAIN_OPTIMIZER_H_
#define UPDRAFT_DEPLOY_TRAIN_OPTIMIZER_H_

#include <torch/torch.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace updraft::train {

using NamedTensors = std::vector<std::pair<std::string, torch::Tensor>>;

// Matrices of the blocks by Muon, embedding and norm gains by AdamW; norm gains are not decayed; clipping by the global
// norm. Its state is plain tensors, so that a run resumes to the bit.
//
// Muon (K. Jordan, "Muon: an optimizer for hidden layers in neural networks", 2024): the momentum of a matrix, with its
// singular values set to about one by five Newton-Schulz steps. Scaled as in "Muon is Scalable for LLM Training"
// (arXiv:2502.16982), so that one learning rate and one decay serve both. AdamW: Loshchilov and Hutter, 2019.
class Optimizer {
 public:
  // workers: threads that share the parameters among them. adam_alone: AdamW for the matrices of blocks, too (adapters,
  // whose two narrow factors mean nothing apart).
  Optimizer(NamedTensors* parameters, int workers, bool adam_alone = false);

  // gradients: one set of as many tensors as there are parameters, which are summed; undefined ones are left out.
  // Returns their global norm before clipping.
  double Step(const std::vector<std::vector<torch::Tensor>>& gradients, double learning_rate, double weight_decay,
              double clip);

  int64_t updates = 0;
  std::vector<torch::Tensor> first, second;  // moments, per parameter; `second` has no elements where Muon needs none

 private:
  bool ByMuon(size_t i) const;
  void Update(size_t i, const torch::Tensor& gradient, double learning_rate, double weight_decay);

  NamedTensors* parameters_;
  int workers_;
  bool adam_alone_;
  std::vector<std::vector<size_t>> share_;  // of each worker: indices of parameters
};

// The nearest matrix with singular values near one, [rows, columns] f32, by Newton-Schulz steps with bf16 products.
torch::Tensor Orthogonalized(const torch::Tensor& matrix);

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_OPTIMIZER_H_
