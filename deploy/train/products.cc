#include "deploy/train/products.h"

namespace updraft::train {
namespace {

bool Widens(const torch::Tensor& x) {
  return x.scalar_type() == torch::kBFloat16 && x.device().is_cpu() && !HasBf16Products();
}

}  // namespace

bool HasBf16Products() {
#if defined(__x86_64__)
  // AMX comes with AVX-512's bf16 instructions in every CPU that has it.
  static const bool has = __builtin_cpu_supports("avx512bf16") != 0;
  return has;
#else
  return false;
#endif
}

torch::Tensor Linear(const torch::Tensor& x, const torch::Tensor& w) {
  if (!Widens(x)) return torch::linear(x, w);
  return torch::linear(x.to(torch::kFloat), w.to(torch::kFloat)).to(torch::kBFloat16);
}

torch::Tensor MatMul(const torch::Tensor& a, const torch::Tensor& b) {
  if (!Widens(a)) return torch::matmul(a, b);
  return torch::matmul(a.to(torch::kFloat), b.to(torch::kFloat)).to(torch::kBFloat16);
}

}  // namespace updraft::train
