#include "kernels/cpu/simd/avxvnni.h"
#include "kernels/cpu/tile_matmul/generic.h"

namespace updraft::kernels {
extern const TileMatMulKernels kTileMatMulAvxVnni;
const TileMatMulKernels kTileMatMulAvxVnni = MakeTileMatMulKernels<AvxVnni>();
}  // namespace updraft::kernels
