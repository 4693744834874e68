#include "kernels/cpu/attention/generic.h"
#include "kernels/cpu/simd/avx512.h"

namespace updraft::kernels {
extern const AttentionKernels kAttentionAvx512Vnni;
const AttentionKernels kAttentionAvx512Vnni = MakeAttentionKernels<Avx512Vnni>();
}  // namespace updraft::kernels
