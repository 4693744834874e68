#include "kernels/cpu/dense_matmul/generic.h"
#include "kernels/cpu/simd/avx512.h"

namespace updraft::kernels {
extern const DenseMatMulKernels kDenseMatMulAvx512Vnni;
const DenseMatMulKernels kDenseMatMulAvx512Vnni = MakeDenseMatMulKernels<Avx512Vnni>();
}  // namespace updraft::kernels
