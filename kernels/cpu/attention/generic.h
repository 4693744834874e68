// The one body of attention. Keys and values of a tile are converted to f32 once and used by every query of the pass:
// the heads of the group (grouped-query attention) times the rows (prompt processing).
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
        n_heads_(pass.head_to - pass.head_from),
        n_queries_((pass.row_to - pass.row_from) * n_heads_) {
    k_ = pass.scratch;
    v_ = k_ + kAttentionTile * padded_;
    q_ = v_ + kAttentionTile * padded_;
    out_ = q_ + n_queries_ * padded_;
    max_ = out_ + n_queries_ * padded_;
    total_ = max_ + n_queries_;
  }

  void Run() {
    LoadQueries();
    const int last = Row(pass_.row_to - 1).position;
    const int first = FirstPosition(pass_.row_from);
    for (int tile = first / kAttentionTile * kAttentionTile; tile <= last; tile += kAttentionTile) {
      LoadTile(tile, first, last);
      for (int row = pass_.row_from; row < pass_.row_to; ++row) {
        const int from = FirstPosition(row) - tile;
        const int to = Row(row).position + 1 - tile;
        const int j_from = from > 0 ? from : 0;
        const int j_to = to < kAttentionTile ? to : kAttentionTile;
        if (j_from >= j_to) continue;
        for (int head = 0; head < n_heads_; ++head) Attend((row - pass_.row_from) * n_heads_ + head, j_from, j_to);
      }
    }
    WriteOutputs();
  }

 private:
  using F = typename S::F;

  const AttentionRow& Row(int row) const { return pass_.rows[row]; }

  int FirstPosition(int row) const {
    const int first = args_.window > 0 ? Row(row).position - args_.window + 1 : 0;
    return first > 0 ? first : 0;
  }

  const float* QueryOf(int query) const {
    const int64_t row = pass_.row_from + query / n_heads_;
    return args_.q + (row * args_.n_head + pass_.head_from + query % n_heads_) * dim_;
  }

  void LoadQueries() {
    for (int query = 0; query < n_queries_; ++query) {
      const float* from = QueryOf(query);
      for (int d = 0; d < padded_; d += 16) {
        S::Store(q_ + query * padded_ + d, dim_ - d >= 16 ? S::Load(from + d) : S::LoadPartial(from + d, dim_ - d));
        S::Store(out_ + query * padded_ + d, S::Zero());
      }
      max_[query] = -__builtin_inff();
      total_[query] = 0.0f;
    }
  }

  void Convert(const uint16_t* from, float* to) const {
    int d = 0;
    for (; d + 16 <= dim_; d += 16) S::Store(to + d, S::LoadF16(from + d));
    if (d < dim_) S::Store(to + d, S::LoadF16Partial(from + d, dim_ - d));
  }

  // Positions tile .. tile + 15 as far as they lie in [first, last]; the rest of the tile is not used.
  void LoadTile(int tile, int first, int last) {
    const KvShape& shape = args_.shape;
    const int32_t* table = Row(pass_.row_from).block_table;
    for (int j = 0; j < kAttentionTile; ++j) {
      const int position = tile + j;
      if (position < first || position > last) continue;
      const int64_t block = table[position / shape.block_tokens];
      const int64_t slot =
          ((block * shape.n_kv_head + pass_.kv_head) * shape.block_tokens + position % shape.block_tokens) * dim_;
      Convert(args_.kv.k + slot, k_ + j * padded_);
      Convert(args_.kv.v + slot, v_ + j * padded_);
    }
  }

  // dots[j] = q * k[j], 16 partial sums each, for the whole tile: what lies outside a row's range is replaced later.
  template <int kVectors>
  void Dots(const float* q, F (&dots)[kAttentionTile]) const {
    F qv[kVectors];
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) qv[c] = S::Load(q + 16 * c);
#pragma GCC unroll 16
    for (int j = 0; j < kAttentionTile; ++j) {
      dots[j] = S::Zero();
#pragma GCC unroll 8
      for (int c = 0; c < kVectors; ++c) {
        dots[j] = S::Fma(qv[c], S::Load(k_ + j * (16 * kVectors) + 16 * c), dots[j]);
      }
    }
  }

  void Dots(const float* q, F (&dots)[kAttentionTile]) const {
    if (padded_ == 64) return Dots<4>(q, dots);  // the usual head sizes, unrolled
    if (padded_ == 128) return Dots<8>(q, dots);
    for (int j = 0; j < kAttentionTile; ++j) {
      dots[j] = S::Zero();
      for (int d = 0; d < padded_; d += 16) dots[j] = S::Fma(S::Load(q + d), S::Load(k_ + j * padded_ + d), dots[j]);
    }
  }

  // One query against positions [j_from, j_to) of the tile.
  void Attend(int query, int j_from, int j_to) {
    F dots[kAttentionTile];
    Dots(q_ + query * padded_, dots);
    alignas(64) float p[kAttentionTile];
    F scores = S::Mul(S::SumEach(dots), S::Set(args_.scale));
    if (j_to - j_from < kAttentionTile) {
      S::Store(p, scores);
      for (int j = 0; j < kAttentionTile; ++j) {
        if (j < j_from || j >= j_to) p[j] = -__builtin_inff();
      }
      scores = S::Load(p);
    }
    const float tile_max = S::MaxOf(scores);
    const float max = tile_max > max_[query] ? tile_max : max_[query];
    // A row whose scores are all NaN or -inf has no maximum; its differences are NaN, and so is its output.
    F weights = Exp<S>(S::Sub(scores, S::Set(max)));
    if (j_to - j_from < kAttentionTile) {  // Exp is clamped: what is outside must weigh exactly nothing
      S::Store(p, weights);
      for (int j = 0; j < kAttentionTile; ++j) {
        if (j < j_from || j >= j_to) p[j] = 0.0f;
      }
      weights = S::Load(p);
    }
    S::Store(p, weights);
    const float factor = Factor(max_[query], max);
    total_[query] = total_[query] * factor + S::Sum(weights);
    max_[query] = max;
    AddValues(p, j_from, j_to, factor, out_ + query * padded_);
  }

  // e^(before - after); 0 before the first tile.
  static float Factor(float before, float after) {
    if (before == -__builtin_inff()) return 0.0f;
    if (before == after) return 1.0f;
    alignas(64) float lanes[16];
    S::Store(lanes, Exp<S>(S::Set(before - after)));
    return lanes[0];
  }

  template <int kVectors>
  void AddValues(const float* p, int j_from, int j_to, float factor, int d, float* out) const {
    F sum[kVectors];
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) sum[c] = S::Mul(S::Load(out + d + 16 * c), S::Set(factor));
    for (int j = j_from; j < j_to; ++j) {
      const F weight = S::Set(p[j]);
#pragma GCC unroll 8
      for (int c = 0; c < kVectors; ++c) sum[c] = S::Fma(weight, S::Load(v_ + j * padded_ + d + 16 * c), sum[c]);
    }
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) S::Store(out + d + 16 * c, sum[c]);
  }

  void AddValues(const float* p, int j_from, int j_to, float factor, float* out) const {
    int d = 0;
    for (; d + 128 <= padded_; d += 128) AddValues<8>(p, j_from, j_to, factor, d, out);
    for (; d + 64 <= padded_; d += 64) AddValues<4>(p, j_from, j_to, factor, d, out);
    for (; d < padded_; d += 16) AddValues<1>(p, j_from, j_to, factor, d, out);
  }

  void WriteOutputs() const {
    for (int query = 0; query < n_queries_; ++query) {
      float* to = args_.out + (QueryOf(query) - args_.q);
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
  const int n_heads_;
  const int n_queries_;
  float* k_;      // [kAttentionTile, padded]
  float* v_;      // [kAttentionTile, padded]
  float* q_;      // [n_queries, padded]
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
