#include "deploy/train/optimizer.h"

#include <ATen/Parallel.h>

#include <cmath>

namespace updraft::train {
namespace {

constexpr double kBeta1 = 0.9, kBeta2 = 0.98, kEpsilon = 1e-8;

struct Update {
  float rate;     // learning rate with both bias corrections
  float shrink;   // 1 - learning rate * weight decay
  float scale;    // of the gradient, by clipping
  float epsilon;  // kEpsilon with the second bias correction
};

// One pass over memory instead of a dozen.
void UpdateOnCpu(const Update& update, torch::Tensor* parameter, torch::Tensor* first, torch::Tensor* second) {
  float* p = parameter->data_ptr<float>();
  const float* g = parameter->grad().data_ptr<float>();
  float* m = first->data_ptr<float>();
  float* v = second->data_ptr<float>();
  at::parallel_for(0, parameter->numel(), 1 << 15, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float gradient = g[i] * update.scale;
      m[i] += static_cast<float>(1 - kBeta1) * (gradient - m[i]);
      v[i] += static_cast<float>(1 - kBeta2) * (gradient * gradient - v[i]);
      p[i] = p[i] * update.shrink - update.rate * m[i] / (std::sqrt(v[i]) + update.epsilon);
    }
  });
}

void UpdateByTensors(const Update& update, torch::Tensor* parameter, torch::Tensor* first, torch::Tensor* second) {
  const torch::Tensor gradient = parameter->grad() * update.scale;
  first->lerp_(gradient, 1 - kBeta1);
  second->lerp_(gradient.square(), 1 - kBeta2);
  parameter->mul_(update.shrink).addcdiv_(*first, second->sqrt().add_(update.epsilon), -update.rate);
}

}  // namespace

AdamW::AdamW(std::vector<std::pair<std::string, torch::Tensor>>* parameters) : parameters_(parameters) {
  for (const auto& [name, parameter] : *parameters_) {
    first.push_back(torch::zeros_like(parameter, torch::MemoryFormat::Contiguous).detach());
    second.push_back(torch::zeros_like(parameter, torch::MemoryFormat::Contiguous).detach());
  }
}

double AdamW::Step(double learning_rate, double weight_decay, double clip) {
  torch::NoGradGuard no_gradient;
  double square = 0;
  for (const auto& [name, parameter] : *parameters_) {
    if (parameter.grad().defined()) square += parameter.grad().square().sum().item<double>();
  }
  const double norm = std::sqrt(square);
  ++updates;
  const double correction1 = 1 - std::pow(kBeta1, static_cast<double>(updates));
  const double correction2 = std::sqrt(1 - std::pow(kBeta2, static_cast<double>(updates)));
  Update update;
  update.rate = static_cast<float>(learning_rate * correction2 / correction1);
  update.scale = static_cast<float>(clip > 0 && norm > clip ? clip / norm : 1.0);
  update.epsilon = static_cast<float>(kEpsilon * correction2);
  for (size_t i = 0; i < parameters_->size(); ++i) {
    torch::Tensor& parameter = (*parameters_)[i].second;
    if (!parameter.grad().defined()) continue;
    update.shrink = parameter.dim() > 1 ? static_cast<float>(1 - learning_rate * weight_decay) : 1.0f;
    if (parameter.device().is_cpu() && parameter.is_contiguous() && parameter.grad().is_contiguous()) {
      UpdateOnCpu(update, &parameter, &first[i], &second[i]);
    } else {
      UpdateByTensors(update, &parameter, &first[i], &second[i]);
    }
    parameter.mutable_grad() = torch::Tensor();
  }
  return norm;
}

}  // namespace updraft::train
