#include "kernels/cpu/attention/generic.h"
#include "kernels/cpu/simd/avx2.h"

namespace updraft::kernels {
extern const AttentionKernels kAttentionAvx2;
const AttentionKernels kAttentionAvx2 = MakeAttentionKernels<Avx2>();
}  // namespace updraft::kernels
