#include "kernels/cpu/probe/generic.h"
#include "kernels/cpu/simd/avxvnni.h"

namespace updraft::kernels {
extern const ProbeKernels kProbeAvxVnni;
const ProbeKernels kProbeAvxVnni = MakeProbeKernels<AvxVnni>();
}  // namespace updraft::kernels
