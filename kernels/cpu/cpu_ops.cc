#include "kernels/cpu/cpu_ops.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/aligned_buffer.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/layout_choice.h"
#include "kernels/cpu/reference/reference_ops.h"
#include "kernels/cpu/rope/rope.h"
#include "kernels/cpu/sparse_feed_forward.h"
#include "kernels/cpu/tile_matmul/tile_format.h"
#include "kernels/cpu/tiled_matrix.h"
#include "kernels/cpu/weights_ahead.h"
#include "kernels/cpu/work_split.h"
#include "kernels/formats/codec.h"
#include "kernels/thread_pool.h"

namespace updraft::kernels {
namespace {

constexpr int64_t kSerialElements = int64_t{16} << 10;   // of a row operation
constexpr int64_t kSerialAttention = int64_t{64} << 10;  // multiply-adds

// A part of the activations that stays in a core's private cache while the weights of a chunk pass by.
constexpr int64_t kTokenBlockBytes = int64_t{256} << 10;
constexpr int64_t kKeptTokenBlockBytes = int64_t{512}
                                         << 10;              // putting bytes where they belong is shared by more tokens
constexpr int64_t kDenseTokenBlockBytes = int64_t{1} << 20;  // these kernels cut what is left themselves

// With up to so many tokens a product waits for memory rather than for arithmetic.
constexpr int kMemoryBoundTokens = 4;

// Of the next weights, per thread: some microseconds' worth, and a part of a private cache that holds little else then.
constexpr int64_t kAheadBytes = int64_t{128} << 10;

constexpr int kStorePiece = 128;  // dimensions of a key that are converted at once

// Activations are quantized in spans of one block or of several, as the weights' type wants.
constexpr int kNumSpans = 2;
constexpr int SpanIndex(DType type) {
  return IsTiled(type) && TileFormatOf(TileKindOf(type)).span_blocks() > 1 ? 1 : 0;
}

class RowMajorMatrix : public PackedMatrix {
 public:
  RowMajorMatrix(DType type, int64_t n_out, int64_t n_in, const void* data)
      : PackedMatrix(type, n_out, n_in, n_out * RowBytes(type, n_in)), data_(data) {}
  const void* data() const { return data_; }

 private:
  const void* data_;  // the file's bytes, not owned
};

// How one target's work is cut: token blocks times ranges of outputs.
struct Split {
  int64_t n_units = 0;     // pairs of tiles, or rows
  int n_ranges = 0;        // of units
  int n_token_blocks = 0;  // of groups, or of tokens
  int tokens = 0;          // groups, or tokens
  int chunks() const { return n_ranges * n_token_blocks; }
};

class CpuOps : public Ops {
 public:
  CpuOps(Isa isa, int n_threads, CpuOpsRules rules)
      : kernels_(ChooseKernels(isa)),
        layouts_(rules.layouts),
        pool_(n_threads, rules.pin_threads),
        sparse_(kernels_, pool_),
        scratch_(n_threads) {}

  std::string name() const override { return std::string("cpu/") + IsaName(kernels_.isa) + ", " + pool_.Describe(); }
  int n_threads() const override { return pool_.n_threads(); }

  std::unique_ptr<PackedMatrix> Pack(DType type, int64_t n_out, int64_t n_in, const void* data) override {
    if (!IsTiled(type)) return std::make_unique<RowMajorMatrix>(type, n_out, n_in, data);
    const auto pack = [&](TileKind kind) {
      return std::make_unique<TiledMatrix>(type, n_out, n_in, TiledWeights(type, kind, n_out, n_in, data, pool_));
    };
    if (!KeepsHalf(type) || layouts_ == LayoutRule::kWhole) return pack(TileKindOf(type));
    if (layouts_ == LayoutRule::kKept) return pack(TileKind::k8Kept);
    const auto known = std::find_if(layout_choices_.begin(), layout_choices_.end(), [&](const LayoutChoice& choice) {
      return choice.type == type && choice.n_out == n_out && choice.n_in == n_in;
    });
    if (known != layout_choices_.end()) return pack(known->kept ? TileKind::k8Kept : TileKindOf(type));
    auto whole = pack(TileKindOf(type));
    auto kept = pack(TileKind::k8Kept);
    layout_choices_.push_back(ChooseLayout(*this, *whole, *kept));
    weights_ahead_.ForgetAll();
    return layout_choices_.back().kept ? std::move(kept) : std::move(whole);
  }

  std::vector<LayoutChoice> layout_choices() const override { return layout_choices_; }

  uint32_t PackedLayout() const override { return kTileLayoutVersion; }

  // Layouts that were measured hold for this machine alone, so nothing of them is kept.
  size_t PackedSize(DType type, int64_t n_out, int64_t n_in) const override {
    return IsTiled(type) && !KeepsHalf(type) ? TiledWeights::SizeOf(TileKindOf(type), n_out, n_in) : 0;
  }

  std::span<const uint8_t> PackedBytes(const PackedMatrix& w) const override {
    if (PackedSize(w.type(), w.n_out(), w.n_in()) == 0) return {};
    return static_cast<const TiledMatrix&>(w).weights().contents();
  }

  std::unique_ptr<PackedMatrix> FromPacked(DType type, int64_t n_out, int64_t n_in, PackedSource& source) override {
    std::optional<TiledWeights> weights = TiledWeights::FromSource(TileKindOf(type), n_out, n_in, source, pool_);
    if (!weights) return nullptr;
    return std::make_unique<TiledMatrix>(type, n_out, n_in, *std::move(weights));
  }

  void MatMul(std::span<const MatMulTarget> targets, const float* x, int n_tok) override {
    pool_.PinCaller();  // also where all products are too small for the pool
    const int64_t n_in = targets[0].w->n_in();
    int64_t bytes = 0;
    bool any_tiled = false;
    bool any_dense = false;
    for (const MatMulTarget& target : targets) {
      bytes += static_cast<int64_t>(target.w->packed_bytes());
      (IsTiled(target.w->type()) ? any_tiled : any_dense) = true;
    }
    const bool serial = pool_.n_threads() == 1 || bytes * ((n_tok + 3) / 4) < kSerialBytes;
    if (any_dense && n_tok > 1) GrowScratch(kernels_.dense_matmul->scratch_floats * sizeof(float));
    if (any_tiled && n_tok > kernels_.tile_matmul.skinny) GrowScratch(kernels_.tile_matmul.scratch_bytes);
    QuantizedRows q[kNumSpans];
    for (const MatMulTarget& target : targets) {
      if (!IsTiled(target.w->type())) continue;
      QuantizedRows& rows = q[SpanIndex(target.w->type())];
      if (rows.q == nullptr) rows = Quantize(x, n_tok, n_in, target.w->type());
    }

    splits_.clear();
    target_chunks_.clear();
    int n_chunks = 0;
    for (const MatMulTarget& target : targets) {
      splits_.push_back(SplitTarget(*target.w, n_tok, serial));
      target_chunks_.push_back(splits_.back().chunks());
      n_chunks += target_chunks_.back();
    }
    const auto run = [&](int chunk, int thread) {
      const ChunkPlace at = PlaceOfChunk(chunk, target_chunks_, pool_.n_threads());
      const MatMulTarget& target = targets[at.target];
      RunChunk(target, splits_[at.target], at.chunk, x, q[SpanIndex(target.w->type())], scratch_[thread].data());
    };
    if (serial) {
      for (int chunk = 0; chunk < n_chunks; ++chunk) run(chunk, 0);
      return;
    }
    const MemoryAhead* ahead = nullptr;
    if (n_tok <= kMemoryBoundTokens) {
      ahead = weights_ahead_.Begin(targets[0].w, n_chunks, pool_.n_threads(),
                                   [&](MemoryAhead& begins) { AddBeginnings(targets, n_chunks, begins); });
    } else {
      weights_ahead_.Forget();
    }
    pool_.Run(n_chunks, run, ahead);
  }

  void EmbedRows(DType type, const void* table, int64_t d_model, std::span<const int32_t> tokens, float* out) override {
    const size_t row_bytes = RowBytes(type, d_model);
    ForRows(static_cast<int>(tokens.size()), d_model, [&](int t) {
      DequantizeRow(type, static_cast<const std::byte*>(table) + tokens[t] * row_bytes, out + t * d_model, d_model);
    });
  }

  void RmsNorm(const float* x, const float* gain, int n_rows, int width, float eps, float* y) override {
    ForRows(n_rows, width, [&](int row) {
      const int64_t at = static_cast<int64_t>(row) * width;
      kernels_.row_ops->rms_norm(x + at, gain, width, eps, y + at);
    });
  }

  void Rope(float* x, std::span<const int32_t> positions, int n_head, int head_dim, const RopeParams& params) override {
    rope_.Prepare(params, positions);
    const int64_t width = static_cast<int64_t>(n_head) * head_dim;
    ForRows(static_cast<int>(positions.size()), width, [&](int t) {
      for (int head = 0; head < n_head; ++head) {
        RopeRotate(params, rope_.cos(t), rope_.sin(t), x + t * width + static_cast<int64_t>(head) * head_dim);
      }
    });
  }

  void SwiGlu(const float* gate, const float* up, int64_t n, float* out) override {
    constexpr int64_t kPiece = 4096;
    ForRows(static_cast<int>((n + kPiece - 1) / kPiece), kPiece, [&](int piece) {
      const int64_t at = piece * kPiece;
      kernels_.row_ops->swiglu(gate + at, up + at, std::min(kPiece, n - at), out + at);
    });
  }

  void FeedForward(const FeedForwardWeights& w, const FeedForwardArgs& args) override {
    const int64_t d_ff = w.gate->n_out();
    const MatMulTarget gate{.w = w.gate, .y = args.gate};
    const MatMulTarget up{.w = w.up, .y = args.up};
    const MatMulTarget down{.w = w.down, .y = args.y, .accumulate = true};
    if (w.group == 0) {
      MatMul(std::array{gate, up}, args.x, args.n_tok);
      SwiGlu(args.gate, args.up, args.n_tok * d_ff, args.gate);
      MatMul({&down, 1}, args.gate, args.n_tok);
      return;
    }
    const int n_groups = static_cast<int>(d_ff / w.group);
    active_.resize(static_cast<size_t>(args.n_tok) * n_groups);
    if (args.n_tok == 1 && args.sparse_share > 0 && SparseFeedForward::Supports(w)) {
      // The gate first: it says how much of the rest there is to do.
      MatMul({&gate, 1}, args.x, 1);
      const int n_active = kernels_.row_ops->silu_active(args.gate, n_groups, w.group, w.threshold, active_.data());
      const std::span<const int32_t> active(active_.data(), n_active);
      if (static_cast<float>(n_active) <= args.sparse_share * static_cast<float>(n_groups)) {
        sparse_.Run(w, args.x, args.gate, active, args.up, args.y);
        weights_ahead_.Forget();
        return;
      }
      MatMul({&up, 1}, args.x, 1);
      MultiplyActive(args.up, n_groups, w.group, active, args.gate);
    } else {
      MatMul(std::array{gate, up}, args.x, args.n_tok);
      ForRows(args.n_tok, d_ff, [&](int row) {
        int32_t* active = active_.data() + static_cast<ptrdiff_t>(row) * n_groups;
        float* values = args.gate + row * d_ff;
        const int n_active = kernels_.row_ops->silu_active(values, n_groups, w.group, w.threshold, active);
        MultiplyActive(args.up + row * d_ff, n_groups, w.group, {active, static_cast<size_t>(n_active)}, values);
      });
    }
    MatMul({&down, 1}, args.gate, args.n_tok);
  }

  SparsityTuning TuneSparsity(std::span<const FeedForwardWeights> layers) override {
    SparsityTuning tuning = sparse_.Tune(*this, layers);
    weights_ahead_.ForgetAll();
    return tuning;
  }

  void StoreKv(const float* k, const float* v, std::span<const AttentionRow> rows, const KvLayer& kv,
               const KvShape& shape) override {
    const int64_t width = static_cast<int64_t>(shape.n_kv_head) * shape.head_dim;
    const size_t head_bytes = KvHeadBytes(shape);
    ForRows(static_cast<int>(rows.size()), 2 * width, [&](int t) {
      const int slot = rows[t].position % shape.block_tokens;
      const int64_t block = rows[t].block_table[rows[t].position / shape.block_tokens];
      for (int64_t head = 0; head < shape.n_kv_head; ++head) {
        const int64_t from = t * width + head * shape.head_dim;
        const size_t to = static_cast<size_t>(block * shape.n_kv_head + head) * head_bytes;
        if (shape.type == KvType::kF16) {
          StoreHalf(k + from, v + from, shape, slot, kv.k + to, kv.v + to);
        } else {
          StoreQuantizedKv(shape, k + from, v + from, slot, kv.k + to, kv.v + to);
        }
      }
    });
  }

  void Attention(const AttentionArgs& args) override {
    FindPasses(args);
    GrowScratch(AttentionScratchFloats(args) * sizeof(float));
    const int n_kv_head = args.shape.n_kv_head;
    const int group = args.n_head / n_kv_head;
    int64_t work = 0;
    for (const auto& [from, to] : passes_) {
      const int64_t span = args.rows[to - 1].position + 1;
      work += (args.window > 0 ? std::min<int64_t>(span, args.window) : span) * (to - from);
    }
    work *= 2 * static_cast<int64_t>(args.n_head) * args.shape.head_dim;
    const int n_passes = static_cast<int>(passes_.size());
    const bool serial = pool_.n_threads() == 1 || work < kSerialAttention;
    // A single token with few KV heads is cut further, by query heads.
    const int cuts = serial || n_passes * n_kv_head >= 2 * pool_.n_threads() ? 1 : group;
    const int items = n_passes * n_kv_head * cuts;
    const auto run = [&](int item, int thread) {
      // The last rows of a prompt attend to most: they begin, so that threads end together.
      const auto [from, to] = passes_[n_passes - 1 - item / (n_kv_head * cuts)];
      const int kv_head = item / cuts % n_kv_head;
      const int cut = item % cuts;
      AttentionPass pass;
      pass.rows = args.rows.data();
      pass.row_from = from;
      pass.row_to = to;
      pass.kv_head = kv_head;
      pass.head_from = kv_head * group + group * cut / cuts;
      pass.head_to = kv_head * group + group * (cut + 1) / cuts;
      pass.scratch = reinterpret_cast<float*>(scratch_[thread].data());
      kernels_.attention->run(args, pass);
    };
    if (serial) {
      for (int item = 0; item < items; ++item) run(item, 0);
      return;
    }
    const int n_chunks = std::min(items, 1024);
    pool_.Run(n_chunks, [&](int chunk, int thread) {
      for (int item = chunk; item < items; item += n_chunks) run(item, thread);
    });
  }

 private:
  // Calls body(row) for every row, on all threads when rows * width is worth it.
  template <typename Body>
  void ForRows(int n_rows, int64_t width, const Body& body) {
    if (n_rows == 1 || pool_.n_threads() == 1 || n_rows * width < kSerialElements) {
      for (int row = 0; row < n_rows; ++row) body(row);
      return;
    }
    const int n_chunks = std::min(n_rows, kChunksPerThread * pool_.n_threads());
    pool_.Run(n_chunks, [&](int chunk, int) {
      const int to = static_cast<int>(static_cast<int64_t>(n_rows) * (chunk + 1) / n_chunks);
      for (int row = static_cast<int>(static_cast<int64_t>(n_rows) * chunk / n_chunks); row < to; ++row) body(row);
    });
  }

  void GrowScratch(size_t bytes) {
    for (AlignedBuffer& scratch : scratch_) {
      if (scratch.size() < bytes) scratch = AlignedBuffer(bytes);
    }
  }

  // gate *= up in the active groups, 0 in the others.
  void MultiplyActive(const float* up, int n_groups, int64_t group, std::span<const int32_t> active, float* gate) {
    size_t next = 0;
    for (int64_t g = 0; g < n_groups; ++g) {
      float* values = gate + g * group;
      if (next < active.size() && active[next] == g) {
        kernels_.row_ops->multiply(values, up + g * group, group, values);
        ++next;
      } else {
        std::fill_n(values, group, 0.0f);
      }
    }
  }

  // For the product with a quantized type.
  QuantizedRows Quantize(const float* x, int n_tok, int64_t n_in, DType type) {
    const int64_t n_blocks = n_in / kTileBlock;
    auto& [codes, blocks] = quantized_[SpanIndex(type)];
    if (codes.size() < static_cast<size_t>(n_tok * n_in)) {
      codes.resize(n_tok * n_in);
      blocks.resize(n_tok * n_blocks);
    }
    const int span_blocks = TileFormatOf(TileKindOf(type)).span_blocks();
    const int n_groups = kernels_.tile_matmul.NumGroups(n_tok);
    ForRows(n_groups, (n_tok + n_groups - 1) / n_groups * n_in, [&](int index) {
      const TokenGroup group = GroupOf(n_tok, n_groups, index);
      kernels_.tile_matmul.quantize(x + group.from * n_in, group.size, n_in, span_blocks,
                                    codes.data() + group.from * n_in, blocks.data() + group.from * n_blocks);
    });
    return {codes.data(), blocks.data(), n_tok, n_groups, n_in};
  }

  Split SplitTarget(const PackedMatrix& w, int n_tok, bool serial) const {
    Split split;
    const bool tiled = IsTiled(w.type());
    const int64_t token_bytes = w.n_in() * static_cast<int64_t>(tiled ? sizeof(int8_t) : sizeof(float));
    const bool kept = tiled && static_cast<const TiledMatrix&>(w).weights().kind() == TileKind::k8Kept;
    const int64_t block_bytes = kept ? kKeptTokenBlockBytes : tiled ? kTokenBlockBytes : kDenseTokenBlockBytes;
    const int64_t token_blocks = (n_tok * token_bytes + block_bytes - 1) / block_bytes;
    split.tokens = tiled ? kernels_.tile_matmul.NumGroups(n_tok) : n_tok;
    split.n_token_blocks = static_cast<int>(std::clamp<int64_t>(token_blocks, 1, std::min(split.tokens, 1024)));
    split.n_units = tiled ? static_cast<const TiledMatrix&>(w).weights().n_tiles() / 2 : w.n_out();
    split.n_ranges = serial ? 1 : NumRanges(split.n_units, static_cast<int64_t>(w.packed_bytes()), pool_.n_threads());
    return split;
  }

  // The weights that each thread reads first of the product that splits_ describes.
  void AddBeginnings(std::span<const MatMulTarget> targets, int n_chunks, MemoryAhead& begins) const {
    for (int thread = 1; thread < pool_.n_threads(); ++thread) {  // thread 0, the caller, does not wait
      const int begin = pool_.SegmentBegin(n_chunks, thread);
      const ChunkPlace at = PlaceOfChunk(begin, target_chunks_, pool_.n_threads());
      const Split& split = splits_[at.target];
      const PackedMatrix& w = *targets[at.target].w;
      // Of this target, of this thread and of one block of tokens alone.
      const int range = at.chunk % split.n_ranges;
      const int n_own = std::min({pool_.SegmentBegin(n_chunks, thread + 1) - begin, at.n_left, split.n_ranges - range});
      const int64_t unit = split.n_units * range / split.n_ranges;
      const int64_t n_units = split.n_units * (range + n_own) / split.n_ranges - unit;
      const int64_t bytes = std::min(kAheadBytes, static_cast<int64_t>(w.packed_bytes()) * n_units / split.n_units);
      if (IsTiled(w.type())) {
        static_cast<const TiledMatrix&>(w).weights().AddRanges(2 * unit, bytes, thread, begins);
      } else {
        const auto row_bytes = static_cast<int64_t>(RowBytes(w.type(), w.n_in()));
        const auto* data = static_cast<const std::byte*>(static_cast<const RowMajorMatrix&>(w).data());
        begins.Add(thread, {data + unit * row_bytes, bytes});
      }
    }
  }

  void RunChunk(const MatMulTarget& target, const Split& split, int chunk, const float* x, const QuantizedRows& q,
                uint8_t* scratch) const {
    const PackedMatrix& w = *target.w;
    const int64_t range = chunk % split.n_ranges;
    const int64_t block = chunk / split.n_ranges;  // token blocks outermost: a block's activations stay near
    const int64_t unit_from = split.n_units * range / split.n_ranges;
    const int64_t unit_to = split.n_units * (range + 1) / split.n_ranges;
    const int tok_from = static_cast<int>(split.tokens * block / split.n_token_blocks);
    const int tok_to = static_cast<int>(split.tokens * (block + 1) / split.n_token_blocks);
    const int64_t y_stride = target.y_stride == 0 ? w.n_out() : target.y_stride;
    if (IsTiled(w.type())) {
      const TiledWeights& weights = static_cast<const TiledMatrix&>(w).weights();
      const TileMatMulArgs args{.w = weights.view(),
                                .tile_from = 2 * unit_from,
                                .tile_to = 2 * unit_to,
                                .x = q,
                                .group_from = tok_from,
                                .group_to = tok_to,
                                .out = {.n_out = w.n_out(),
                                        .y = target.y,
                                        .y_stride = y_stride,
                                        .bias = target.bias,
                                        .accumulate = target.accumulate},
                                .scratch = scratch};
      kernels_.tile_matmul.run[static_cast<int>(weights.kind())](args);
      return;
    }
    const DenseMatMulArgs args{static_cast<const RowMajorMatrix&>(w).data(),
                               w.n_in(),
                               unit_from,
                               unit_to,
                               x,
                               tok_from,
                               tok_to,
                               target.y,
                               y_stride,
                               target.bias,
                               target.accumulate,
                               reinterpret_cast<float*>(scratch)};
    const DenseMatMulKernels& dense = *kernels_.dense_matmul;
    (w.type() == DType::kF32 ? dense.f32 : w.type() == DType::kF16 ? dense.f16 : dense.bf16)(args);
  }

  void StoreHalf(const float* key, const float* value, const KvShape& shape, int64_t slot, std::byte* keys,
                 std::byte* values) const {
    auto* k = reinterpret_cast<uint16_t*>(keys);
    auto* v = reinterpret_cast<uint16_t*>(values);
    uint16_t piece[kStorePiece];
    for (int64_t d = 0; d < shape.head_dim; d += kStorePiece) {
      const int64_t n = std::min<int64_t>(kStorePiece, shape.head_dim - d);
      kernels_.row_ops->to_f16(key + d, static_cast<int>(n), piece);
      for (int64_t i = 0; i < n; ++i) k[(d + i) * shape.block_tokens + slot] = piece[i];
    }
    kernels_.row_ops->to_f16(value, shape.head_dim, v + slot * shape.head_dim);
  }

  // Runs of consecutive rows of one sequence, which share the conversion of keys and values.
  void FindPasses(const AttentionArgs& args) {
    passes_.clear();
    const int n_rows = static_cast<int>(args.rows.size());
    const int most = AttentionRows(args);
    for (int from = 0, to = 1; from < n_rows; from = to, ++to) {
      while (to < n_rows && to - from < most && args.rows[to].block_table == args.rows[from].block_table &&
             args.rows[to].position > args.rows[to - 1].position) {
        ++to;
      }
      passes_.emplace_back(from, to);
    }
  }

  const KernelTable kernels_;
  const LayoutRule layouts_;
  WeightsAhead weights_ahead_;  // outlives the threads that look at it
  ThreadPool pool_;
  SparseFeedForward sparse_;
  RopeTable rope_;
  std::vector<LayoutChoice> layout_choices_;
  std::vector<int32_t> active_;  // [n_tok, n_groups]
  struct QuantizedBuffer {
    AlignedVector<int8_t> codes;
    AlignedVector<ActivationBlock> blocks;
  };
  QuantizedBuffer quantized_[kNumSpans];
  std::vector<Split> splits_;                // one per target
  std::vector<int> target_chunks_;           // their chunks()
  std::vector<std::pair<int, int>> passes_;  // rows [from, to)
  std::vector<AlignedBuffer> scratch_;       // one per thread
};

}  // namespace

std::unique_ptr<Ops> MakeCpuOpsFor(Isa isa, int n_threads, CpuOpsRules rules) {
  if (isa == Isa::kReference) return MakeReferenceOps(n_threads, rules.pin_threads);
  return std::make_unique<CpuOps>(isa, n_threads, rules);
}

std::unique_ptr<Ops> MakeCpuOps(const CpuOptions& options) {
  return MakeCpuOpsFor(ChooseIsa(), options.n_threads > 0 ? options.n_threads : AvailableCpus(),
                       {.layouts = LayoutRule::kMeasured, .pin_threads = options.pin_threads});
}

}  // namespace updraft::kernels
