#include "kernels/cpu/simd/portable.h"

#include "kernels/cpu/probe/generic.h"

namespace updraft::kernels {
extern const ProbeKernels kProbePortable;
const ProbeKernels kProbePortable = MakeProbeKernels<Portable>();
}  // namespace updraft::kernels
