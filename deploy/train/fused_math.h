// What the bodies of the fused operations are made of. For files compiled with -ffast-math alone (fused_*.cc): the
// loops vectorize there.
#ifndef UPDRAFT_DEPLOY_TRAIN_FUSED_MATH_H_
#define UPDRAFT_DEPLOY_TRAIN_FUSED_MATH_H_

#include <torch/torch.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

// One body per instruction set, chosen when the program starts.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define UPDRAFT_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define UPDRAFT_CLONES
#endif
// Helpers take on the instruction set of the body that they are used in.
#define UPDRAFT_INLINE inline __attribute__((always_inline))

namespace updraft::train {

UPDRAFT_INLINE float Load(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return value;
}

// To nearest, ties to even. The values here are finite.
UPDRAFT_INLINE uint16_t Store(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

// exp to about 2 ulp, in operations that vectorize: 2^n times the polynomial of Cephes expf on the rest.
UPDRAFT_INLINE float Exp(float x) {
  x = std::min(std::max(x, -87.0f), 88.0f);
  const float n = __builtin_floorf(x * 1.44269504f + 0.5f);
  const float r = x - n * 0.693359375f - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof(power));
  return p * power;
}

inline uint16_t* Bits(const torch::Tensor& t) { return reinterpret_cast<uint16_t*>(t.data_ptr<at::BFloat16>()); }

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_FUSED_MATH_H_
