#include "kernels/cpu/simd/avx512.h"
#include "kernels/cpu/tile_matmul/generic.h"

namespace updraft::kernels {
extern const TileMatMulKernels kTileMatMulAvx512Vnni;
const TileMatMulKernels kTileMatMulAvx512Vnni = MakeTileMatMulKernels<Avx512Vnni>();
}  // namespace updraft::kernels
