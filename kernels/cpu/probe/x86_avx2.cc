#include "kernels/cpu/probe/generic.h"
#include "kernels/cpu/simd/avx2.h"

namespace updraft::kernels {
extern const ProbeKernels kProbeAvx2;
const ProbeKernels kProbeAvx2 = MakeProbeKernels<Avx2>();
}  // namespace updraft::kernels
