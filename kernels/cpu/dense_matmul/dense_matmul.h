// y [n_tok, n_out] = x W^T for F32, F16 and BF16 weights, read in place from the file's row-major layout. Weights are
// converted exactly. Activations stay f32, but beside BF16 weights they are rounded to BF16, as processors that
// multiply BF16 want them. Every dot product is
//
//   F32, F16:  lane[l] = fma(w[i], x[i], lane[l]) for i = l, l + 16, l + 32, ...            l in [0, 16)
//   BF16:      lane[l] = fma(w[i], x[i], fma(w[i + 1], x[i + 1], lane[l])) for i = 2 l, 2 l + 32, 2 l + 64, ...
//   y = Sum(lane) [+ bias] [+ y]                                                            Sum as in ../simd/README.md
//
// for every instruction set, every n_tok and every split of the work. (Where the processor has BF16 products, factors
// and sums below 2^-126 count as zero there, and there alone.)
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
  const void* x = nullptr;  // [n_tok, n_in]: floats, for BF16 weights uint16_t
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
