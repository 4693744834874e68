#include "kernels/cpu/row_ops/generic.h"
#include "kernels/cpu/simd/avx2.h"

namespace updraft::kernels {
extern const RowOpsKernels kRowOpsAvx2;
const RowOpsKernels kRowOpsAvx2 = MakeRowOpsKernels<Avx2>();
}  // namespace updraft::kernels
