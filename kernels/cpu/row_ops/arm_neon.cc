#include "kernels/cpu/row_ops/generic.h"
#include "kernels/cpu/simd/neon.h"

namespace updraft::kernels {
extern const RowOpsKernels kRowOpsNeon;
const RowOpsKernels kRowOpsNeon = MakeRowOpsKernels<Neon>();
}  // namespace updraft::kernels
