// Data and comparisons for the kernel tests. Every random value comes from a printed seed.
#ifndef UPDRAFT_TESTS_KERNELS_CPU_TEST_UTIL_H_
#define UPDRAFT_TESTS_KERNELS_CPU_TEST_UTIL_H_

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/arch.h"
#include "kernels/formats/codec.h"
#include "kernels/formats/dtype.h"
#include "kernels/ops.h"
#include "tests/kernels/formats/samples.h"

namespace updraft::kernels {

inline std::vector<DType> AllTypes() {
  std::vector<DType> types;
  for (int i = 0; i < kNumDTypes; ++i) types.push_back(static_cast<DType>(i));
  return types;
}

// The instruction sets of this machine that run the vector bodies. On Arm, where these tests run under an emulator,
// without the portable one: it would take most of the time and is tested elsewhere.
inline std::vector<Isa> VectorIsas() {
  std::vector<Isa> isas;
  for (const Isa isa : SupportedIsas()) {
#if defined(__aarch64__)
    if (isa == Isa::kPortable) continue;
#endif
    if (isa != Isa::kReference) isas.push_back(isa);
  }
  return isas;
}

// Standard normal values, reproducible from the seed on any standard library (Box-Muller on a linear generator).
inline std::vector<float> Gaussian(size_t n, uint64_t seed) {
  std::mt19937_64 bits(seed);
  const auto uniform = [&bits] { return (static_cast<double>(bits() >> 11) + 0.5) * 0x1p-53; };
  std::vector<float> values(n);
  for (float& value : values) {
    value = static_cast<float>(std::sqrt(-2.0 * std::log(uniform())) * std::cos(2.0 * M_PI * uniform()));
  }
  return values;
}

// W [n_out, n_in] in the file's format: of normal values, or, where there is no encoder, of random bits.
inline std::vector<std::byte> EncodedWeights(DType type, int64_t n_out, int64_t n_in, uint64_t seed) {
  if (!CanQuantize(type)) {
    const std::vector<uint8_t> blocks = testing::RandomBlocks(type, seed, static_cast<int>(n_out * n_in));
    const auto* bytes = reinterpret_cast<const std::byte*>(blocks.data());
    return {bytes, bytes + blocks.size()};
  }
  const std::vector<float> values = Gaussian(n_out * n_in, seed);
  std::vector<std::byte> bytes(n_out * RowBytes(type, n_in));
  for (int64_t row = 0; row < n_out; ++row) {
    QuantizeRow(type, values.data() + row * n_in, bytes.data() + row * RowBytes(type, n_in), n_in);
  }
  return bytes;
}

inline std::vector<float> DecodedWeights(DType type, int64_t n_out, int64_t n_in, const std::vector<std::byte>& bytes) {
  std::vector<float> values(n_out * n_in);
  for (int64_t row = 0; row < n_out; ++row) {
    DequantizeRow(type, bytes.data() + row * RowBytes(type, n_in), values.data() + row * n_in, n_in);
  }
  return values;
}

// Same bits, NaN included.
inline ::testing::AssertionResult SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return ::testing::AssertionFailure() << "sizes " << a.size() << " and " << b.size();
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0 && !(std::isnan(a[i]) && std::isnan(b[i]))) {
      return ::testing::AssertionFailure() << "first difference at " << i << ": " << a[i] << " and " << b[i];
    }
  }
  return ::testing::AssertionSuccess();
}

}  // namespace updraft::kernels

#endif  // UPDRAFT_TESTS_KERNELS_CPU_TEST_UTIL_H_
