#include "kernels/cpu/simd/avx512vbmi2.h"
#include "kernels/cpu/tile_matmul/generic.h"

namespace updraft::kernels {
extern const KeptTileMatMulKernels kKeptTileMatMulAvx512Vbmi2;
const KeptTileMatMulKernels kKeptTileMatMulAvx512Vbmi2 = MakeKeptTileMatMulKernels<Avx512Vbmi2>();
}  // namespace updraft::kernels
