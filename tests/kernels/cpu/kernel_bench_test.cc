// The benchmark's own arithmetic, and that it runs; figures are not tested.
#include "kernels/bench/kernel_bench.h"

#include <gtest/gtest.h>

namespace updraft::kernels {
namespace {

TEST(SpreadTest, MedianAndExtremes) {
  const Spread odd = SpreadOf({3, 1, 2});
  EXPECT_EQ(odd.median, 2);
  EXPECT_EQ(odd.min, 1);
  EXPECT_EQ(odd.max, 3);
  EXPECT_EQ(SpreadOf({4, 1, 2, 3}).median, 2.5);
}

TEST(KernelBenchTest, ReportsWhatTheFilterAsksFor) {
  KernelBenchOptions options;
  options.n_threads = 1;
  options.filter = "q4_0 5632x2048 n_tok 4";
  options.repeat = 1;
  options.megabytes = 1;
  options.seconds_per_run = 0.001;
  MachinePeaks peaks;
  peaks.int8_gop_s = 100;
  peaks.fp32_gflop_s = 100;
  std::vector<KernelBenchResult> results;
  RunKernelBenches(options, peaks, [&](const KernelBenchResult& result) { results.push_back(result); });
  ASSERT_EQ(results.size(), 1u);
  const KernelBenchResult& r = results[0];
  EXPECT_EQ(r.flops, 2.0 * 5632 * 2048 * 4);
  EXPECT_EQ(r.bytes, 5632 * 2048 * 4.5 / 8);
  EXPECT_GT(r.roof_gb_s, 0);
  EXPECT_GT(r.roofline_fraction, 0);
  EXPECT_NEAR(r.gb_s, r.bytes / r.seconds.median * 1e-9, 1e-9 * r.gb_s);
}

}  // namespace
}  // namespace updraft::kernels
