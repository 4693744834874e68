#include "deploy/train/transformer.h"

#include <cmath>

#include "deploy/train/fused_ops.h"
#include "deploy/train/products.h"

namespace updraft::train {
namespace {

std::string Block(int layer) { return "blk." + std::to_string(layer) + "."; }

torch::Tensor RoundedQ4_0(const torch::Tensor& weights) {
  const torch::Tensor blocks = weights.reshape({-1, 32});
  const torch::Tensor extreme = blocks.gather(1, blocks.abs().argmax(1, true));
  const torch::Tensor scale = extreme / -8;
  const torch::Tensor inverse = torch::where(scale == 0, torch::zeros_like(scale), 1 / scale);
  const torch::Tensor codes = (blocks * inverse + 8.5).floor().clamp(0, 15) - 8;
  return (codes * scale.to(torch::kHalf).to(torch::kFloat)).reshape(weights.sizes());
}

torch::Tensor RoundedQ8_0(const torch::Tensor& weights) {
  const torch::Tensor blocks = weights.reshape({-1, 32});
  const torch::Tensor scale = blocks.abs().amax(1, true) / 127;
  const torch::Tensor inverse = torch::where(scale == 0, torch::zeros_like(scale), 1 / scale);
  return ((blocks * inverse).round() * scale.to(torch::kHalf).to(torch::kFloat)).reshape(weights.sizes());
}

}  // namespace

torch::Tensor Rounded(const torch::Tensor& weights, WeightType type) {
  switch (type) {
    case WeightType::kF32:
      return weights;
    case WeightType::kF16:
      return weights.to(torch::kHalf).to(torch::kFloat);
    case WeightType::kQ8_0:
      return RoundedQ8_0(weights);
    case WeightType::kQ4_0:
      return RoundedQ4_0(weights);
  }
  return weights;
}

Transformer::Transformer(const ModelShape& shape, int32_t vocabulary, uint64_t seed, torch::Device device)
    : shape_(shape), vocabulary_(vocabulary), device_(device) {
  torch::manual_seed(seed);
  const auto matrix = [&](const std::string& name, int64_t rows, int64_t columns, double deviation) {
    parameters_.emplace_back(name, torch::randn({rows, columns}) * deviation);
  };
  const auto gain = [&](const std::string& name) { parameters_.emplace_back(name, torch::ones({shape_.width})); };
  const double deviation = 1.0 / std::sqrt(shape_.width);
  // What adds to the residual stream starts smaller, so that its variance does not grow with depth.
  const double residual = deviation / std::sqrt(2.0 * shape_.layers);
  const int64_t head = shape_.head();
  matrix("token_embd.weight", vocabulary_, shape_.width, 0.04);
  for (int layer = 0; layer < shape_.layers; ++layer) {
    const std::string block = Block(layer);
    gain(block + "attn_norm.weight");
    matrix(block + "attn_q.weight", shape_.heads * head, shape_.width, deviation);
    matrix(block + "attn_k.weight", shape_.kv_heads * head, shape_.width, deviation);
    matrix(block + "attn_v.weight", shape_.kv_heads * head, shape_.width, deviation);
    matrix(block + "attn_output.weight", shape_.width, shape_.heads * head, residual);
    gain(block + "ffn_norm.weight");
    matrix(block + "ffn_gate.weight", shape_.feed_forward, shape_.width, deviation);
    matrix(block + "ffn_up.weight", shape_.feed_forward, shape_.width, deviation);
    matrix(block + "ffn_down.weight", shape_.width, shape_.feed_forward,
           residual * std::sqrt(1.0 * shape_.width / shape_.feed_forward));
  }
  gain("output_norm.weight");
  for (int exit : shape_.exits) gain("updraft.exit." + std::to_string(exit) + ".norm.weight");
  for (auto& [name, tensor] : parameters_) tensor = tensor.to(device_).set_requires_grad(true);

  const torch::Tensor pair = torch::arange(head / 2, torch::kFloat64);
  const torch::Tensor frequency = torch::pow(shape_.rope_base, pair * (-2.0 / static_cast<double>(head)));
  const torch::Tensor angle =
      torch::outer(torch::arange(shape_.context, torch::kFloat64), frequency).repeat_interleave(2, 1);
  cosine_ = angle.cos().to(torch::kFloat).to(device_);
  sine_ = angle.sin().to(torch::kFloat).to(device_);
  // x * swap_ has (-x1, x0) for every pair (x0, x1).
  swap_ = torch::zeros({head, head});
  for (int64_t i = 0; i < head; i += 2) {
    swap_[i + 1][i] = -1;
    swap_[i][i + 1] = 1;
  }
  swap_ = swap_.to(device_);
}

void Transformer::MoveTo(torch::Device device) {
  device_ = device;
  for (auto& [name, tensor] : parameters_)
    tensor = tensor.detach().to(device).set_requires_grad(tensor.requires_grad());
  for (torch::Tensor* table : {&cosine_, &sine_, &swap_}) *table = table->to(device);
}

Transformer Transformer::Twin() const {
  Transformer twin = *this;
  for (auto& [name, tensor] : twin.parameters_) tensor = tensor.detach().set_requires_grad(true);
  return twin;
}

torch::Tensor& Transformer::Get(const std::string& name) {
  for (auto& [known, tensor] : parameters_) {
    if (known == name) return tensor;
  }
  TORCH_CHECK(false, "no parameter named ", name);
}

int64_t Transformer::ParameterCount() const {
  int64_t count = 0;
  for (const auto& [name, tensor] : parameters_) count += tensor.numel();
  return count;
}

torch::Tensor Transformer::Matrix(const std::string& name) {
  torch::Tensor weights = Get(name);
  const WeightType type = name == "token_embd.weight" ? embedding_rounding_ : rounding_;
  if (type != WeightType::kF32) weights = weights + (Rounded(weights, type) - weights).detach();
  return bf16_ ? weights.to(torch::kBFloat16) : weights;
}

bool Transformer::Fused() const { return fused_ && bf16_ && device_.is_cpu() && FusedAttentionSupports(shape_.head()); }

torch::Tensor Transformer::Normed(const torch::Tensor& x, const std::string& gain) {
  if (Fused()) return FusedRmsNorm(x, Get(gain), shape_.norm_epsilon);
  const torch::Tensor inverse = torch::rsqrt(x.square().mean(-1, true) + shape_.norm_epsilon);
  const torch::Tensor y = x * inverse * Get(gain);
  return bf16_ ? y.to(torch::kBFloat16) : y;
}

torch::Tensor Transformer::Rotate(const torch::Tensor& x) {
  const int64_t time = x.size(1);
  const torch::Tensor cosine = cosine_.slice(0, 0, time).unsqueeze(1).to(x.dtype());
  const torch::Tensor sine = sine_.slice(0, 0, time).unsqueeze(1).to(x.dtype());
  return x * cosine + torch::matmul(x, swap_.to(x.dtype())) * sine;
}

std::array<torch::Tensor, 3> Transformer::SplitHeads(const torch::Tensor& flat) {
  const int64_t batch = flat.size(0), time = flat.size(1), head = shape_.head();
  const int64_t groups = shape_.heads / shape_.kv_heads;
  const torch::Tensor qkv = flat.view({batch, time, shape_.heads + 2 * shape_.kv_heads, head});
  const torch::Tensor rotated = Rotate(qkv.slice(2, 0, shape_.heads + shape_.kv_heads));
  // Query heads that share a key head become more rows of one product.
  const torch::Tensor q = rotated.slice(2, 0, shape_.heads)
                              .reshape({batch, time, shape_.kv_heads, groups, head})
                              .permute({0, 2, 3, 1, 4})
                              .reshape({batch * shape_.kv_heads, groups * time, head});
  const auto flatten = [&](const torch::Tensor& t) {
    return t.permute({0, 2, 1, 3}).reshape({batch * shape_.kv_heads, time, head});
  };
  return {q, flatten(rotated.slice(2, shape_.heads)), flatten(qkv.slice(2, shape_.heads + shape_.kv_heads))};
}

torch::Tensor Transformer::Project(const torch::Tensor& x, const std::string& block,
                                   std::initializer_list<const char*> names) {
  if (projection_) return projection_(block + *names.begin(), x);
  std::vector<torch::Tensor> matrices;
  for (const char* name : names) matrices.push_back(Matrix(block + name));
  return Linear(x, matrices.size() == 1 ? matrices[0] : torch::cat(matrices));
}

torch::Tensor Transformer::Attention(const torch::Tensor& x, const std::string& block, const torch::Tensor& mask) {
  const int64_t batch = x.size(0), time = x.size(1), head = shape_.head();
  const torch::Tensor qkv = Project(x, block, {"attn_q.weight", "attn_k.weight", "attn_v.weight"});
  if (Fused()) {
    return Project(FusedAttention(qkv, cosine_, sine_, shape_.heads, shape_.kv_heads), block, {"attn_output.weight"});
  }
  const auto [q, k, v] = SplitHeads(qkv);
  const torch::Tensor scores = torch::baddbmm(mask, q, k.transpose(1, 2), 1, 1 / std::sqrt(static_cast<double>(head)));
  const torch::Tensor mixed = torch::bmm(torch::softmax(scores, -1), v)
                                  .view({batch, shape_.kv_heads, shape_.heads / shape_.kv_heads, time, head})
                                  .permute({0, 3, 1, 2, 4})
                                  .reshape({batch, time, shape_.heads * head});
  return Project(mixed, block, {"attn_output.weight"});
}

torch::Tensor Transformer::FeedForward(const torch::Tensor& x, const std::string& block) {
  const torch::Tensor both = Project(x, block, {"ffn_gate.weight", "ffn_up.weight"});
  const torch::Tensor gated =
      Fused() ? FusedSwiGlu(both)
              : torch::silu(both.slice(-1, 0, shape_.feed_forward)) * both.slice(-1, shape_.feed_forward);
  return Project(gated, block, {"ffn_down.weight"});
}

torch::Tensor Transformer::Embedding() {
  const torch::Tensor embedding = Get("token_embd.weight");
  if (embedding_rounding_ == WeightType::kF32) return embedding;
  return embedding + (Rounded(embedding, embedding_rounding_) - embedding).detach();
}

std::vector<torch::Tensor> Transformer::Rows(const torch::Tensor& tokens, const torch::Tensor& selected) {
  const int64_t time = tokens.size(1);
  TORCH_CHECK(time <= cosine_.size(0), "a sequence of ", time, " tokens in a context of ", cosine_.size(0));
  const auto type = bf16_ ? torch::kBFloat16 : torch::kFloat;
  const torch::Tensor mask = torch::full({time, time}, -INFINITY, torch::TensorOptions().device(device_))
                                 .triu(1)
                                 .to(type)
                                 .repeat({shape_.heads / shape_.kv_heads, 1})
                                 .unsqueeze(0);
  const auto rows = [&](const torch::Tensor& x, const std::string& gain) {
    return Normed(x.reshape({-1, shape_.width}).index_select(0, selected), gain);
  };
  std::vector<torch::Tensor> out;
  torch::Tensor x = torch::embedding(Embedding(), tokens);
  for (int layer = 0; layer < shape_.layers; ++layer) {
    const std::string block = Block(layer);
    x = x + Attention(Normed(x, block + "attn_norm.weight"), block, mask);
    x = x + FeedForward(Normed(x, block + "ffn_norm.weight"), block);
    for (int exit : shape_.exits) {
      if (exit == layer + 1) out.push_back(rows(x, "updraft.exit." + std::to_string(exit) + ".norm.weight"));
    }
  }
  out.push_back(rows(x, "output_norm.weight"));
  return out;
}

Transformer::Output Transformer::Forward(const torch::Tensor& tokens, const torch::Tensor& selected) {
  const torch::Tensor output = Embedding().to(bf16_ ? torch::kBFloat16 : torch::kFloat);
  Output out;
  for (const torch::Tensor& rows : Rows(tokens, selected)) {
    out.exits.push_back(Linear(rows, output).to(torch::kFloat));
  }
  out.logits = out.exits.back();
  out.exits.pop_back();
  return out;
}

}  // namespace updraft::train
