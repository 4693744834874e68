#include "kernels/cpu/simd/portable.h"

#include "kernels/cpu/attention/generic.h"

namespace updraft::kernels {
extern const AttentionKernels kAttentionPortable;
const AttentionKernels kAttentionPortable = MakeAttentionKernels<Portable>();
}  // namespace updraft::kernels
