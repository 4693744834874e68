#include "kernels/bench/kernel_bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <iterator>
#include <memory>
#include <numeric>

#include "kernels/aligned_buffer.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/tile_matmul/tile_format.h"
#include "kernels/formats/codec.h"
#include "kernels/logits.h"
#include "kernels/thread_pool.h"

namespace updraft::kernels {
namespace {

template <typename Body>
double SecondsOf(const Body& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double GbPerSecond(double bytes, double seconds) { return bytes / seconds * 1e-9; }

// Values in [-1, 1) without structure; speed does not depend on which.
std::vector<float> SomeValues(size_t n) {
  std::vector<float> values(n);
  uint32_t state = 12345;
  for (float& value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(static_cast<int32_t>(state)) * 0x1p-31f;
  }
  return values;
}

// One kind of call, prepared so that successive calls touch different weights.
struct Subject {
  std::string name;
  double bytes = 0;
  double flops = 0;
  double peak_gflop_s = 0;
  std::function<void(int call)> run;
};

KernelBenchResult Measure(const Subject& subject, const KernelBenchOptions& options, BandwidthProbe& probe) {
  subject.run(0);
  const double once = SecondsOf([&] { subject.run(1); });
  const int calls = std::max(1, static_cast<int>(std::ceil(options.seconds_per_run / std::max(once, 1e-7))));
  std::vector<double> seconds, roofs, fractions;
  int next = 2;
  for (int i = 0; i < std::max(1, options.repeat); ++i) {
    const double roof = probe.GbPerSecondNow();
    const double time = SecondsOf([&] {
                          for (int call = 0; call < calls; ++call) subject.run(next++);
                        }) /
                        calls;
    const double least = std::max(subject.bytes / roof, subject.flops / subject.peak_gflop_s) * 1e-9;
    seconds.push_back(time);
    roofs.push_back(roof);
    fractions.push_back(least / time);
  }
  KernelBenchResult result;
  result.name = subject.name;
  result.bytes = subject.bytes;
  result.flops = subject.flops;
  result.seconds = SpreadOf(seconds);
  result.gb_s = GbPerSecond(subject.bytes, result.seconds.median);
  result.gflop_s = subject.flops / result.seconds.median * 1e-9;
  result.roof_gb_s = SpreadOf(roofs).median;
  result.peak_gflop_s = subject.peak_gflop_s;
  result.roofline_fraction = SpreadOf(fractions).median;
  return result;
}

// The shape of a feed-forward projection of a model of 1.1 billion parameters.
constexpr int64_t kOut = 5632;
constexpr int64_t kIn = 2048;

// Weights take longer to prepare than to measure, so that whoever filters should not wait for those of others.
bool IsWanted(const KernelBenchOptions& options, const std::string& name) {
  return name.find(options.filter) != std::string::npos;
}

constexpr int kTokens[] = {1, 4, 8, 16, 256};

std::string MatMulName(DType type, int n_tok) {
  return std::string("matmul ") + Info(type).name + " " + std::to_string(kOut) + "x" + std::to_string(kIn) + " n_tok " +
         std::to_string(n_tok);
}

void BenchMatMul(Ops& ops, DType type, const KernelBenchOptions& options, const MachinePeaks& peaks,
                 const std::function<void(const Subject&)>& measure) {
  const auto wanted = [&](int n_tok) { return IsWanted(options, MatMulName(type, n_tok)); };
  if (std::none_of(std::begin(kTokens), std::end(kTokens), wanted)) return;
  const size_t row_bytes = RowBytes(type, kIn);
  const int copies = std::max(1, static_cast<int>(options.megabytes * 1e6 / static_cast<double>(kOut * row_bytes)));
  const std::vector<float> row = SomeValues(kIn);
  std::vector<std::byte> file(kOut * row_bytes);
  if (CanQuantize(type)) {
    QuantizeRow(type, row.data(), file.data(), kIn);
  } else {
    std::memset(file.data(), 0x11, row_bytes);  // some codes, and scales that are small and finite
  }
  for (int64_t i = 1; i < kOut; ++i) std::memcpy(file.data() + i * row_bytes, file.data(), row_bytes);
  // Types read in place would all read the same file: each copy gets its own.
  std::vector<std::vector<std::byte>> files;
  std::vector<std::unique_ptr<PackedMatrix>> matrices;
  for (int i = 0; i < copies; ++i) {
    if (!IsTiled(type)) files.push_back(file);
    matrices.push_back(ops.Pack(type, kOut, kIn, IsTiled(type) ? file.data() : files.back().data()));
  }
  for (const int n_tok : kTokens) {
    const std::vector<float> x = SomeValues(n_tok * kIn);
    std::vector<float> y(n_tok * kOut);
    Subject subject;
    subject.name = MatMulName(type, n_tok);
    subject.bytes = static_cast<double>(matrices[0]->packed_bytes());
    subject.flops = 2.0 * kOut * kIn * n_tok;
    subject.peak_gflop_s = IsTiled(type)          ? peaks.int8_gop_s
                           : type == DType::kBF16 ? peaks.bf16_gflop_s
                                                  : peaks.fp32_gflop_s;
    subject.run = [&](int call) {
      const MatMulTarget target{matrices[call % copies].get(), y.data()};
      ops.MatMul({&target, 1}, {x.data()}, n_tok);
    };
    measure(subject);
  }
}

constexpr int kActivePercent[] = {100, 50, 25, 10};

std::string FeedForwardName(DType gate_type, DType type, int percent) {
  const std::string gate = gate_type == type ? "" : std::string(", gate ") + Info(gate_type).name;
  return std::string("feed_forward ") + Info(type).name + gate + " " + std::to_string(kOut) + "x" +
         std::to_string(kIn) + " active " + std::to_string(percent) + " %";
}

// A layer of which a token needs a given share of the neurons, beside the same layer without sparsity. The gate's rows
// of a group all look at one input, which is positive for the active groups.
void BenchFeedForward(Ops& ops, DType gate_type, DType type, const KernelBenchOptions& options,
                      const MachinePeaks& peaks, const std::function<void(const Subject&)>& measure) {
  const auto wanted = [&](int percent) { return IsWanted(options, FeedForwardName(gate_type, type, percent)); };
  if (std::none_of(std::begin(kActivePercent), std::end(kActivePercent), wanted)) return;
  constexpr int kGroup = 64;
  constexpr int kGroups = kOut / kGroup;
  const auto pack = [&](DType as, int64_t n_out, int64_t n_in,
                        const std::function<std::vector<float>(int64_t)>& row_of) {
    std::vector<std::byte> file(n_out * RowBytes(as, n_in));
    for (int64_t row = 0; row < n_out; ++row) {
      QuantizeRow(as, row_of(row).data(), file.data() + row * RowBytes(as, n_in), n_in);
    }
    return ops.Pack(as, n_out, n_in, file.data());
  };
  const std::vector<float> row = SomeValues(kOut);
  const auto copies =
      std::max(1, static_cast<int>(options.megabytes * 1e6 / static_cast<double>(3 * kOut * RowBytes(type, kIn))));
  std::vector<std::unique_ptr<PackedMatrix>> matrices;
  for (int i = 0; i < copies; ++i) {
    matrices.push_back(pack(gate_type, kOut, kIn, [](int64_t neuron) {
      std::vector<float> one_input(kIn);
      one_input[neuron / kGroup] = 1.0f;
      return one_input;
    }));
    matrices.push_back(pack(type, kOut, kIn, [&](int64_t) { return row; }));
    matrices.push_back(pack(type, kIn, kOut, [&](int64_t) { return row; }));
  }
  std::vector<float> x = SomeValues(kIn);
  std::vector<float> y(kIn), gate(kOut), up(kOut);
  for (const int percent : kActivePercent) {
    const int n_active = kGroups * percent / 100;
    for (int g = 0; g < kGroups; ++g) x[g * 37 % kGroups] = g < n_active ? 4.0f : -30.0f;  // scattered
    Subject subject;
    subject.name = FeedForwardName(gate_type, type, percent);
    const double share = static_cast<double>(n_active) / kGroups;
    subject.bytes = static_cast<double>(matrices[0]->packed_bytes()) +
                    static_cast<double>(matrices[1]->packed_bytes() + matrices[2]->packed_bytes()) * share;
    subject.flops = 2.0 * kOut * kIn * (1 + 2 * share);
    subject.peak_gflop_s = peaks.int8_gop_s;
    subject.run = [&](int call) {
      const auto* of_layer = &matrices[3 * (call % copies)];
      const FeedForwardWeights w{of_layer[0].get(), of_layer[1].get(), of_layer[2].get(), percent == 100 ? 0 : kGroup,
                                 1.0f};
      ops.FeedForward(w, {.x = {x.data()}, .n_tok = 1, .y = y.data(), .gate = gate.data(), .up = up.data()});
    };
    measure(subject);
  }
}

void BenchAttention(Ops& ops, KvType type, const MachinePeaks& peaks,
                    const std::function<void(const Subject&)>& measure) {
  constexpr int kHeads = 32, kKvHeads = 4, kDim = 64, kBlock = 16, kContext = 2048;
  for (const int n_tok : {1, 64}) {
    const int n_blocks = kContext / kBlock;
    std::vector<int32_t> table(n_blocks);
    std::iota(table.begin(), table.end(), 0);
    const KvShape shape{kKvHeads, kDim, kBlock, type};
    std::vector<std::byte> k(static_cast<size_t>(n_blocks) * kKvHeads * KvHeadBytes(shape), std::byte{0x38});  // 0.53
    std::vector<std::byte> v = k;
    std::vector<AttentionRow> rows;
    for (int t = 0; t < n_tok; ++t) rows.push_back({table.data(), kContext - n_tok + t});
    const std::vector<float> q = SomeValues(static_cast<size_t>(n_tok) * kHeads * kDim);
    std::vector<float> out(q.size());
    AttentionArgs args;
    args.q = q.data();
    args.out = out.data();
    args.rows = rows;
    args.kv = {k.data(), v.data()};
    args.shape = shape;
    args.n_head = kHeads;
    args.scale = 0.125f;
    Subject subject;
    subject.name = std::string("attention ") + KvTypeName(type) + " 32/4 heads of 64, 2048 positions, n_tok " +
                   std::to_string(n_tok);
    subject.bytes = 0;  // keys and values of one layer stay in the cache here
    subject.flops = 4.0 * kContext * kHeads * kDim * n_tok;
    subject.peak_gflop_s = peaks.fp32_gflop_s;
    subject.run = [&](int) { ops.Attention(args); };
    measure(subject);
  }
}

void BenchRowOps(Ops& ops, const MachinePeaks& peaks, const std::function<void(const Subject&)>& measure) {
  constexpr int kRows = 256;
  const std::vector<float> x = SomeValues(kRows * kOut);
  const std::vector<float> gain(kOut, 1.0f);
  std::vector<float> y(x.size());
  Subject norm;
  norm.name = "rms_norm 256x2048";
  norm.flops = 4.0 * kRows * kIn;
  norm.peak_gflop_s = peaks.fp32_gflop_s;
  norm.run = [&](int) { ops.RmsNorm(x.data(), gain.data(), kRows, kIn, 1e-5f, y.data()); };
  measure(norm);
  Subject gate;
  gate.name = "swiglu 256x5632";
  gate.flops = 16.0 * kRows * kOut;
  gate.peak_gflop_s = peaks.fp32_gflop_s;
  gate.run = [&](int) { ops.SwiGlu(x.data(), x.data(), kRows * kOut, y.data()); };
  measure(gate);
  constexpr int kVocabulary = 151936;
  const std::vector<float> row = SomeValues(kVocabulary);
  Subject logits;
  logits.name = "logits summary 151936";
  logits.flops = 22.0 * kVocabulary;  // two comparisons, an exponential, three more
  logits.peak_gflop_s = peaks.fp32_gflop_s / ops.n_threads();
  volatile double kept = 0;
  logits.run = [&](int) { kept = SummarizeLogits(row).mass; };
  measure(logits);
}

}  // namespace

void RunKernelBenches(const KernelBenchOptions& options, const MachinePeaks& peaks,
                      const std::function<void(const KernelBenchResult&)>& report) {
  const int n_threads = options.n_threads > 0 ? options.n_threads : AvailableCpus();
  const Isa isa = ChooseIsa();
  const std::unique_ptr<Ops> ops = MakeCpuOpsFor(isa, n_threads, {.layouts = LayoutRule::kMeasured});
  BandwidthProbe probe(isa, n_threads);
  const auto measure = [&](const Subject& subject) {
    if (IsWanted(options, subject.name)) report(Measure(subject, options, probe));
  };
  for (int i = 0; i < kNumDTypes; ++i) BenchMatMul(*ops, static_cast<DType>(i), options, peaks, measure);
  BenchFeedForward(*ops, DType::kQ4_0, DType::kQ4_0, options, peaks, measure);
  BenchFeedForward(*ops, DType::kTQ2_0, DType::kQ4_0, options, peaks, measure);
  BenchFeedForward(*ops, DType::kQ8_0, DType::kQ8_0, options, peaks, measure);
  for (const KvType type : {KvType::kF16, KvType::kI8, KvType::kI4}) BenchAttention(*ops, type, peaks, measure);
  BenchRowOps(*ops, peaks, measure);
}

}  // namespace updraft::kernels
