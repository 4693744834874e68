#include "deploy/train/adapter/adapted_model.h"

#include <utility>

#include "deploy/train/adapter/lora_file.h"
#include "deploy/train/fused_linear.h"
#include "deploy/train/products.h"
#include "deploy/train/workers.h"

namespace updraft::train {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// x merged^T, where merged = base + scale * b a: differentiable in x, a and b, not in the base.
class AdaptedLinear : public Function<AdaptedLinear> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& merged, const Tensor& a,
                        const Tensor& b, double scale) {
    context->save_for_backward({x, merged, a, b});
    context->saved_data["scale"] = scale;
    return Linear(x, merged);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const Tensor& merged = saved[1];
    const Tensor x = saved[0].reshape({-1, merged.size(1)});
    const Tensor dy = gradients[0].reshape({-1, merged.size(0)}).contiguous();
    const double scale = context->saved_data["scale"].toDouble();
    const Tensor dx = MatMul(dy, merged).view(saved[0].sizes());
    const Tensor a = saved[2].to(x.scalar_type()), b = saved[3].to(x.scalar_type());
    // The narrow side is transposed in memory: products of plain layouts.
    const Tensor back = MatMul(dy, b).t().contiguous();  // [ranks, n]
    const Tensor ahead = Linear(x, a).t().contiguous();  // [ranks, n]
    const Tensor da = MatMul(back, x).to(torch::kFloat) * scale;
    const Tensor db = MatMul(ahead, dy).to(torch::kFloat).t() * scale;
    return {dx, Tensor(), da, db, Tensor()};
  }
};

}  // namespace

AdaptedModel::AdaptedModel(Base* base, const LoraShape& shape, uint64_t seed, bool bf16)
    : model_(base->model.get()),
      shape_(shape),
      type_(bf16 ? torch::kBFloat16 : torch::kFloat),
      output_(base->output.to(type_)),
      parameters_(NewLora(shape, base->model->shape(), seed)) {
  model_->set_products_in_bf16(bf16);
  for (auto& [name, tensor] : parameters_) tensor = tensor.to(model_->device());
  for (int layer = 0; layer < model_->shape().layers; ++layer) {
    const std::string block = "blk." + std::to_string(layer) + ".";
    AddGroup(block, {"attn_q", "attn_k", "attn_v"});
    AddGroup(block, {"attn_output"});
    AddGroup(block, {"ffn_gate", "ffn_up"});
    AddGroup(block, {"ffn_down"});
  }
}

void AdaptedModel::AddGroup(const std::string& block, const std::vector<std::string>& names) {
  Group group;
  std::vector<Tensor> matrices;
  int64_t rows = 0, ranks = 0;
  for (const std::string& name : names) {
    const std::string matrix = block + name + ".weight";
    matrices.push_back(model_->Get(matrix));
    Member& member = group.members.emplace_back();
    member.row = rows;
    member.rows = matrices.back().size(0);
    rows += member.rows;
    for (size_t i = 0; i < parameters_.size(); i += 2) {
      if (parameters_[i].first != matrix + ".lora_a") continue;
      member.column = ranks;
      member.parameter = i;
      ranks += shape_.rank;
    }
  }
  group.base = torch::cat(matrices).contiguous();
  group.merged = torch::empty(group.base.sizes(), group.base.options().dtype(type_));
  if (ranks > 0) {
    group.a = torch::zeros({ranks, group.base.size(1)}, group.base.options());
    group.b = torch::zeros({rows, ranks}, group.base.options());
  }
  // One copy of each matrix: the model's own become parts of the stack.
  for (size_t i = 0; i < names.size(); ++i) {
    const Member& member = group.members[i];
    model_->Get(block + names[i] + ".weight") = group.base.slice(0, member.row, member.row + member.rows);
  }
  groups_.emplace(block + names[0] + ".weight", std::move(group));
}

void AdaptedModel::Gather(Group* group) const {
  for (const Member& member : group->members) {
    if (member.column < 0) continue;
    group->a.slice(0, member.column, member.column + shape_.rank).copy_(parameters_[member.parameter].second);
    group->b.slice(0, member.row, member.row + member.rows)
        .slice(1, member.column, member.column + shape_.rank)
        .copy_(parameters_[member.parameter + 1].second);
  }
}

void AdaptedModel::Merge(int workers) {
  std::vector<Group*> groups;
  for (auto& [name, group] : groups_) groups.push_back(&group);
  RunOnWorkers(workers, [&](int worker) {
    torch::NoGradGuard no_gradient;
    for (size_t i = static_cast<size_t>(worker); i < groups.size(); i += static_cast<size_t>(workers)) {
      Group* group = groups[i];
      Gather(group);
      if (!model_->device().is_cpu()) {
        group->merged.copy_(group->a.defined() ? group->base + torch::matmul(group->b, group->a) * shape_.scale()
                                               : group->base);
        continue;
      }
      // Each matrix with its own columns: b is mostly zeros.
      for (const Member& member : group->members) {
        const bool adapted = member.column >= 0;
        Tensor merged = group->merged.slice(0, member.row, member.row + member.rows);
        AddLowRank(group->base.slice(0, member.row, member.row + member.rows),
                   adapted ? parameters_[member.parameter + 1].second : Tensor(),
                   adapted ? parameters_[member.parameter].second : Tensor(), static_cast<float>(shape_.scale()), 0,
                   member.rows, &merged);
      }
    }
  });
}

void AdaptedModel::set_fused(bool on) {
  fused_ = on;
  model_->set_fused(on);
}

Tensor AdaptedModel::Rows(const LossBatch& batch, std::map<std::string, Leaves>* leaves) const {
  Transformer pass = *model_;  // the same weights
  pass.set_projection([&](const std::string& first, const Tensor& x) {
    const Group& group = groups_.at(first);
    if (!group.a.defined() || leaves == nullptr) return Linear(x, group.merged);
    Leaves& leaf = (*leaves)[first];
    leaf.a = group.a.detach().set_requires_grad(true);
    leaf.b = group.b.detach().set_requires_grad(true);
    return AdaptedLinear::apply(x, group.merged, leaf.a, leaf.b, shape_.scale());
  });
  return pass.Rows(batch.tokens.to(model_->device()), batch.selected.to(model_->device())).back();
}

AdaptedModel::Result AdaptedModel::Backward(const LossBatch& batch) const {
  std::map<std::string, Leaves> leaves;
  const Tensor rows = Rows(batch, &leaves);
  Tensor loss;
  if (Fused()) {
    loss = LinearCrossEntropy(rows, output_, batch.targets, batch.weights);
  } else {
    const Tensor each =
        torch::nn::functional::cross_entropy(Linear(rows, output_).to(torch::kFloat), batch.targets.to(rows.device()),
                                             torch::nn::functional::CrossEntropyFuncOptions().reduction(torch::kNone));
    loss = (each * batch.weights.to(rows.device())).sum();
  }
  loss.backward();
  Result result;
  result.loss = loss.item<double>();
  result.gradients.resize(parameters_.size());
  for (const auto& [first, leaf] : leaves) {
    for (const Member& member : groups_.at(first).members) {
      if (member.column < 0) continue;
      result.gradients[member.parameter] = leaf.a.grad().slice(0, member.column, member.column + shape_.rank).clone();
      result.gradients[member.parameter + 1] = leaf.b.grad()
                                                   .slice(0, member.row, member.row + member.rows)
                                                   .slice(1, member.column, member.column + shape_.rank)
                                                   .contiguous()
                                                   .clone();
    }
  }
  return result;
}

Tensor AdaptedModel::Argmax(const LossBatch& batch) const {
  torch::NoGradGuard no_gradient;
  if (!Fused()) return Logits(batch).argmax(-1).to(torch::kCPU);
  return LinearArgmax(Rows(batch, nullptr).contiguous(), output_);
}

Tensor AdaptedModel::Logits(const LossBatch& batch) const {
  torch::NoGradGuard no_gradient;
  return Linear(Rows(batch, nullptr), output_).to(torch::kFloat);
}

int64_t AdaptedModel::ParameterCount() const {
  int64_t count = 0;
  for (const auto& [name, tensor] : parameters_) count += tensor.numel();
  return count;
}

}  // namespace updraft::train
