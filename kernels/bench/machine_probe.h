// What this machine can do at most, measured: the limits that every speed is set beside.
#ifndef UPDRAFT_KERNELS_BENCH_MACHINE_PROBE_H_
#define UPDRAFT_KERNELS_BENCH_MACHINE_PROBE_H_

#include <vector>

#include "kernels/aligned_buffer.h"
#include "kernels/arch.h"
#include "kernels/thread_pool.h"

namespace updraft::kernels {

struct ProbeKernels;

// Of several repetitions.
struct Spread {
  double median = 0;
  double min = 0;
  double max = 0;
};
Spread SpreadOf(std::vector<double> values);  // of at least one value

// Sequential reads of memory far larger than the caches. Holds that memory, so that a reading takes milliseconds and
// can stand right before and after what is measured: shared machines change within seconds.
class BandwidthProbe {
 public:
  // n_threads >= 1. Each thread reads what it has written, so that with pin_threads (thread_pool.h) every one reads
  // memory near it.
  BandwidthProbe(Isa isa, int n_threads, bool pin_threads = false);

  double GbPerSecondNow();  // 10^9 bytes per second

 private:
  // Calls body(from, n_bytes) for every chunk of the memory, on all threads.
  template <typename Body>
  void ForChunks(const Body& body);

  const ProbeKernels& probe_;
  ThreadPool pool_;
  AlignedBuffer bytes_;
};

struct MachinePeaks {
  double read_gb_s_one = 0;  // one thread
  double read_gb_s_all = 0;  // all threads
  double int8_gop_s = 0;     // integer dot products, all threads; multiplications and additions counted
  double fp32_gflop_s = 0;   // fused multiply-adds, all threads; counted as 2
  double bf16_gflop_s = 0;   // the same of BF16 numbers with sums in f32
};

// n_threads 0: what the process may use.
MachinePeaks ProbeMachine(Isa isa, int n_threads);

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_BENCH_MACHINE_PROBE_H_
