#ifndef UPDRAFT_DEPLOY_TRAIN_TRANSFORMER_H_
#define UPDRAFT_DEPLOY_TRAIN_TRANSFORMER_H_

#include <torch/torch.h>

#include <array>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "deploy/train/recipe.h"

namespace updraft::train {

// A decoder of the Llama family in training form: fp32 master weights under their GGUF names, bf16 (or fp32) products.
// RoPE rotates neighbouring pairs (2i, 2i+1), as files of architecture `llama` mean it, so weights are stored as they
// are. The output matrix is the embedding.
class Transformer {
 public:
  Transformer(const ModelShape& shape, int32_t vocabulary, uint64_t seed, torch::Device device);

  // Parameters and tables go there; to the CPU they come back.
  void MoveTo(torch::Device device);

  // A model on the same weights (not a copy of them) with gradients of its own, for another thread.
  Transformer Twin() const;

  const ModelShape& shape() const { return shape_; }
  int32_t vocabulary() const { return vocabulary_; }
  torch::Device device() const { return device_; }

  // In file order. All fp32 leaves; vectors (norm gains) have one dimension, matrices are [out, in].
  std::vector<std::pair<std::string, torch::Tensor>>& parameters() { return parameters_; }
  torch::Tensor& Get(const std::string& name);
  int64_t ParameterCount() const;

  void set_products_in_bf16(bool on) { bf16_ = on; }
  void set_fused(bool on) { fused_ = on; }  // off: tensor operations throughout (fused_ops.h)
  // Rounds matrices to the grid that the file will hold, straight through for the gradient: training then adapts to it.
  void set_rounding(WeightType matrices, WeightType embedding) {
    rounding_ = matrices, embedding_rounding_ = embedding;
  }

  // What stands in for the product with matrices of a block that share their input, side by side: the first one's name
  // and x [batch, time, in] in the products' type -> [batch, time, sum of out].
  using Projection = std::function<torch::Tensor(const std::string& first, const torch::Tensor& x)>;
  void set_projection(Projection projection) { projection_ = std::move(projection); }

  // The normed rows that the output matrix reads, in the products' type, [n, width]: at each exit of shape().exits,
  // then at the end. tokens and selected as in Forward.
  std::vector<torch::Tensor> Rows(const torch::Tensor& tokens, const torch::Tensor& selected);

  struct Output {
    torch::Tensor logits;              // [n, vocabulary] f32 at the selected positions
    std::vector<torch::Tensor> exits;  // the same at each exit of shape().exits
  };
  // tokens: [batch, time] i64, padded at the end. selected: [n] i64 into the flattened batch.
  Output Forward(const torch::Tensor& tokens, const torch::Tensor& selected);

 private:
  // Whether the CPU's own operations (fused_ops.h) replace chains of libtorch's: bf16 products on the CPU.
  bool Fused() const;
  torch::Tensor Embedding();  // f32, rounded
  torch::Tensor Matrix(const std::string& name);
  torch::Tensor Normed(const torch::Tensor& x, const std::string& gain);
  torch::Tensor Project(const torch::Tensor& x, const std::string& block, std::initializer_list<const char*> names);
  torch::Tensor Attention(const torch::Tensor& x, const std::string& block, const torch::Tensor& mask);
  torch::Tensor FeedForward(const torch::Tensor& x, const std::string& block);
  // q [batch * kv_heads, groups * time, head], k and v [batch * kv_heads, time, head]; q and k rotated by position.
  std::array<torch::Tensor, 3> SplitHeads(const torch::Tensor& flat);
  torch::Tensor Rotate(const torch::Tensor& x);  // [batch, time, heads, head]

  ModelShape shape_;
  int32_t vocabulary_;
  torch::Device device_;
  bool bf16_ = true;
  bool fused_ = true;
  WeightType rounding_ = WeightType::kF32;
  WeightType embedding_rounding_ = WeightType::kF32;
  Projection projection_;
  std::vector<std::pair<std::string, torch::Tensor>> parameters_;
  torch::Tensor cosine_, sine_, swap_;  // [context, head] f32; [head, head]
};

// What the file format makes of `weights` ([rows, columns] f32), as f32.
torch::Tensor Rounded(const torch::Tensor& weights, WeightType type);

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_TRANSFORMER_H_
