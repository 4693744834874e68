#include "kernels/cpu/simd/portable.h"

#include "kernels/cpu/logits/generic.h"

namespace updraft::kernels {
extern const LogitsKernels kLogitsPortable;
const LogitsKernels kLogitsPortable = MakeLogitsKernels<Portable>();
}  // namespace updraft::kernels
