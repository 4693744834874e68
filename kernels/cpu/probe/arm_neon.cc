#include "kernels/cpu/probe/generic.h"
#include "kernels/cpu/simd/neon.h"

namespace updraft::kernels {
extern const ProbeKernels kProbeNeon;
const ProbeKernels kProbeNeon = MakeProbeKernels<Neon>();
}  // namespace updraft::kernels
