#include "kernels/cpu/simd/neon_dotprod.h"

#include "kernels/cpu/probe/generic.h"

namespace updraft::kernels {
extern const ProbeKernels kProbeNeonDotprod;
const ProbeKernels kProbeNeonDotprod = MakeProbeKernels<NeonDotprod>();
}  // namespace updraft::kernels
