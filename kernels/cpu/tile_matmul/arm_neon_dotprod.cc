#include "kernels/cpu/simd/neon_dotprod.h"
#include "kernels/cpu/tile_matmul/generic.h"

namespace updraft::kernels {
extern const TileMatMulKernels kTileMatMulNeonDotprod;
const TileMatMulKernels kTileMatMulNeonDotprod = MakeTileMatMulKernels<NeonDotprod>();
}  // namespace updraft::kernels
