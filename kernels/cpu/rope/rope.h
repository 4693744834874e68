// Rotary position embedding: the angles, which cost transcendental functions and are the same for every layer of a
// step, apart from the rotation, which is cheap.
#ifndef UPDRAFT_KERNELS_CPU_ROPE_ROPE_H_
#define UPDRAFT_KERNELS_CPU_ROPE_ROPE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/ops.h"

namespace updraft::kernels {

// cos and sin: [n_rot / 2], of the rotation at `position`, magnitude multiplier included.
//
// Pair i turns by position * freq_base^(-2i / n_rot) / freq_factors[i], times freq_scale. With YaRN (ext_factor != 0;
// Peng et al. 2023, "YaRN", section 3.2, with the ramp over dimensions that GGUF files assume) the pairs that turn
// often within n_ctx_orig tokens keep their unscaled angle, the slow ones are interpolated, and cos and sin grow by 1 +
// 0.1 ln(1 / freq_scale). Computed in double, rounded once.
void RopeAngles(const RopeParams& params, int32_t position, float* cos, float* sin);

// Rotates the first n_rot values of one head in place: (a, b) -> (a cos - b sin, a sin + b cos), products and
// differences rounded one by one.
void RopeRotate(const RopeParams& params, const float* cos, const float* sin, float* head);

// The angles of the positions of one step, computed once and then shared by all layers, queries and keys.
class RopeTable {
 public:
  // Makes row t the angles of positions[t]. Nothing is computed when params and positions are those of the last call.
  // params.freq_factors is compared by address: its contents do not change while a model lives.
  void Prepare(const RopeParams& params, std::span<const int32_t> positions);

  const float* cos(int64_t row) const { return cos_.data() + row * half_; }
  const float* sin(int64_t row) const { return sin_.data() + row * half_; }

 private:
  RopeParams params_;
  std::vector<int32_t> positions_;
  int64_t half_ = 0;              // n_rot / 2
  std::vector<float> cos_, sin_;  // [positions, n_rot / 2]
};

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_ROPE_ROPE_H_
