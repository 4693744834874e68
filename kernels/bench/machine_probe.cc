#include "kernels/bench/machine_probe.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>

#include "kernels/cpu/kernel_table.h"

namespace updraft::kernels {
namespace {

constexpr size_t kProbeBytes = size_t{256} << 20;

const ProbeKernels& ProbeOf(Isa isa) { return *ChooseKernels(isa == Isa::kReference ? Isa::kPortable : isa).probe; }

template <typename Body>
double SecondsOf(const Body& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Best of several tries: a peak is what is possible, not what is usual.
template <typename Run>
double BestGopPerSecond(ThreadPool& pool, int ops_per_round, const Run& run) {
  constexpr int64_t kRounds = 200000;
  double best = 0;
  for (int i = 0; i < 7; ++i) {
    const double seconds = SecondsOf([&] {
      pool.Run(pool.n_threads(), [&](int, int) {
        volatile auto kept = run(kRounds);
        static_cast<void>(kept);
      });
    });
    best = std::max(best, 1e-9 * static_cast<double>(kRounds) * ops_per_round * pool.n_threads() / seconds);
  }
  return best;
}

}  // namespace

Spread SpreadOf(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  const double median = n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
  return {median, values.front(), values.back()};
}

BandwidthProbe::BandwidthProbe(Isa isa, int n_threads, bool pin_threads)
    : probe_(ProbeOf(isa)), pool_(n_threads, pin_threads), bytes_(kProbeBytes) {
  ForChunks([](uint8_t* from, size_t n_bytes) { std::memset(from, 0, n_bytes); });
}

template <typename Body>
void BandwidthProbe::ForChunks(const Body& body) {
  constexpr int kChunks = 64;
  pool_.Run(kChunks,
            [&](int chunk, int) { body(bytes_.data() + kProbeBytes / kChunks * chunk, kProbeBytes / kChunks); });
}

double BandwidthProbe::GbPerSecondNow() {
  const double seconds = SecondsOf([&] {
    ForChunks([&](const uint8_t* from, size_t n_bytes) {
      volatile float kept = probe_.read(from, n_bytes);
      static_cast<void>(kept);
    });
  });
  return kProbeBytes / seconds * 1e-9;
}

MachinePeaks ProbeMachine(Isa isa, int n_threads) {
  const ProbeKernels& probe = ProbeOf(isa);
  if (n_threads <= 0) n_threads = AvailableCpus();
  MachinePeaks peaks;
  {
    BandwidthProbe one(isa, 1);
    BandwidthProbe all(isa, n_threads);
    for (int i = 0; i < 5; ++i) {
      peaks.read_gb_s_one = std::max(peaks.read_gb_s_one, one.GbPerSecondNow());
      peaks.read_gb_s_all = std::max(peaks.read_gb_s_all, all.GbPerSecondNow());
    }
  }
  ThreadPool pool(n_threads);
  peaks.int8_gop_s = BestGopPerSecond(pool, probe.ops_per_round, probe.dot);
  peaks.fp32_gflop_s = BestGopPerSecond(pool, probe.flops_per_round, probe.multiply_add);
  peaks.bf16_gflop_s = BestGopPerSecond(pool, probe.bf16_flops_per_round, probe.multiply_add_bf16);
  return peaks;
}

}  // namespace updraft::kernels
