#ifndef UPDRAFT_DEPLOY_TRAIN_OPTIMIZER_H_
#define UPDRAFT_DEPLOY_TRAIN_OPTIMIZER_H_

#include <torch/torch.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace updraft::train {

// AdamW (Loshchilov and Hutter, 2019), betas 0.9 and 0.98, with clipping by the global norm. Norm gains are not
// decayed. Its state is plain tensors, so that a run resumes to the bit.
class AdamW {
 public:
  explicit AdamW(std::vector<std::pair<std::string, torch::Tensor>>* parameters);

  // Uses and clears the gradients. Returns their global norm before clipping.
  double Step(double learning_rate, double weight_decay, double clip);

  int64_t updates = 0;
  std::vector<torch::Tensor> first, second;  // moments, per parameter

 private:
  std::vector<std::pair<std::string, torch::Tensor>>* parameters_;
};

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_OPTIMIZER_H_
