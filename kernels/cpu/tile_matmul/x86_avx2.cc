#include "kernels/cpu/simd/avx2.h"
#include "kernels/cpu/tile_matmul/generic.h"

namespace updraft::kernels {
extern const TileMatMulKernels kTileMatMulAvx2;
const TileMatMulKernels kTileMatMulAvx2 = MakeTileMatMulKernels<Avx2>();
}  // namespace updraft::kernels
