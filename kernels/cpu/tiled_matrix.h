// Quantized weights as the CPU operations keep them.
#ifndef UPDRAFT_KERNELS_CPU_TILED_MATRIX_H_
#define UPDRAFT_KERNELS_CPU_TILED_MATRIX_H_

#include <cstdint>
#include <utility>

#include "kernels/cpu/tile_matmul/pack.h"
#include "kernels/ops.h"

namespace updraft::kernels {

// What CpuOps::Pack makes of a type for which IsTiled.
class TiledMatrix : public PackedMatrix {
 public:
  TiledMatrix(DType type, int64_t n_out, int64_t n_in, TiledWeights weights)
      : PackedMatrix(type, n_out, n_in, weights.bytes()), weights_(std::move(weights)) {}
  const TiledWeights& weights() const { return weights_; }

 private:
  TiledWeights weights_;
};

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_TILED_MATRIX_H_
