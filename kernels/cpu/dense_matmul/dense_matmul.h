// y [n_tok, n_out] = x W^T for F32, F16 and BF16 weights, read in place from the file's row-major layout. Activations
// stay f32; a weight is converted exactly. Every dot product is
//
//   lane[l] = fma(w[i], x[i], lane[l]) for i = l, l + 16, l + 32, ...     l in [0, 16)
//   y = Sum(lane) [+ bias] [+ y]                                          Sum as in ../simd/README.md
//
// for every instruction set, every n_tok and every split of the work.
#ifndef UPDRAFT_KERNELS_CPU_DENSE_MATMUL_DENSE_MATMUL_H_
#define UPDRAFT_KERNELS_CPU_DENSE_MATMUL_DENSE_MATMUL_H_

#include <cstddef>
#include <cstdint>

#include "kernels/formats/dtype.h"

namespace updraft::kernels {

// Outputs [out_from, out_to) of tokens [tok_from, tok_to).
struct DenseMatMulArgs {
  const void* w = nullptr;  // [n_out, n_in], aligned to its element
  int64_t n_in = 0;
  int64_t out_from = 0;
  int64_t out_to = 0;
  const float* x = nullptr;  // [n_tok, n_in]
  int tok_from = 0;
  int tok_to = 0;
  float* y = nullptr;  // [n_tok, n_out] with row stride y_stride
  int64_t y_stride = 0;
  const float* bias = nullptr;  // [n_out] or null
  bool accumulate = false;      // y += ...
  float* scratch = nullptr;     // DenseMatMulKernels::scratch_floats, aligned to 64 bytes; this call's alone
};

// One instruction set's kernels, an entry of kernels.inc.
struct DenseMatMulKernels {
  void (*f32)(const DenseMatMulArgs& args) = nullptr;
  void (*f16)(const DenseMatMulArgs& args) = nullptr;
  void (*bf16)(const DenseMatMulArgs& args) = nullptr;
  size_t scratch_floats = 0;
};

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_DENSE_MATMUL_DENSE_MATMUL_H_
