#include "kernels/cpu/dense_matmul/generic.h"
#include "kernels/cpu/simd/avx512bf16.h"

namespace updraft::kernels {
extern const DenseMatMulKernels kDenseMatMulAvx512Bf16;
const DenseMatMulKernels kDenseMatMulAvx512Bf16 = MakeDenseMatMulKernels<Avx512Bf16>();
}  // namespace updraft::kernels
