#include "kernels/cpu/probe/generic.h"
#include "kernels/cpu/simd/neon_dotprod.h"

namespace updraft::kernels {
extern const ProbeKernels kProbeNeonDotprod;
const ProbeKernels kProbeNeonDotprod = MakeProbeKernels<NeonDotprod>();
}  // namespace updraft::kernels
