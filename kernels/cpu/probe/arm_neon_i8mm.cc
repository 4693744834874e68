#include "kernels/cpu/probe/generic.h"
#include "kernels/cpu/simd/neon_i8mm.h"

namespace updraft::kernels {
extern const ProbeKernels kProbeNeonI8mm;
const ProbeKernels kProbeNeonI8mm = MakeProbeKernels<NeonI8mm>();
}  // namespace updraft::kernels
