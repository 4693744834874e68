#include "kernels/cpu/row_ops/generic.h"
#include "kernels/cpu/simd/avx512.h"

namespace updraft::kernels {
extern const RowOpsKernels kRowOpsAvx512Vnni;
const RowOpsKernels kRowOpsAvx512Vnni = MakeRowOpsKernels<Avx512Vnni>();
}  // namespace updraft::kernels
