#include "kernels/cpu/logits/generic.h"
#include "kernels/cpu/simd/neon.h"

namespace updraft::kernels {
extern const LogitsKernels kLogitsNeon;
const LogitsKernels kLogitsNeon = MakeLogitsKernels<Neon>();
}  // namespace updraft::kernels
