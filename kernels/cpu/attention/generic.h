// The one body of attention. Keys and values of a tile are converted to f32 once and used by every query of the pass:
// the heads of the group (grouped-query attention) times the rows (prompt processing). Both products keep a block of
// sums in registers: kQueries queries times 16 * kVectors keys, or times 16 * kVectors dimensions of the output.
#ifndef UPDRAFT_KERNELS_CPU_ATTENTION_GENERIC_H_
#define UPDRAFT_KERNELS_CPU_ATTENTION_GENERIC_H_

#include "kernels/cpu/attention/attention.h"
#include "kernels/cpu/simd/vec_math.h"

namespace updraft::kernels {
namespace {

template <typename S>
class AttentionKernel {
 public:
  AttentionKernel(const AttentionArgs& args, const AttentionPass& pass)
      : args_(args),
        pass_(pass),
        dim_(args.shape.head_dim),
        padded_(PaddedHeadDim(args.shape.head_dim)),
        tile_(TilePositions(args.shape.head_dim)),
        n_heads_(pass.head_to - pass.head_from),
        n_queries_((pass.row_to - pass.row_from) * n_heads_),
        head_bytes_(KvHeadBytes(args.shape)) {
    k_ = pass.scratch;
    v_ = k_ + tile_ * padded_;
    p_ = v_ + tile_ * padded_;
    out_ = p_ + n_queries_ * tile_;
    max_ = out_ + n_queries_ * padded_;
    total_ = max_ + n_queries_;
  }

  void Run() {
    for (int query = 0; query < n_queries_; ++query) {
      for (int d = 0; d < padded_; d += 16) S::Store(out_ + query * padded_ + d, S::Zero());
      const int head = pass_.head_from + query % n_heads_;
      max_[query] = args_.sink_scores == nullptr ? -__builtin_inff() : args_.sink_scores[head];
      total_[query] = max_[query] == -__builtin_inff() ? 0.0f : 1.0f;
    }
    if (SinkEnd(pass_.row_to - 1) > 0) RunTiles<true>(0, SinkEnd(pass_.row_to - 1) - 1);
    RunTiles<false>(FirstPosition(pass_.row_from), Row(pass_.row_to - 1).position);
    WriteOutputs();
  }

 private:
  using F = typename S::F;

  // Positions of a tile, counted from its start.
  struct Range {
    int from, to;
    bool empty() const { return from >= to; }
  };

  const AttentionRow& Row(int row) const { return pass_.rows[row]; }

  // Positions [first, last], of the sinks or of the windows.
  template <bool kSinks>
  void RunTiles(int first, int last) const {
    for (int start = first / tile_ * tile_; start <= last; start += tile_) {
      LoadTile(start, first, last);
      // Ranges move on with the rows, so those that have positions here lie together.
      int from = 0, to = n_queries_;
      while (from < to && RangeOf<kSinks>(from, start).empty()) ++from;
      while (to > from && RangeOf<kSinks>(to - 1, start).empty()) --to;
      for (; from < to; from += S::kAttentionQueries) Block<S::kAttentionQueries, kSinks>(from, to - from, start);
    }
  }

  int FirstPosition(int row) const {
    const int first = args_.window > 0 ? Row(row).position - args_.window + 1 : 0;
    return first > 0 ? first : 0;
  }

  // Positions [0, SinkEnd) are sinks that the row's window does not cover.
  int SinkEnd(int row) const {
    const int first = FirstPosition(row);
    return args_.n_sink < first ? args_.n_sink : first;
  }

  // What a query attends to in the tile that starts at position `start`, as sinks or in its window.
  template <bool kSinks>
  Range RangeOf(int query, int start) const {
    const int row = pass_.row_from + query / n_heads_;
    const int from = (kSinks ? 0 : FirstPosition(row)) - start;
    const int to = (kSinks ? SinkEnd(row) : Row(row).position + 1) - start;
    return {from > 0 ? from : 0, to < tile_ ? to : tile_};
  }

  int64_t QueryOffset(int query) const {
    const int64_t row = pass_.row_from + query / n_heads_;
    return (row * args_.n_head + pass_.head_from + query % n_heads_) * dim_;
  }

  // ---- Keys and values ----------------------------------------------------------------------------------------------

  // Of the head's keys, and of its values, in the block of a position.
  size_t HeadOffset(int position) const {
    const int64_t block = Row(pass_.row_from).block_table[position / args_.shape.block_tokens];
    return static_cast<size_t>(block * args_.shape.n_kv_head + pass_.kv_head) * head_bytes_;
  }

  // k_ [tile / 16][dim][16 positions], v_ [tile][padded], as far as positions lie in [first, last]. What else stands in
  // the lanes of k_ is masked later.
  void LoadTile(int start, int first, int last) const {
    for (int j = 0; j < tile_; j += 16) {
      if (start + j + 15 >= first && start + j <= last) LoadKeys(start + j, last, k_ + j * dim_);
    }
    for (int j = 0; j < tile_; ++j) {
      if (start + j >= first && start + j <= last) LoadValues(start + j, v_ + j * padded_);
    }
  }

  // What 16 positions have of one number each: side by side in a block (kTogether), or gathered from several blocks.
  template <typename T, bool kTogether>
  class Lanes {
   public:
    // Bytes [offset + (row * block_tokens + slot) * sizeof(T), ...) of the head's keys.
    Lanes(const AttentionKernel& kernel, int position, int last, size_t offset)
        : stride_(kernel.args_.shape.block_tokens),
          n_(kTogether                  ? 1
             : last - position + 1 < 16 ? last - position + 1
                                        : 16) {
      for (int lane = 0; lane < n_; ++lane) {
        const std::byte* head = kernel.args_.kv.k + kernel.HeadOffset(position + lane) + offset;
        from_[lane] = reinterpret_cast<const T*>(head) + (position + lane) % stride_;
      }
    }
    // 16 numbers of a row; valid until the next call.
    const T* Row(int64_t row) {
      if constexpr (kTogether) return from_[0] + row * stride_;
      for (int lane = 0; lane < n_; ++lane) gathered_[lane] = from_[lane][row * stride_];
      return gathered_;
    }

   private:
    const int64_t stride_;
    const int n_;
    const T* from_[kTogether ? 1 : 16];
    T gathered_[kTogether ? 1 : 16] = {};
  };

  void LoadKeys(int position, int last, float* to) const {
    if (args_.shape.block_tokens % 16 == 0) {
      LoadKeys<true>(position, last, to);
    } else {
      LoadKeys<false>(position, last, to);
    }
  }

  template <bool kTogether>
  void LoadKeys(int position, int last, float* to) const {
    if (args_.shape.type == KvType::kF16) {
      Lanes<uint16_t, kTogether> k(*this, position, last, 0);
      for (int d = 0; d < dim_; ++d) S::Store(to + 16 * d, S::LoadF16(k.Row(d)));
      return;
    }
    Lanes<uint16_t, kTogether> scales(*this, position, last, 0);
    if (args_.shape.type == KvType::kI8) {
      Lanes<int8_t, kTogether> codes(*this, position, last, KvScaleBytes(args_.shape));
      for (int d = 0; d < dim_; d += kKvGroup) {
        const F scale = S::LoadF16(scales.Row(d / kKvGroup));
        for (int i = d; i < dim_ && i < d + kKvGroup; ++i) {
          S::Store(to + 16 * i, S::Mul(S::LoadI8(codes.Row(i)), scale));
        }
      }
      return;
    }
    Lanes<uint8_t, kTogether> codes(*this, position, last, KvScaleBytes(args_.shape));
    const F eight = S::Set(8.0f);
    for (int d = 0; d < dim_; d += kKvGroup) {
      const F scale = S::LoadF16(scales.Row(d / kKvGroup));
      for (int i = 0; i < 16; ++i) {
        const uint8_t* nibbles = codes.Row(d / kKvGroup * 16 + i);
        if (d + i < dim_) S::Store(to + 16 * (d + i), S::Mul(S::Sub(S::LoadLow4(nibbles), eight), scale));
        if (d + 16 + i < dim_) S::Store(to + 16 * (d + 16 + i), S::Mul(S::Sub(S::LoadHigh4(nibbles), eight), scale));
      }
    }
  }

  void LoadValues(int position, float* to) const {
    const int64_t slot = position % args_.shape.block_tokens;
    const std::byte* head = args_.kv.v + HeadOffset(position);
    if (args_.shape.type == KvType::kF16) {
      const uint16_t* v = reinterpret_cast<const uint16_t*>(head) + slot * dim_;
      int d = 0;
      for (; d + 16 <= dim_; d += 16) S::Store(to + d, S::LoadF16(v + d));
      if (d < dim_) S::Store(to + d, S::LoadF16Partial(v + d, dim_ - d));
      return;
    }
    const int n_groups = KvGroups(dim_);
    const uint16_t* scales = reinterpret_cast<const uint16_t*>(head) + slot * n_groups;
    const std::byte* codes = head + KvScaleBytes(args_.shape);
    for (int group = 0; group < n_groups; ++group) {
      const F scale = S::SetF16(scales[group]);
      const int d = group * kKvGroup;
      F lo, hi;
      if (args_.shape.type == KvType::kI8) {
        const auto* q = reinterpret_cast<const int8_t*>(codes) + slot * padded_ + d;
        lo = S::LoadI8(q);
        hi = d + 16 < padded_ ? S::LoadI8(q + 16) : lo;
      } else {
        const auto* q = reinterpret_cast<const uint8_t*>(codes) + (slot * n_groups + group) * 16;
        lo = S::Sub(S::LoadLow4(q), S::Set(8.0f));
        hi = S::Sub(S::LoadHigh4(q), S::Set(8.0f));
      }
      S::Store(to + d, S::Mul(lo, scale));
      if (d + 16 < padded_) S::Store(to + d + 16, S::Mul(hi, scale));
    }
  }

  // ---- One tile, a block of queries ---------------------------------------------------------------------------------

  // Queries [from, from + min(n, kQueries)), each with positions in the tile.
  template <int kQueries, bool kSinks>
  void Block(int from, int n, int start) const {
    if (n < kQueries) {
      if constexpr (kQueries > 1) Block<kQueries - 1, kSinks>(from, n, start);
      return;
    }
    Range each[kQueries];
    Range any = {tile_, 0}, all = {0, tile_};
    for (int i = 0; i < kQueries; ++i) {
      each[i] = RangeOf<kSinks>(from + i, start);
      any = {each[i].from < any.from ? each[i].from : any.from, each[i].to > any.to ? each[i].to : any.to};
      all = {each[i].from > all.from ? each[i].from : all.from, each[i].to < all.to ? each[i].to : all.to};
    }
    Scores<kQueries>(from, any.from / 16, (any.to + 15) / 16);
    for (int i = 0; i < kQueries; ++i) Softmax(from + i, each[i]);
    // Every query over its own range in ascending order; a later value must not touch it even with weight 0.
    if (all.empty()) all = {tile_, tile_};
    for (int i = 0; i < kQueries; ++i)
      AddValues<1>(from + i, {each[i].from, all.from < each[i].to ? all.from : each[i].to});
    AddValues<kQueries>(from, all);
    for (int i = 0; i < kQueries; ++i)
      AddValues<1>(from + i, {all.to > each[i].from ? all.to : each[i].to, each[i].to});
  }

  // p_[query] = scores of positions [16 * group, 16 * group_to).
  template <int kQueries>
  void Scores(int from, int group, int group_to) const {
    constexpr int kVectors = VectorsFor(kQueries);
    for (; group + kVectors <= group_to; group += kVectors) Scores<kQueries, kVectors>(from, group);
    for (; group < group_to; ++group) Scores<kQueries, 1>(from, group);
  }

  template <int kQueries, int kVectors>
  void Scores(int from, int group) const {
    const float* q[kQueries];
    F sum[kQueries][kVectors];
    for (int i = 0; i < kQueries; ++i) {
      q[i] = args_.q + QueryOffset(from + i);
      for (int v = 0; v < kVectors; ++v) sum[i][v] = S::Zero();
    }
    const float* k = k_ + 16 * group * dim_;
    for (int d = 0; d < dim_; ++d, k += 16) {
      F keys[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) keys[v] = S::Load(k + 16 * v * dim_);
#pragma GCC unroll 8
      for (int i = 0; i < kQueries; ++i) {
        const F x = S::Set(q[i][d]);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sum[i][v] = S::Fma(x, keys[v], sum[i][v]);
      }
    }
    const F scale = S::Set(args_.scale);
    for (int i = 0; i < kQueries; ++i) {
      for (int v = 0; v < kVectors; ++v) {
        S::Store(p_ + (from + i) * tile_ + 16 * (group + v), S::Mul(sum[i][v], scale));
      }
    }
  }

  // Scores to weights, and what they do to the query's maximum, total and output so far.
  void Softmax(int query, Range range) const {
    float* p = p_ + query * tile_;
    const int from = range.from / 16 * 16;
    const int to = (range.to + 15) / 16 * 16;
    FillOutside(p, from, to, range, -__builtin_inff());
    F greatest = S::Load(p + from);
    for (int j = from + 16; j < to; j += 16) greatest = S::Max(greatest, S::Load(p + j));
    const float tile_max = S::MaxOf(greatest);
    const float max = tile_max > max_[query] ? tile_max : max_[query];
    // A row whose scores are all NaN or -inf has no maximum; its differences are NaN, and so is its output.
    for (int j = from; j < to; j += 16) S::Store(p + j, Exp<S>(S::Sub(S::Load(p + j), S::Set(max))));
    FillOutside(p, from, to, range, 0.0f);  // Exp is clamped: what is outside must weigh exactly nothing
    F sum = S::Load(p + from);
    for (int j = from + 16; j < to; j += 16) sum = S::Add(sum, S::Load(p + j));
    const float factor = Factor(max_[query], max);
    total_[query] = total_[query] * factor + S::Sum(sum);
    max_[query] = max;
    if (factor == 1.0f) return;
    float* out = out_ + query * padded_;
    for (int d = 0; d < padded_; d += 16) S::Store(out + d, S::Mul(S::Load(out + d), S::Set(factor)));
  }

  static void FillOutside(float* p, int from, int to, Range range, float value) {
    for (int j = from; j < range.from; ++j) p[j] = value;
    for (int j = range.to; j < to; ++j) p[j] = value;
  }

  // e^(before - after); 0 before the first tile.
  static float Factor(float before, float after) {
    if (before == -__builtin_inff()) return 0.0f;
    if (before == after) return 1.0f;
    alignas(64) float lanes[16];
    S::Store(lanes, Exp<S>(S::Set(before - after)));
    return lanes[0];
  }

  template <int kQueries>
  void AddValues(int from, Range range) const {
    if (range.empty()) return;
    constexpr int kVectors = VectorsFor(kQueries);
    int d = 0;
    for (; d + 16 * kVectors <= padded_; d += 16 * kVectors) AddValues<kQueries, kVectors>(from, range, d);
    for (; d < padded_; d += 16) AddValues<kQueries, 1>(from, range, d);
  }

  template <int kQueries, int kVectors>
  void AddValues(int from, Range range, int d) const {
    F sum[kQueries][kVectors];
    float* out = out_ + from * padded_ + d;
    const float* p = p_ + from * tile_;
    for (int i = 0; i < kQueries; ++i) {
      for (int v = 0; v < kVectors; ++v) sum[i][v] = S::Load(out + i * padded_ + 16 * v);
    }
    for (int j = range.from; j < range.to; ++j) {
      F values[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) values[v] = S::Load(v_ + j * padded_ + d + 16 * v);
#pragma GCC unroll 8
      for (int i = 0; i < kQueries; ++i) {
        const F weight = S::Set(p[i * tile_ + j]);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sum[i][v] = S::Fma(weight, values[v], sum[i][v]);
      }
    }
    for (int i = 0; i < kQueries; ++i) {
      for (int v = 0; v < kVectors; ++v) S::Store(out + i * padded_ + 16 * v, sum[i][v]);
    }
  }

  // Vectors beside kQueries queries that the registers hold; at most the four of a tile.
  static constexpr int VectorsFor(int queries) {
    return 4 * queries <= S::kAttentionSums ? 4 : 2 * queries <= S::kAttentionSums ? 2 : 1;
  }

  void WriteOutputs() const {
    for (int query = 0; query < n_queries_; ++query) {
      float* to = args_.out + QueryOffset(query);
      const F inverse = S::Set(1.0f / total_[query]);
      for (int d = 0; d < dim_; d += 16) {
        const F value = S::Mul(S::Load(out_ + query * padded_ + d), inverse);
        S::StorePartial(to + d, value, dim_ - d >= 16 ? 16 : dim_ - d);
      }
    }
  }

  const AttentionArgs& args_;
  const AttentionPass& pass_;
  const int dim_;
  const int padded_;
  const int tile_;
  const int n_heads_;
  const int n_queries_;
  const size_t head_bytes_;
  float* k_;      // [tile / 16, dim, 16]; space for [tile, padded]
  float* v_;      // [tile, padded]
  float* p_;      // [n_queries, tile], scores and then weights
  float* out_;    // [n_queries, padded], not yet divided by total
  float* max_;    // [n_queries]
  float* total_;  // [n_queries]
};

template <typename S>
void RunAttention(const AttentionArgs& args, const AttentionPass& pass) {
  AttentionKernel<S>(args, pass).Run();
}

// The table of one instruction set.
template <typename S>
constexpr AttentionKernels MakeAttentionKernels() {
  return {RunAttention<S>};
}

}  // namespace
}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_ATTENTION_GENERIC_H_
