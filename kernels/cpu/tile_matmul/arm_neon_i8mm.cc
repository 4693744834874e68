#include "kernels/cpu/simd/neon_i8mm.h"
#include "kernels/cpu/tile_matmul/generic.h"

namespace updraft::kernels {
extern const TileMatMulKernels kTileMatMulNeonI8mm;
const TileMatMulKernels kTileMatMulNeonI8mm = MakeTileMatMulKernels<NeonI8mm>();
}  // namespace updraft::kernels
