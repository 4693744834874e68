#include "kernels/cpu/simd/portable.h"

#include "kernels/cpu/row_ops/generic.h"

namespace updraft::kernels {
extern const RowOpsKernels kRowOpsPortable;
const RowOpsKernels kRowOpsPortable = MakeRowOpsKernels<Portable>();
}  // namespace updraft::kernels
