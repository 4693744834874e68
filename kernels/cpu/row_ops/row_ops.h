// Operations on rows and elements: norm, gate, conversion. Single-threaded; the caller splits rows.
#ifndef UPDRAFT_KERNELS_CPU_ROW_OPS_ROW_OPS_H_
#define UPDRAFT_KERNELS_CPU_ROW_OPS_ROW_OPS_H_

#include <cstdint>

namespace updraft::kernels {

// One instruction set's kernels, an entry of kernels.inc.
struct RowOpsKernels {
  // y = x / sqrt(mean(x^2) + eps) * gain for one row; y may equal x.
  //   lane[l] = fma(x[i], x[i], lane[l]) for i = l, l + 16, ...;  mean = Sum(lane) / width
  //   y[i] = (x[i] * (1 / sqrt(mean + eps))) * gain[i]
  void (*rms_norm)(const float* x, const float* gain, int width, float eps, float* y) = nullptr;

  // out = gate / (1 + e^-gate) * up; out may equal gate. Relative error of the exponential < 1.5e-7.
  void (*swiglu)(const float* gate, const float* up, int64_t n, float* out) = nullptr;

  // x = x / (1 + e^-x) in place; writes the ascending indices of the groups of `group` values (a multiple of 32) whose
  // largest magnitude afterwards is not below threshold, and returns how many. NaN is not below anything.
  int (*silu_active)(float* x, int n_groups, int group, float threshold, int32_t* active) = nullptr;

  // out = a * b; out may equal a or b.
  void (*multiply)(const float* a, const float* b, int64_t n, float* out) = nullptr;

  // To IEEE half precision, nearest even.
  void (*to_f16)(const float* x, int n, uint16_t* out) = nullptr;

  // To BF16, nearest even; NaN stays NaN.
  void (*to_bf16)(const float* x, int64_t n, uint16_t* out) = nullptr;
};

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_ROW_OPS_ROW_OPS_H_
