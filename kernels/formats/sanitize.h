// How encoders treat numbers that no block can hold. Private to this folder.
#ifndef UPDRAFT_KERNELS_FORMATS_SANITIZE_H_
#define UPDRAFT_KERNELS_FORMATS_SANITIZE_H_

#include <algorithm>
#include <cstdint>

#include "kernels/formats/float16.h"

namespace updraft::kernels {

// NaN becomes 0; magnitudes above 2^30 become 2^30. That is beyond what any block can hold (127 * 65504 < 2^23), and
// small enough that sums of squares over a block stay finite.
inline float Sanitized(float x) {
  constexpr float kLimit = 0x1p30f;
  return x == x ? std::clamp(x, -kLimit, kLimit) : 0.0f;
}

// To binary16, with the greatest finite value in place of infinity. x is not NaN.
inline uint16_t SaturatedF16(float x) {
  constexpr float kGreatest = 65504.0f;
  return F32ToF16(std::clamp(x, -kGreatest, kGreatest));
}

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_FORMATS_SANITIZE_H_
