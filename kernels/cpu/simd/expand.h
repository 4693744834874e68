// Bytes at the places that a mask names, for machines that have no instruction for it.
#ifndef UPDRAFT_KERNELS_CPU_SIMD_EXPAND_H_
#define UPDRAFT_KERNELS_CPU_SIMD_EXPAND_H_

#include <cstdint>

namespace updraft::kernels {
namespace {

struct alignas(64) Bytes64 {
  uint8_t bytes[64];
};

// bytes[i] = the next of `codes` where bit i of mask is set, else fill.
inline Bytes64 ExpandBytes(const uint8_t* codes, uint64_t mask, uint8_t fill) {
  Bytes64 out;
  for (int i = 0; i < 64; ++i) {
    const bool set = (mask >> i & 1) != 0;
    out.bytes[i] = set ? *codes : fill;
    codes += set ? 1 : 0;
  }
  return out;
}

}  // namespace
}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_SIMD_EXPAND_H_
