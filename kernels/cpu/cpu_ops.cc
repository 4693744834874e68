#include "kernels/cpu/cpu_ops.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/aligned_buffer.h"
#include "kernels/cpu/activations.h"
#include "kernels/cpu/host_memory.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/layout_choice.h"
#include "kernels/cpu/low_rank.h"
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

constexpr int64_t kSerialAttention = int64_t{64} << 10;  // multiply-adds

// A part of the activations that stays in a core's private cache while the weights of a chunk pass by.
constexpr int64_t kTokenBlockBytes = int64_t{256} << 10;
constexpr int64_t kKeptTokenBlockBytes = int64_t{512}
                                         << 10;              // putting bytes where they belong is shared by more tokens
constexpr int64_t kDenseTokenBlockBytes = int64_t{1} << 20;  // these kernels cut what is left themselves

// Of a product that something is added to: a part that is still near when that happens.
constexpr int64_t kAddedBytes = int64_t{256} << 10;

// With up to so many tokens a product waits for memory rather than for arithmetic.
constexpr int kMemoryBoundTokens = 4;

// Of the next weights, per thread: some microseconds' worth, and a part of a private cache that holds little else then.
constexpr int64_t kAheadBytes = int64_t{128} << 10;

constexpr int64_t kMeasuredBytes = int64_t{4} << 20;  // of a matrix, to choose its layout by

constexpr int kStorePiece = 128;  // dimensions of a key that are converted at once

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

class CpuOps : public HostMemory<Ops> {
 public:
  CpuOps(Isa isa, int n_threads, CpuOpsRules rules)
      : kernels_(ChooseKernels(isa)),
        layouts_(rules.layouts),
        pool_(n_threads, rules.pin_threads),
        activations_(kernels_, pool_),
        low_rank_(kernels_, pool_),
        sparse_(kernels_, pool_),
        scratch_(n_threads) {}

  std::string name() const override { return std::string("cpu/") + IsaName(kernels_.isa) + ", " + pool_.Describe(); }
  int n_threads() const override { return pool_.n_threads(); }

  std::unique_ptr<PackedMatrix> Pack(DType type, int64_t n_out, int64_t n_in, const void* data) override {
    if (!IsTiled(type)) return std::make_unique<RowMajorMatrix>(type, n_out, n_in, data);
    const auto pack = [&](TileKind kind, int64_t n_rows) {
      return std::make_unique<TiledMatrix>(type, n_rows, n_in, TiledWeights(type, kind, n_rows, n_in, data, pool_));
    };
    return pack(KeepsHalf(type) && IsKept(type, n_out, n_in, pack) ? TileKind::k8Kept : TileKindOf(type), n_out);
  }

  std::unique_ptr<PackedMatrix> Table(DType type, int64_t n_rows, int64_t width, const void* data) override {
    return std::make_unique<RowMajorMatrix>(type, n_rows, width, data);
  }

  std::unique_ptr<LowRank> PackLowRank(DType type, int64_t rank, int64_t n_out, int64_t n_in, const float* a,
                                       const float* b) override {
    return std::make_unique<CpuLowRank>(type, rank, n_out, n_in, a, b, low_rank_store_, pool_);
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

  void MatMul(std::span<const MatMulTarget> targets, const MatMulInput& x, int n_tok) override {
    Guarded([&] { Multiply(targets, x, n_tok); });
  }

  void EmbedRows(const PackedMatrix& table, std::span<const int32_t> tokens, float* out) override {
    const auto* data = static_cast<const std::byte*>(static_cast<const RowMajorMatrix&>(table).data());
    const int64_t width = table.n_in();
    const size_t row_bytes = RowBytes(table.type(), width);
    Guarded([&] {
      ForRows(pool_, static_cast<int>(tokens.size()), width,
              [&](int t, int) { DequantizeRow(table.type(), data + tokens[t] * row_bytes, out + t * width, width); });
    });
  }

  void RmsNorm(const float* x, const float* gain, int n_rows, int width, float eps, float* y) override {
    Guarded([&] {
      ForRows(pool_, n_rows, width, [&](int row, int) {
        const int64_t at = static_cast<int64_t>(row) * width;
        kernels_.row_ops->rms_norm(x + at, gain, width, eps, y + at);
      });
    });
  }

  void Rope(float* x, std::span<const int32_t> positions, int n_head, int head_dim, const RopeParams& params) override {
    Guarded([&] {
      rope_.Prepare(params, positions);
      const int64_t width = static_cast<int64_t>(n_head) * head_dim;
      ForRows(pool_, static_cast<int>(positions.size()), width, [&](int t, int) {
        for (int head = 0; head < n_head; ++head) {
          RopeRotate(params, rope_.cos(t), rope_.sin(t), x + t * width + static_cast<int64_t>(head) * head_dim);
        }
      });
    });
  }

  void SwiGlu(const float* gate, const float* up, int64_t n, float* out) override {
    constexpr int64_t kPiece = 4096;
    Guarded([&] {
      ForRows(pool_, static_cast<int>((n + kPiece - 1) / kPiece), kPiece, [&](int piece, int) {
        const int64_t at = piece * kPiece;
        kernels_.row_ops->swiglu(gate + at, up + at, std::min(kPiece, n - at), out + at);
      });
    });
  }

  void FeedForward(const FeedForwardWeights& w, const FeedForwardArgs& args) override {
    Guarded([&] { w.group == 0 ? AllNeurons(w, args) : ActiveNeurons(w, args); });
  }

  SparsityTuning TuneSparsity(std::span<const FeedForwardWeights> layers) override {
    SparsityTuning tuning = sparse_.Tune(*this, layers);
    weights_ahead_.ForgetAll();
    return tuning;
  }

  void StoreKv(const float* k, const float* v, std::span<const AttentionRow> rows, const KvLayer& kv,
               const KvShape& shape) override {
    Guarded([&] {
      const int64_t width = static_cast<int64_t>(shape.n_kv_head) * shape.head_dim;
      const size_t head_bytes = KvHeadBytes(shape);
      ForRows(pool_, static_cast<int>(rows.size()), 2 * width, [&](int t, int) {
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
    });
  }

  void Attention(const AttentionArgs& args) override {
    Guarded([&] { Attend(args); });
  }

 private:
  void AllNeurons(const FeedForwardWeights& w, const FeedForwardArgs& args) {
    const MatMulTarget gate{.w = w.gate, .y = args.gate, .low_rank = w.gate_low_rank};
    const MatMulTarget up{.w = w.up, .y = args.up, .low_rank = w.up_low_rank};
    const MatMulTarget down{.w = w.down, .y = args.y, .accumulate = true, .low_rank = w.down_low_rank};
    Multiply(std::array{gate, up}, args.x, args.n_tok);
    Multiply({&down, 1}, ActivationSource{.x = args.gate, .up = args.up}, args.n_tok);
  }

  void ActiveNeurons(const FeedForwardWeights& w, const FeedForwardArgs& args) {
    const int64_t d_ff = w.gate->n_out();
    const MatMulTarget gate{.w = w.gate, .y = args.gate, .low_rank = w.gate_low_rank};
    const MatMulTarget up{.w = w.up, .y = args.up, .low_rank = w.up_low_rank};
    const MatMulTarget down{.w = w.down, .y = args.y, .accumulate = true, .low_rank = w.down_low_rank};
    const int n_groups = static_cast<int>(d_ff / w.group);
    active_.resize(static_cast<size_t>(args.n_tok) * n_groups);
    if (args.n_tok == 1 && args.sparse_share > 0 && SparseFeedForward::Supports(w)) {
      const float* const x = Normalized(args.x, w.gate->n_in());
      // The gate first: it says how much of the rest there is to do.
      Multiply({&gate, 1}, MatMulInput{x}, 1);
      const int n_active = kernels_.row_ops->silu_active(args.gate, n_groups, w.group, w.threshold, active_.data());
      const std::span<const int32_t> active(active_.data(), n_active);
      if (static_cast<float>(n_active) <= args.sparse_share * static_cast<float>(n_groups)) {
        sparse_.Run(w, x, args.gate, active, args.up, args.y);
        weights_ahead_.Forget();
        return;
      }
      Multiply({&up, 1}, MatMulInput{x}, 1);
      MultiplyActive(args.up, n_groups, w.group, active, args.gate);
    } else {
      Multiply(std::array{gate, up}, args.x, args.n_tok);
      ForRows(pool_, args.n_tok, d_ff, [&](int row, int) {
        int32_t* active = active_.data() + static_cast<ptrdiff_t>(row) * n_groups;
        float* values = args.gate + row * d_ff;
        const int n_active = kernels_.row_ops->silu_active(values, n_groups, w.group, w.threshold, active);
        MultiplyActive(args.up + row * d_ff, n_groups, w.group, {active, static_cast<size_t>(n_active)}, values);
      });
    }
    Multiply({&down, 1}, MatMulInput{args.gate}, args.n_tok);
  }

  void Attend(const AttentionArgs& args) {
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

  // Whether a type that KeepsHalf is laid out without its zeros; measured, where that is asked for, when a shape is
  // seen for the first time. pack(kind, n_rows) lays out the first n_rows outputs.
  template <typename PackRows>
  bool IsKept(DType type, int64_t n_out, int64_t n_in, const PackRows& pack) {
    if (layouts_ != LayoutRule::kMeasured) return layouts_ == LayoutRule::kKept;
    for (const LayoutChoice& choice : layout_choices_) {
      if (choice.type == type && choice.n_out == n_out && choice.n_in == n_in) return choice.kept;
    }
    // Of a large matrix a part, so that no head of a large vocabulary lies in memory twice.
    const int64_t n_rows = std::min(n_out, std::max<int64_t>(2 * kTileOutputs, kMeasuredBytes / n_in));
    LayoutChoice choice = ChooseLayout(*this, *pack(TileKindOf(type), n_rows), *pack(TileKind::k8Kept, n_rows));
    choice.n_out = n_out;
    layout_choices_.push_back(choice);
    weights_ahead_.ForgetAll();
    return choice.kept;
  }

  void Multiply(std::span<const MatMulTarget> targets, const MatMulInput& x, int n_tok) {
    Multiply(targets, ActivationSource{.x = x.x, .gain = x.gain, .eps = x.eps}, n_tok);
  }

  void Multiply(std::span<const MatMulTarget> targets, const ActivationSource& from, int n_tok) {
    pool_.PinCaller();  // also where all products are too small for the pool
    int64_t bytes = 0;
    bool adds_low_rank = false;
    ActivationForms forms;
    for (const MatMulTarget& target : targets) {
      bytes += static_cast<int64_t>(target.w->packed_bytes());
      adds_low_rank |= target.low_rank != nullptr;
      forms.set(static_cast<size_t>(FormOf(target.w->type())));
      if (!IsTiled(target.w->type())) {
        if (n_tok > 1) GrowScratch(kernels_.dense_matmul->scratch_floats * sizeof(float));
      } else if (n_tok > kernels_.tile_matmul.skinny) {
        GrowScratch(kernels_.tile_matmul.scratch_bytes);
      }
    }
    if (adds_low_rank) LowRankProducts::AddForms(targets, forms);
    const bool serial = pool_.n_threads() == 1 || bytes * ((n_tok + 3) / 4) < kSerialBytes;
    const Activations x = activations_.Write(from, n_tok, targets[0].w->n_in(), forms);
    if (adds_low_rank) low_rank_.Project(targets, x, n_tok, scratch_);

    splits_.clear();
    target_chunks_.clear();
    int n_chunks = 0;
    for (const MatMulTarget& target : targets) {
      splits_.push_back(SplitTarget(*target.w, n_tok, serial));
      target_chunks_.push_back(splits_.back().chunks());
      n_chunks += target_chunks_.back();
    }
    if (serial) {
      for (size_t i = 0; i < targets.size(); ++i) {
        for (int chunk = 0; chunk < target_chunks_[i]; ++chunk) {
          RunChunk(targets, i, chunk, x, scratch_[0].data());
        }
      }
      return;
    }
    const auto run = [&](int chunk, int thread) {
      const ChunkPlace at = PlaceOfChunk(chunk, target_chunks_, pool_.n_threads());
      RunChunk(targets, at.target, at.chunk, x, scratch_[thread].data());
    };
    const MemoryAhead* ahead = nullptr;
    if (n_tok <= kMemoryBoundTokens) {
      ahead = weights_ahead_.Begin(targets[0].w, n_chunks, pool_.n_threads(),
                                   [&](MemoryAhead& begins) { AddBeginnings(targets, n_chunks, begins); });
    } else {
      weights_ahead_.Forget();
    }
    pool_.Run(n_chunks, run, ahead);
  }

  // One row.
  const float* Normalized(const MatMulInput& x, int64_t width) {
    if (x.gain == nullptr) return x.x;
    if (normalized_.size() < static_cast<size_t>(width)) normalized_.resize(width);
    kernels_.row_ops->rms_norm(x.x, x.gain, static_cast<int>(width), x.eps, normalized_.data());
    return normalized_.data();
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

  Split SplitTarget(const PackedMatrix& w, int n_tok, bool serial) const {
    Split split;
    const bool tiled = IsTiled(w.type());
    const bool bf16 = FormOf(w.type()) == ActivationForm::kBf16;
    const int64_t token_bytes = w.n_in() * (tiled ? 1 : bf16 ? 2 : 4);
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

  void RunChunk(std::span<const MatMulTarget> targets, size_t index, int chunk, const Activations& x,
                uint8_t* scratch) const {
    const MatMulTarget& target = targets[index];
    const Split& split = splits_[index];
    const int64_t range = chunk % split.n_ranges;
    const int64_t block = chunk / split.n_ranges;  // token blocks outermost: a block's activations stay near
    const int64_t unit_from = split.n_units * range / split.n_ranges;
    const int64_t unit_to = split.n_units * (range + 1) / split.n_ranges;
    const int tok_from = static_cast<int>(split.tokens * block / split.n_token_blocks);
    const int tok_to = static_cast<int>(split.tokens * (block + 1) / split.n_token_blocks);
    if (!IsTiled(target.w->type())) {
      RunDense(target, unit_from, unit_to, tok_from, tok_to, x, scratch);
      if (target.low_rank == nullptr) return;
      low_rank_.Add(index, target, unit_from, unit_to, tok_from, tok_to, scratch);
      return;
    }
    if (target.low_rank == nullptr) {
      RunTiled(target, 2 * unit_from, 2 * unit_to, tok_from, tok_to, x, scratch);
      return;
    }
    const auto first_token = [&x](int group) {
      return group == x.blocks.n_groups ? x.blocks.n_tok : GroupOf(x.blocks.n_tok, x.blocks.n_groups, group).from;
    };
    const int from = first_token(tok_from), to = first_token(tok_to);
    const int64_t step =
        std::max<int64_t>(2, kAddedBytes / (int64_t{kTileOutputs} * sizeof(float) * (to - from)) / 2 * 2);
    for (int64_t tile = 2 * unit_from; tile < 2 * unit_to; tile += step) {
      const int64_t end = std::min(tile + step, 2 * unit_to);
      RunTiled(target, tile, end, tok_from, tok_to, x, scratch);
      low_rank_.Add(index, target, kTileOutputs * tile, kTileOutputs * end, from, to, scratch);
    }
  }

  void RunTiled(const MatMulTarget& target, int64_t tile_from, int64_t tile_to, int group_from, int group_to,
                const Activations& x, uint8_t* scratch) const {
    const TiledWeights& weights = static_cast<const TiledMatrix&>(*target.w).weights();
    const int64_t n_out = target.w->n_out();
    const TileMatMulArgs args{.w = weights.view(),
                              .tile_from = tile_from,
                              .tile_to = tile_to,
                              .x = x.Quantized(FormOf(target.w->type())),
                              .group_from = group_from,
                              .group_to = group_to,
                              .out = {.n_out = n_out,
                                      .y = target.y,
                                      .y_stride = target.y_stride == 0 ? n_out : target.y_stride,
                                      .bias = target.bias,
                                      .accumulate = target.accumulate},
                              .scratch = scratch};
    kernels_.tile_matmul.run[static_cast<int>(weights.kind())](args);
  }

  void RunDense(const MatMulTarget& target, int64_t out_from, int64_t out_to, int tok_from, int tok_to,
                const Activations& x, uint8_t* scratch) const {
    const PackedMatrix& w = *target.w;
    const bool bf16 = FormOf(w.type()) == ActivationForm::kBf16;
    const DenseMatMulArgs args{.w = static_cast<const RowMajorMatrix&>(w).data(),
                               .n_in = w.n_in(),
                               .out_from = out_from,
                               .out_to = out_to,
                               .x = bf16 ? static_cast<const void*>(x.bf16) : x.f32,
                               .tok_from = tok_from,
                               .tok_to = tok_to,
                               .y = target.y,
                               .y_stride = target.y_stride == 0 ? w.n_out() : target.y_stride,
                               .bias = target.bias,
                               .accumulate = target.accumulate,
                               .scratch = reinterpret_cast<float*>(scratch)};
    const DenseMatMulKernels& dense = *kernels_.dense_matmul;
    (bf16 ? dense.bf16 : w.type() == DType::kF16 ? dense.f16 : dense.f32)(args);
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
  ActivationWriter activations_;
  LowRankStore low_rank_store_;
  LowRankProducts low_rank_;
  SparseFeedForward sparse_;
  RopeTable rope_;
  std::vector<LayoutChoice> layout_choices_;
  std::vector<int32_t> active_;              // [n_tok, n_groups]
  std::vector<float> normalized_;            // one row
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
