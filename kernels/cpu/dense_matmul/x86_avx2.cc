#include "kernels/cpu/dense_matmul/generic.h"
#include "kernels/cpu/simd/avx2.h"

namespace updraft::kernels {
extern const DenseMatMulKernels kDenseMatMulAvx2;
const DenseMatMulKernels kDenseMatMulAvx2 = MakeDenseMatMulKernels<Avx2>();
}  // namespace updraft::kernels
