#include "kernels/cpu/simd/neon.h"
#include "kernels/cpu/tile_matmul/generic.h"

namespace updraft::kernels {
extern const TileMatMulKernels kTileMatMulNeon;
const TileMatMulKernels kTileMatMulNeon = MakeTileMatMulKernels<Neon>();
}  // namespace updraft::kernels
