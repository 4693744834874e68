#include "kernels/cpu/probe/generic.h"
#include "kernels/cpu/simd/avx512.h"

namespace updraft::kernels {
extern const ProbeKernels kProbeAvx512Vnni;
const ProbeKernels kProbeAvx512Vnni = MakeProbeKernels<Avx512Vnni>();
}  // namespace updraft::kernels
