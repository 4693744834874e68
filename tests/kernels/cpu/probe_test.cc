// The yardsticks of the benchmarks: that they do all the work which they are counted for.
#include "kernels/cpu/probe/probe.h"

#include "kernels/cpu/kernel_table.h"
#include "kernels/formats/float16.h"
#include "tests/kernels/cpu/test_util.h"

namespace updraft::kernels {
namespace {

// The sum of codes [16 lanes, 4] times the four activations of every chain, as often as the operations are counted.
int32_t ExactDot(int n_chains, int n_steps, int64_t n_rounds) {
  int64_t sum = 0;
  for (int chain = 0; chain < n_chains; ++chain) {
    for (int code = 0; code < 64; ++code) {
      const int at = 4 * chain + code % 4;
      sum += code % 16 * (chain % 2 == 0 ? at % 7 - 3 : 3 - at % 5);
    }
  }
  return static_cast<int32_t>(sum * n_steps * n_rounds);
}

TEST(ProbeTest, EveryCountedOperationIsDone) {
  for (const Isa isa : VectorIsas()) {
    SCOPED_TRACE(IsaName(isa));
    const ProbeKernels& probe = *ChooseKernels(isa).probe;
    const int n_chains = probe.flops_per_round / 32;
    ASSERT_EQ(probe.flops_per_round, n_chains * 32);
    ASSERT_EQ(probe.bf16_flops_per_round, n_chains * 64);
    const int n_dots = probe.dot_chains;
    ASSERT_EQ(probe.ops_per_round % (n_dots * 128), 0);
    const int n_steps = probe.ops_per_round / (n_dots * 128);
    for (const int64_t n_rounds : {1, 2, 77}) EXPECT_EQ(probe.dot(n_rounds), ExactDot(n_dots, n_steps, n_rounds));
    // Each of 16 lanes of a chain goes from the chain's number c towards 1: x <- 0.999 x + 0.001.
    for (const int64_t n_rounds : {1, 100, 20000}) {
      double exact = 0;
      for (int c = 0; c < n_chains; ++c) exact += 16 * (1 + (c - 1) * std::pow(0.999, n_rounds));
      EXPECT_NEAR(probe.multiply_add(n_rounds), exact, 1e-3 * exact + 1e-3) << n_rounds << " rounds";
    }
    // Each of 16 lanes of a chain begins at the chain's number and gains the squares of two of 32 numbers in a round.
    double gain = 0;
    for (int i = 0; i < 32; ++i) gain += std::pow(BF16ToF32(static_cast<uint16_t>(0x3c00 + i)), 2);
    for (const int64_t n_rounds : {1, 100, 20000}) {
      const double exact = 16.0 * n_chains * (n_chains - 1) / 2 + n_chains * gain * static_cast<double>(n_rounds);
      EXPECT_NEAR(probe.multiply_add_bf16(n_rounds), exact, 1e-3 * exact) << n_rounds << " rounds";
    }
    alignas(64) float memory[128];
    for (int i = 0; i < 128; ++i) memory[i] = static_cast<float>(i);
    EXPECT_EQ(probe.read(reinterpret_cast<const uint8_t*>(memory), sizeof memory), 128 * 127 / 2);
  }
}

}  // namespace
}  // namespace updraft::kernels
