#ifndef UPDRAFT_DEPLOY_TRAIN_ADAPTER_ADAPTED_MODEL_H_
#define UPDRAFT_DEPLOY_TRAIN_ADAPTER_ADAPTED_MODEL_H_

#include <torch/torch.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "deploy/train/adapter/base.h"
#include "deploy/train/adapter/recipe.h"
#include "deploy/train/optimizer.h"

namespace updraft::train {

// A batch as tensors.
struct LossBatch {
  torch::Tensor tokens;    // [batch, time] i64, padded at the end
  torch::Tensor selected;  // [n] i64 into the flattened batch: positions whose next token is learned
  torch::Tensor targets;   // [n] i64
  torch::Tensor weights;   // [n] f32
};

// Base and adapter as one model. Products run with merged matrices, base + alpha / rank * B A, rounded to bf16 once per
// update: one rounding, as dequantizing the base to bf16 takes, and no narrow products over wide activations in the
// forward pass. Gradients are those of A and B.
class AdaptedModel {
 public:
  // On the base's device. The base's block matrices are taken over by groups that share their input; it stays whole.
  AdaptedModel(Base* base, const LoraShape& shape, uint64_t seed, bool bf16 = true);

  // Off: tensor operations throughout, as on any device but the CPU (fused_ops.h, fused_linear.h).
  void set_fused(bool on);

  // f32 leaves without gradients, in file order (NewLora). After a change: Merge.
  NamedTensors& parameters() { return parameters_; }
  void Merge(int workers);

  struct Result {
    double loss = 0;                       // sum of weight * cross-entropy
    std::vector<torch::Tensor> gradients;  // of that sum, per parameter
  };
  // Thread-safe between merges, as are the next two. Batches are the CPU's.
  Result Backward(const LossBatch& batch) const;
  // [n] i64 on the CPU: the likeliest token at each selected position.
  torch::Tensor Argmax(const LossBatch& batch) const;
  // [n, vocabulary] f32 at the selected positions. For small vocabularies: nothing is cut.
  torch::Tensor Logits(const LossBatch& batch) const;

  int64_t ParameterCount() const;

 private:
  // Matrices of one block that read the same input, stacked.
  struct Member {
    int64_t row = 0, rows = 0;  // in the stack
    int64_t column = -1;        // of its rank columns among the group's; -1: no adapter
    size_t parameter = 0;       // index of A; B follows
  };
  struct Group {
    torch::Tensor base, merged;  // [out, in] f32; the products' type
    torch::Tensor a, b;          // [ranks, in], [out, ranks] f32, block-diagonal b; undefined without adapters
    std::vector<Member> members;
  };
  // Leaves of one pass, whose gradients are wanted.
  struct Leaves {
    torch::Tensor a, b;
  };

  void AddGroup(const std::string& block, const std::vector<std::string>& names);
  void Gather(Group* group) const;
  torch::Tensor Rows(const LossBatch& batch, std::map<std::string, Leaves>* leaves) const;

  bool Fused() const { return fused_ && type_ == torch::kBFloat16 && model_->device().is_cpu(); }

  Transformer* model_;
  LoraShape shape_;
  torch::Dtype type_;
  bool fused_ = true;
  torch::Tensor output_;
  NamedTensors parameters_;
  std::map<std::string, Group> groups_;  // by the name of the first matrix
};

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_ADAPTER_ADAPTED_MODEL_H_
