#include "kernels/cpu/simd/portable.h"

#include "kernels/cpu/dense_matmul/generic.h"

namespace updraft::kernels {
extern const DenseMatMulKernels kDenseMatMulPortable;
const DenseMatMulKernels kDenseMatMulPortable = MakeDenseMatMulKernels<Portable>();
}  // namespace updraft::kernels
