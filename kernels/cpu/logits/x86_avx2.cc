#include "kernels/cpu/logits/generic.h"
#include "kernels/cpu/simd/avx2.h"

namespace updraft::kernels {
extern const LogitsKernels kLogitsAvx2;
const LogitsKernels kLogitsAvx2 = MakeLogitsKernels<Avx2>();
}  // namespace updraft::kernels
