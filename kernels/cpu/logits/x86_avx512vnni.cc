#include "kernels/cpu/logits/generic.h"
#include "kernels/cpu/simd/avx512.h"

namespace updraft::kernels {
extern const LogitsKernels kLogitsAvx512Vnni;
const LogitsKernels kLogitsAvx512Vnni = MakeLogitsKernels<Avx512Vnni>();
}  // namespace updraft::kernels
