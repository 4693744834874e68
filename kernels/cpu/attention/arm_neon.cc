#include "kernels/cpu/attention/generic.h"
#include "kernels/cpu/simd/neon.h"

namespace updraft::kernels {
extern const AttentionKernels kAttentionNeon;
const AttentionKernels kAttentionNeon = MakeAttentionKernels<Neon>();
}  // namespace updraft::kernels
