#include "kernels/cpu/simd/neon.h"

#include "kernels/cpu/probe/generic.h"

namespace updraft::kernels {
extern const ProbeKernels kProbeNeon;
const ProbeKernels kProbeNeon = MakeProbeKernels<Neon>();
}  // namespace updraft::kernels
