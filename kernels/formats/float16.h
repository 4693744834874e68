// Half-precision conversions, for host and device: IEEE 754 binary16 ("fp16") and bfloat16 ("bf16"), kept as uint16_t.
//
// Narrowing rounds to nearest, ties to even, over the whole range: subnormals are produced and read exactly, overflow
// gives infinity, and a NaN stays a NaN (made quiet, sign and leading payload bits kept), bit for bit as x86 F16C and
// AVX512-BF16 (without flush-to-zero) and Arm FCVT do it.
#ifndef UPDRAFT_KERNELS_FORMATS_FLOAT16_H_
#define UPDRAFT_KERNELS_FORMATS_FLOAT16_H_

#include <cstdint>

#if defined(__CUDACC__)
#define UPDRAFT_HD __host__ __device__
#else
#define UPDRAFT_HD
#endif

namespace updraft::kernels {

namespace internal {

UPDRAFT_HD constexpr uint32_t BitsOf(float x) { return __builtin_bit_cast(uint32_t, x); }
UPDRAFT_HD constexpr float FloatOf(uint32_t bits) { return __builtin_bit_cast(float, bits); }

}  // namespace internal

UPDRAFT_HD constexpr float F16ToF32(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t magnitude = h & 0x7fffu;
  if (magnitude >= 0x7c00u) {  // infinity, NaN
    const uint32_t quiet = magnitude > 0x7c00u ? 0x00400000u : 0u;
    return internal::FloatOf(sign | 0x7f800000u | quiet | ((magnitude & 0x3ffu) << 13));
  }
  if (magnitude < 0x0400u) {  // zero, subnormal: an integer count of 2^-24
    const uint32_t bits = internal::BitsOf(static_cast<float>(magnitude) * 0x1p-24f);
    return internal::FloatOf(sign | bits);
  }
  return internal::FloatOf(sign | ((magnitude << 13) + ((127u - 15u) << 23)));
}

UPDRAFT_HD constexpr uint16_t F32ToF16(float x) {
  const uint32_t bits = internal::BitsOf(x);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t a = bits & 0x7fffffffu;
  if (a > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | ((a >> 13) & 0x3ffu));
  if (a >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and above round to infinity
  if (a >= 0x38800000u) {                                              // 2^-14 and above: normal
    const uint32_t rebased = a - ((127u - 15u) << 23);
    return static_cast<uint16_t>(sign | ((rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13));
  }
  if (a <= 0x33000000u) return static_cast<uint16_t>(sign);  // 2^-25, half of the least subnormal, ties to zero
  const uint32_t mantissa = (a & 0x7fffffu) | 0x800000u;
  const uint32_t shift = 126u - (a >> 23);  // value = mantissa * 2^(e-150); the result counts 2^-24
  const uint32_t kept = mantissa >> shift;
  const uint32_t rest = mantissa & ((1u << shift) - 1u);
  const uint32_t half = 1u << (shift - 1u);
  const uint32_t up = (rest > half || (rest == half && (kept & 1u))) ? 1u : 0u;
  return static_cast<uint16_t>(sign | (kept + up));  // a carry into the exponent is the right result
}

UPDRAFT_HD constexpr float BF16ToF32(uint16_t h) { return internal::FloatOf(static_cast<uint32_t>(h) << 16); }

UPDRAFT_HD constexpr uint16_t F32ToBF16(float x) {
  const uint32_t bits = internal::BitsOf(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_FORMATS_FLOAT16_H_
