// Measures every CPU kernel beside what this machine can do, for `updraft bench kernels`. Plain functions; printing is
// the caller's.
//
// A kernel and the bandwidth probe run in turns, so that a machine whose speed moves (shared hosts do) moves both, and
// the ratio of a pair means something when the figures alone do not.
#ifndef UPDRAFT_KERNELS_BENCH_KERNEL_BENCH_H_
#define UPDRAFT_KERNELS_BENCH_KERNEL_BENCH_H_

#include <functional>
#include <string>

#include "kernels/bench/machine_probe.h"

namespace updraft::kernels {

struct KernelBenchResult {
  std::string name;              // "matmul q4_0 2048x5632 n_tok 1"
  double bytes = 0;              // that have to come from memory, once per call
  double flops = 0;              // useful operations per call; padding is not counted
  Spread seconds;                // of one call
  double gb_s = 0;               // bytes / median
  double gflop_s = 0;            // flops / median
  double roof_gb_s = 0;          // median of the bandwidth probes run in turns with this kernel
  double peak_gflop_s = 0;       // of the arithmetic that this kernel uses
  double roofline_fraction = 0;  // median over the pairs of (least possible time) / (time)
};

struct KernelBenchOptions {
  int n_threads = 0;       // 0: what the process may use
  std::string filter;      // only kernels whose name contains it
  int repeat = 7;          // pairs of kernel and probe
  double megabytes = 256;  // of weights cycled through, so that caches do not help
  double seconds_per_run = 0.05;
};

// Calls `report` with each result as it is ready.
void RunKernelBenches(const KernelBenchOptions& options, const MachinePeaks& peaks,
                      const std::function<void(const KernelBenchResult&)>& report);

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_BENCH_KERNEL_BENCH_H_
