#include "kernels/cpu/dense_matmul/generic.h"
#include "kernels/cpu/simd/neon.h"

namespace updraft::kernels {
extern const DenseMatMulKernels kDenseMatMulNeon;
const DenseMatMulKernels kDenseMatMulNeon = MakeDenseMatMulKernels<Neon>();
}  // namespace updraft::kernels
