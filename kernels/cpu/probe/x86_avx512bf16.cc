#include "kernels/cpu/probe/generic.h"
#include "kernels/cpu/simd/avx512bf16.h"

namespace updraft::kernels {
extern const ProbeKernels kProbeAvx512Bf16;
const ProbeKernels kProbeAvx512Bf16 = MakeProbeKernels<Avx512Bf16>();
}  // namespace updraft::kernels
