#include "kernels/cpu/reference/reference_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/cpu/host_memory.h"
#include "kernels/cpu/rope/rope.h"
#include "kernels/formats/codec.h"
#include "kernels/formats/float16.h"
#include "kernels/thread_pool.h"

namespace updraft::kernels {
namespace {

class FileMatrix : public PackedMatrix {
 public:
  FileMatrix(DType type, int64_t n_out, int64_t n_in, const void* data)
      : PackedMatrix(type, n_out, n_in, n_out * RowBytes(type, n_in)), data_(static_cast<const std::byte*>(data)) {}
  const std::byte* row(int64_t out) const { return data_ + out * RowBytes(type(), n_in()); }

 private:
  const std::byte* data_;  // the file's bytes
};

class ReferenceLowRank : public LowRank {
 public:
  ReferenceLowRank(int64_t rank, int64_t n_out, int64_t n_in, const float* a, const float* b)
      : LowRank(rank, n_out, n_in, sizeof(float) * rank * (n_out + n_in)),
        a_(a, a + rank * n_in),
        b_(b, b + n_out * rank) {}

  // y [n_tok, n_out] += B (A x) with row stride y_stride.
  void Add(const float* x, int n_tok, int64_t y_stride, float* y) const {
    std::vector<double> h(rank());
    for (int t = 0; t < n_tok; ++t, x += n_in(), y += y_stride) {
      for (int64_t k = 0; k < rank(); ++k) h[k] = std::inner_product(x, x + n_in(), a_.data() + k * n_in(), 0.0);
      for (int64_t out = 0; out < n_out(); ++out) {
        y[out] += static_cast<float>(std::inner_product(h.begin(), h.end(), b_.data() + out * rank(), 0.0));
      }
    }
  }

 private:
  std::vector<double> a_, b_;
};

class ReferenceOps : public HostMemory<Ops> {
 public:
  ReferenceOps(int n_threads, bool pin_threads) : pool_(n_threads, pin_threads) {}

  std::string name() const override { return "cpu/reference, " + pool_.Describe(); }
  int n_threads() const override { return pool_.n_threads(); }

  std::unique_ptr<PackedMatrix> Pack(DType type, int64_t n_out, int64_t n_in, const void* data) override {
    return std::make_unique<FileMatrix>(type, n_out, n_in, data);
  }

  std::unique_ptr<PackedMatrix> Table(DType type, int64_t n_rows, int64_t width, const void* data) override {
    return std::make_unique<FileMatrix>(type, n_rows, width, data);
  }

  std::unique_ptr<LowRank> PackLowRank(DType /*type*/, int64_t rank, int64_t n_out, int64_t n_in, const float* a,
                                       const float* b) override {
    return std::make_unique<ReferenceLowRank>(rank, n_out, n_in, a, b);
  }

  // Everything is read in place.
  uint32_t PackedLayout() const override { return 0; }
  size_t PackedSize(DType, int64_t, int64_t) const override { return 0; }
  std::span<const uint8_t> PackedBytes(const PackedMatrix&) const override { return {}; }
  std::unique_ptr<PackedMatrix> FromPacked(DType, int64_t, int64_t, PackedSource&) override { return nullptr; }

  void MatMul(std::span<const MatMulTarget> targets, const MatMulInput& input, int n_tok) override {
    Guarded([&] {
      const float* x = input.x;
      std::vector<float> normalized;
      if (input.gain != nullptr) {
        const auto n_in = static_cast<int>(targets[0].w->n_in());
        normalized.resize(static_cast<size_t>(n_tok) * n_in);
        RmsNorm(x, input.gain, n_tok, n_in, input.eps, normalized.data());
        x = normalized.data();
      }
      for (const MatMulTarget& target : targets) {
        const auto& w = static_cast<const FileMatrix&>(*target.w);
        const int n_chunks = static_cast<int>(std::min<int64_t>(w.n_out(), 4 * pool_.n_threads()));
        pool_.Run(n_chunks, [&](int chunk, int) {
          const int64_t from = w.n_out() * chunk / n_chunks;
          const int64_t to = w.n_out() * (chunk + 1) / n_chunks;
          MatMulRows(target, w, from, to, x, n_tok);
        });
        if (target.low_rank == nullptr) continue;
        const int64_t y_stride = target.y_stride == 0 ? w.n_out() : target.y_stride;
        static_cast<const ReferenceLowRank&>(*target.low_rank).Add(x, n_tok, y_stride, target.y);
      }
    });
  }

  void EmbedRows(const PackedMatrix& table, std::span<const int32_t> tokens, float* out) override {
    Guarded([&] {
      const auto& rows = static_cast<const FileMatrix&>(table);
      for (size_t t = 0; t < tokens.size(); ++t) {
        DequantizeRow(table.type(), rows.row(tokens[t]), out + t * table.n_in(), table.n_in());
      }
    });
  }

  void RmsNorm(const float* x, const float* gain, int n_rows, int width, float eps, float* y) override {
    Guarded([&] {
      for (int row = 0; row < n_rows; ++row, x += width, y += width) {
        double sum = 0;
        for (int i = 0; i < width; ++i) sum += static_cast<double>(x[i]) * x[i];
        const double scale = 1.0 / std::sqrt(sum / width + eps);
        for (int i = 0; i < width; ++i) y[i] = static_cast<float>(x[i] * scale * gain[i]);
      }
    });
  }

  void Rope(float* x, std::span<const int32_t> positions, int n_head, int head_dim, const RopeParams& params) override {
    Guarded([&] {
      table_.Prepare(params, positions);
      const int half = params.n_rot / 2;
      for (size_t t = 0; t < positions.size(); ++t) {
        for (int head = 0; head < n_head; ++head, x += head_dim) {
          for (int i = 0; i < half; ++i) {
            float& a = params.interleaved ? x[2 * i] : x[i];
            float& b = params.interleaved ? x[2 * i + 1] : x[i + half];
            const double c = table_.cos(t)[i];
            const double s = table_.sin(t)[i];
            const double rotated = a * c - b * s;
            b = static_cast<float>(a * s + b * c);
            a = static_cast<float>(rotated);
          }
        }
      }
    });
  }

  void SwiGlu(const float* gate, const float* up, int64_t n, float* out) override {
    Guarded([&] {
      for (int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(gate[i] / (1.0 + std::exp(-double{gate[i]})) * up[i]);
    });
  }

  void FeedForward(const FeedForwardWeights& w, const FeedForwardArgs& args) override {
    Guarded([&] {
      const int64_t d_ff = w.gate->n_out();
      const MatMulTarget gate{.w = w.gate, .y = args.gate, .low_rank = w.gate_low_rank};
      const MatMulTarget up{.w = w.up, .y = args.up, .low_rank = w.up_low_rank};
      const MatMulTarget down{.w = w.down, .y = args.y, .accumulate = true, .low_rank = w.down_low_rank};
      MatMul({&gate, 1}, args.x, args.n_tok);
      MatMul({&up, 1}, args.x, args.n_tok);
      if (w.group > 0) {
        for (int64_t from = 0; from < args.n_tok * d_ff; from += w.group) {
          const bool active = std::any_of(args.gate + from, args.gate + from + w.group, [&w](float g) {
            return !(std::fabs(g / (1.0 + std::exp(-double{g}))) < double{w.threshold});
          });
          if (!active) std::fill_n(args.gate + from, w.group, 0.0f);  // silu(0) = 0
        }
      }
      SwiGlu(args.gate, args.up, args.n_tok * d_ff, args.gate);
      MatMul({&down, 1}, {args.gate}, args.n_tok);
    });
  }

  SparsityTuning TuneSparsity(std::span<const FeedForwardWeights>) override { return {}; }

  void StoreKv(const float* k, const float* v, std::span<const AttentionRow> rows, const KvLayer& kv,
               const KvShape& shape) override {
    Guarded([&] {
      for (const AttentionRow& row : rows) {
        for (int head = 0; head < shape.n_kv_head; ++head, k += shape.head_dim, v += shape.head_dim) {
          std::byte* keys = kv.k + HeadOffset(row, row.position, head, shape);
          std::byte* values = kv.v + HeadOffset(row, row.position, head, shape);
          const int slot = row.position % shape.block_tokens;
          if (shape.type != KvType::kF16) {
            StoreQuantizedKv(shape, k, v, slot, keys, values);
            continue;
          }
          for (int64_t i = 0; i < shape.head_dim; ++i) {
            const uint16_t key = F32ToF16(k[i]);
            const uint16_t value = F32ToF16(v[i]);
            std::memcpy(keys + 2 * (i * shape.block_tokens + slot), &key, 2);
            std::memcpy(values + 2 * (int64_t{slot} * shape.head_dim + i), &value, 2);
          }
        }
      }
    });
  }

  void Attention(const AttentionArgs& args) override {
    Guarded([&] {
      const int n_tok = static_cast<int>(args.rows.size());
      const int n_chunks = std::min(n_tok, 1024);
      pool_.Run(n_chunks, [&](int chunk, int) {
        for (int t = chunk; t < n_tok; t += n_chunks) {
          for (int head = 0; head < args.n_head; ++head) AttendHead(args, t, head);
        }
      });
    });
  }

 private:
  static void MatMulRows(const MatMulTarget& target, const FileMatrix& w, int64_t from, int64_t to, const float* x,
                         int n_tok) {
    const int64_t stride = target.y_stride == 0 ? w.n_out() : target.y_stride;
    std::vector<float> row(w.n_in());
    for (int64_t out = from; out < to; ++out) {
      DequantizeRow(w.type(), w.row(out), row.data(), w.n_in());
      for (int64_t t = 0; t < n_tok; ++t) {
        double sum = target.bias == nullptr ? 0.0 : target.bias[out];
        for (int64_t i = 0; i < w.n_in(); ++i) sum += static_cast<double>(row[i]) * x[t * w.n_in() + i];
        float& y = target.y[t * stride + out];
        y = static_cast<float>(target.accumulate ? y + sum : sum);
      }
    }
  }

  static size_t HeadOffset(const AttentionRow& row, int position, int head, const KvShape& shape) {
    const int64_t block = row.block_table[position / shape.block_tokens];
    return static_cast<size_t>(block * shape.n_kv_head + head) * KvHeadBytes(shape);
  }

  static void AttendHead(const AttentionArgs& args, int64_t t, int head) {
    const AttentionRow& row = args.rows[t];
    const int dim = args.shape.head_dim;
    const int kv_head = head / (args.n_head / args.shape.n_kv_head);
    const int first = args.window > 0 ? std::max(0, row.position - args.window + 1) : 0;
    const float* q = args.q + (t * args.n_head + head) * dim;
    float* out = args.out + (t * args.n_head + head) * dim;

    std::vector<int> positions;
    for (int p = 0; p < std::min(args.n_sink, first); ++p) positions.push_back(p);
    for (int p = first; p <= row.position; ++p) positions.push_back(p);

    std::vector<double> weight;
    double max = args.sink_scores == nullptr ? -INFINITY : double{args.sink_scores[head]};
    for (const int p : positions) {
      const std::byte* keys = args.kv.k + HeadOffset(row, p, kv_head, args.shape);
      double dot = 0;
      for (int i = 0; i < dim; ++i) {
        dot += static_cast<double>(q[i]) * KvKeyAt(args.shape, keys, p % args.shape.block_tokens, i);
      }
      weight.push_back(dot * args.scale);
      max = std::max(max, weight.back());
    }
    double total = args.sink_scores == nullptr ? 0.0 : std::exp(args.sink_scores[head] - max);
    for (double& w : weight) total += w = std::exp(w - max);
    std::vector<double> sum(dim, 0.0);
    for (size_t n = 0; n < positions.size(); ++n) {
      const int p = positions[n];
      const std::byte* values = args.kv.v + HeadOffset(row, p, kv_head, args.shape);
      for (int i = 0; i < dim; ++i) {
        sum[i] += weight[n] * KvValueAt(args.shape, values, p % args.shape.block_tokens, i);
      }
    }
    for (int i = 0; i < dim; ++i) out[i] = static_cast<float>(sum[i] / total);
  }

  ThreadPool pool_;
  RopeTable table_;
};

}  // namespace

std::unique_ptr<Ops> MakeReferenceOps(int n_threads, bool pin_threads) {
  return std::make_unique<ReferenceOps>(n_threads, pin_threads);
}

}  // namespace updraft::kernels
