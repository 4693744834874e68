// What this machine can do at most, measured with the same vectors as the kernels: the yardsticks of the benchmarks.
#ifndef UPDRAFT_KERNELS_CPU_PROBE_PROBE_H_
#define UPDRAFT_KERNELS_CPU_PROBE_PROBE_H_

#include <cstddef>
#include <cstdint>

namespace updraft::kernels {

// One instruction set's probes, an entry of kernels.inc. The results only keep the work from being optimised away.
struct ProbeKernels {
  // Reads bytes [0, n), a multiple of 256, once and in order; p is aligned to 64.
  float (*read)(const uint8_t* p, size_t n) = nullptr;
  // n_rounds times `flops_per_round` floating-point operations (fused multiply-adds count 2) without memory traffic.
  float (*multiply_add)(int64_t n_rounds) = nullptr;
  int flops_per_round = 0;
  // The same of BF16 numbers, sums in f32.
  float (*multiply_add_bf16)(int64_t n_rounds) = nullptr;
  int bf16_flops_per_round = 0;
  // n_rounds times `ops_per_round` 8-bit integer operations (multiplications and additions) of the integer dot product.
  int32_t (*dot)(int64_t n_rounds) = nullptr;
  int ops_per_round = 0;
  int dot_chains = 0;  // independent sums among them
};

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_PROBE_PROBE_H_
