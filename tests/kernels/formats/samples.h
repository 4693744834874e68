// Numbers for codec tests: the same on every machine, because only integers and exact float operations make them.
#ifndef UPDRAFT_TESTS_KERNELS_FORMATS_SAMPLES_H_
#define UPDRAFT_TESTS_KERNELS_FORMATS_SAMPLES_H_

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/formats/dtype.h"
#include "tests/random.h"

namespace updraft::kernels::testing {

class Random : public updraft::testing::SplitMix {
 public:
  using SplitMix::SplitMix;
  // Near-normal, mean 0, standard deviation about 0.58: the sum of four uniform numbers, a multiple of 2^-16.
  float Bell() {
    const uint64_t bits = Next();
    int64_t sum = 0;
    for (int i = 0; i < 4; ++i) sum += static_cast<int64_t>((bits >> (16 * i)) & 0xffff) - 32768;
    return std::ldexp(static_cast<float>(sum), -16);
  }
};

// n weights in runs of 32 with a magnitude of their own, 2^-8 to 2^-1; every 7th run is one-sided, as some layers are.
inline std::vector<float> SampleWeights(uint64_t seed, int n) {
  Random random(seed);
  std::vector<float> x(static_cast<size_t>(n));
  float magnitude = 1.0f;
  for (int i = 0; i < n; ++i) {
    if (i % 32 == 0) magnitude = std::ldexp(1.0f, -1 - static_cast<int>(random.Next() % 8));
    const float v = random.Bell() * magnitude;
    x[static_cast<size_t>(i)] = (i / 32) % 7 == 6 ? std::fabs(v) : v;
  }
  return x;
}

// n weights of one magnitude, standard deviation about 0.017, as in a well-behaved linear layer.
inline std::vector<float> BellWeights(uint64_t seed, int n) {
  Random random(seed);
  std::vector<float> x(static_cast<size_t>(n));
  for (float& v : x) v = random.Bell() * 0.03f;
  return x;
}

// A coded row of n elements in which every bit is random, except that the 16-bit scales (and halves) are made finite by
// clearing the top bit of their exponents.
inline std::vector<uint8_t> RandomBlocks(DType type, uint64_t seed, int n) {
  Random random(seed);
  std::vector<uint8_t> bytes(RowBytes(type, n));
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.Next() >> 56);
  const auto block_bytes = static_cast<size_t>(Info(type).block_bytes);
  const auto make_finite = [&](size_t offset) {
    for (size_t i = offset; i < bytes.size(); i += block_bytes) bytes[i + 1] &= 0xbf;
  };
  switch (type) {
    case DType::kF32:
    case DType::kMXFP4:
    case DType::kNVFP4:
      break;
    case DType::kQ2_K:
      make_finite(80);
      make_finite(82);
      break;
    case DType::kQ3_K:
      make_finite(108);
      break;
    case DType::kQ6_K:
      make_finite(208);
      break;
    case DType::kTQ1_0:
      make_finite(52);
      break;
    case DType::kTQ2_0:
      make_finite(64);
      break;
    case DType::kIQ1_M:  // the scale's highest bits lie in the last word
      make_finite(54);
      break;
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
      make_finite(2);
      [[fallthrough]];
    default:
      make_finite(0);
  }
  return bytes;
}

// FNV-1a, 64 bits.
inline uint64_t Fingerprint(const void* data, size_t n_bytes) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  uint64_t hash = 0xcbf29ce484222325u;
  for (size_t i = 0; i < n_bytes; ++i) hash = (hash ^ bytes[i]) * 0x100000001b3u;
  return hash;
}

}  // namespace updraft::kernels::testing

#endif  // UPDRAFT_TESTS_KERNELS_FORMATS_SAMPLES_H_
