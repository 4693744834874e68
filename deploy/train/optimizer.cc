#include "deploy/train/optimizer.h"

#include <algorithm>
#include <cmath>

#include "deploy/train/products.h"
#include "deploy/train/workers.h"

namespace updraft::train {
namespace {

constexpr double kBeta1 = 0.9, kBeta2 = 0.98, kEpsilon = 1e-8;
constexpr double kMomentum = 0.95;
// Of an element of a Muon update, root mean square, at learning rate 1: about what AdamW's come to.
constexpr double kUpdateSize = 0.2;

struct AdamUpdate {
  float rate;     // learning rate with both bias corrections
  float shrink;   // 1 - learning rate * weight decay
  float epsilon;  // kEpsilon with the second bias correction
};

void AdamByTensors(const AdamUpdate& update, const torch::Tensor& gradient, torch::Tensor* parameter,
                   torch::Tensor* first, torch::Tensor* second) {
  first->lerp_(gradient, 1 - kBeta1);
  second->lerp_(gradient.square(), 1 - kBeta2);
  parameter->mul_(update.shrink).addcdiv_(*first, second->sqrt().add_(update.epsilon), -update.rate);
}

}  // namespace

torch::Tensor Orthogonalized(const torch::Tensor& matrix) {
  const bool tall = matrix.size(0) > matrix.size(1);
  torch::Tensor x = (tall ? matrix.t() : matrix) / (matrix.norm() + 1e-7);
  // A CPU without bf16 products takes f32 as it is: libtorch's own bf16 loops would take longer than the whole pass.
  if (!x.device().is_cpu() || HasBf16Products()) x = x.to(torch::kBFloat16);
  x = x.contiguous();
  for (int i = 0; i < 5; ++i) {
    const torch::Tensor gram = torch::matmul(x, x.t());
    const torch::Tensor mix = torch::matmul(gram, gram) * 2.0315 - gram * 4.7750;
    x = torch::matmul(mix, x) + x * 3.4445;
  }
  x = x.to(torch::kFloat);
  return tall ? x.t().contiguous() : x;
}

bool Optimizer::ByMuon(size_t i) const {
  const auto& [name, tensor] = (*parameters_)[i];
  return !adam_alone_ && tensor.dim() == 2 && name != "token_embd.weight";
}

Optimizer::Optimizer(NamedTensors* parameters, int workers, bool adam_alone)
    : parameters_(parameters), workers_(std::max(1, workers)), adam_alone_(adam_alone) {
  std::vector<std::pair<int64_t, size_t>> by_size;
  for (size_t i = 0; i < parameters_->size(); ++i) {
    const torch::Tensor& parameter = (*parameters_)[i].second;
    first.push_back(torch::zeros_like(parameter, torch::MemoryFormat::Contiguous).detach());
    second.push_back(ByMuon(i) ? torch::zeros({0}, parameter.options().requires_grad(false)) : first.back().clone());
    by_size.push_back({-parameter.numel(), i});
  }
  // The largest in turn: shares of about one size.
  std::sort(by_size.begin(), by_size.end());
  share_.resize(static_cast<size_t>(workers_));
  for (size_t i = 0; i < by_size.size(); ++i) share_[i % share_.size()].push_back(by_size[i].second);
}

void Optimizer::Update(size_t i, const torch::Tensor& gradient, double learning_rate, double weight_decay) {
  torch::Tensor& parameter = (*parameters_)[i].second;
  const double shrink = parameter.dim() > 1 ? 1 - learning_rate * weight_decay : 1.0;
  if (ByMuon(i)) {
    first[i].mul_(kMomentum).add_(gradient);
    const double size = kUpdateSize * std::sqrt(static_cast<double>(std::max(parameter.size(0), parameter.size(1))));
    parameter.mul_(shrink).add_(Orthogonalized(gradient + first[i] * kMomentum), -learning_rate * size);
    return;
  }
  const double correction1 = 1 - std::pow(kBeta1, static_cast<double>(updates));
  const double correction2 = std::sqrt(1 - std::pow(kBeta2, static_cast<double>(updates)));
  AdamByTensors({static_cast<float>(learning_rate * correction2 / correction1), static_cast<float>(shrink),
                 static_cast<float>(kEpsilon * correction2)},
                gradient, &parameter, &first[i], &second[i]);
}

double Optimizer::Step(const std::vector<std::vector<torch::Tensor>>& gradients, double learning_rate,
                       double weight_decay, double clip) {
  std::vector<torch::Tensor> sums(parameters_->size());
  std::vector<double> squares(parameters_->size());
  RunOnWorkers(workers_, [&](int worker) {
    torch::NoGradGuard no_gradient;
    for (size_t i : share_[static_cast<size_t>(worker)]) {
      for (const std::vector<torch::Tensor>& set : gradients) {
        if (!set[i].defined()) continue;
        sums[i] = sums[i].defined() ? sums[i].add_(set[i]) : set[i];
      }
      if (sums[i].defined()) squares[i] = sums[i].square().sum().item<double>();
    }
  });
  double square = 0;
  for (double part : squares) square += part;
  const double norm = std::sqrt(square);
  const double scale = clip > 0 && norm > clip ? clip / norm : 1.0;
  ++updates;
  RunOnWorkers(workers_, [&](int worker) {
    torch::NoGradGuard no_gradient;
    for (size_t i : share_[static_cast<size_t>(worker)]) {
      if (!sums[i].defined()) continue;
      if (scale != 1.0) sums[i].mul_(scale);
      Update(i, sums[i], learning_rate, weight_decay);
    }
  });
  return norm;
}

}  // namespace updraft::train
