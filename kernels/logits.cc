#include "kernels/logits.h"

#include <algorithm>
#include <limits>

#include "kernels/arch.h"
#include "kernels/cpu/kernel_table.h"

namespace updraft::kernels {
namespace {

const LogitsKernels& Kernels() {
  static const LogitsKernels* const kernels = [] {
    const Isa isa = ChooseIsa();
    return ChooseKernels(isa == Isa::kReference ? Isa::kPortable : isa).logits;
  }();
  return *kernels;
}

}  // namespace

LogitSummary SummarizeLogits(std::span<const float> logits) {
  LogitSummary summary;
  const auto n = static_cast<int64_t>(logits.size());
  const TopTwoLogits top = Kernels().top_two(logits.data(), n);
  summary.first = top.first;
  summary.second = top.second;
  if (top.first == std::numeric_limits<float>::lowest()) return summary;
  Kernels().moments(logits.data(), n, top.first, &summary.mass, &summary.weighted);
  return summary;
}

int64_t ArgMaxLogit(std::span<const float> logits) {
  const float peak = Kernels().peak(logits.data(), static_cast<int64_t>(logits.size()));
  if (peak == -std::numeric_limits<float>::infinity()) return -1;
  return std::find(logits.begin(), logits.end(), peak) - logits.begin();
}

}  // namespace updraft::kernels
