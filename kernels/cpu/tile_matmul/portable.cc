#include "kernels/cpu/simd/portable.h"

#include "kernels/cpu/tile_matmul/generic.h"

namespace updraft::kernels {
extern const TileMatMulKernels kTileMatMulPortable;
const TileMatMulKernels kTileMatMulPortable = MakeTileMatMulKernels<Portable>();
}  // namespace updraft::kernels
