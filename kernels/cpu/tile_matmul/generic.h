// The one body of the quantized matmul, over the sixteen lanes of an instruction set (../simd/README.md).
//
// The kernel keeps, for kTiles tiles (16 outputs each) times a group of tokens, one vector of float sums and one of
// integer sums per pair. Every 64-byte word of weights is loaded and unpacked once and used for all tokens of the
// group. Where many groups follow each other, tiles whose codes are costly to unpack are first expanded, a stretch of
// inputs at a time, into a scratch that stays in the nearest cache (tile_reader.h); sums wait there meanwhile.
//
// `S` brings the integer dot product in three steps, because machines differ in how wide an intermediate sum may grow:
// Begin(acc) opens a run, Step adds 4 products per lane, End(acc, partial) closes the run. A run has at most
// S::MaxRun(max_code) steps. Where S::kTokenPairs, two tokens and two words of weights meet in one step (BeginPair,
// Zip, StepPair, EndFirst, EndSecond). Integer products are exact, so none of this moves a bit.
#ifndef UPDRAFT_KERNELS_CPU_TILE_MATMUL_GENERIC_H_
#define UPDRAFT_KERNELS_CPU_TILE_MATMUL_GENERIC_H_

#include <cstdint>
#include <utility>

#include "kernels/cpu/tile_matmul/low_rank.h"
#include "kernels/cpu/tile_matmul/quantize.h"
#include "kernels/cpu/tile_matmul/tile_matmul.h"
#include "kernels/cpu/tile_matmul/tile_reader.h"

namespace updraft::kernels {
namespace {

constexpr int Log2(int x) { return x <= 1 ? 0 : 1 + Log2(x / 2); }

// How far ahead of its use a block of weights is asked for when every block is used once: about the latency of memory
// at the speed of one core's reads.
constexpr int kBytesAhead = 4608;
constexpr int BlocksAhead(const TileFormat& format) {
  const int blocks = kBytesAhead / (format.low_bytes() + format.high_bytes() + format.scale_bytes());
  return blocks < 16 ? 16 : blocks;
}

// With more passes over a tile than this, waiting for it in the first one costs less than asking for it in all.
constexpr int kMaxPrefetchPasses = 12;

// Tiles are expanded for at least so many groups of tokens, and for at most so many at once, whose sums stay near.
constexpr int kMinExpandedGroups = 6;
constexpr int kMaxExpandedGroups = 32;

// Into how many blocks at a time: the shorter sums wait, the better, where they wait between stretches alone.
constexpr int ExpandedBlocks(TileKind kind) { return TileFormatOf(kind).span_blocks() == 1 ? 16 : 8; }

// What that takes of scratch: records, of the formats that have most to a stretch, and sums.
template <typename S, TileKind kKind>
constexpr size_t RecordBytesOf() {
  return S::kTiles * ExpandedBlocks(kKind) * ExpandedTile<S, kKind>::kRecordBytes;
}
template <typename S>
constexpr size_t RecordBytes() {
  constexpr size_t kSpans = RecordBytesOf<S, TileKind::k2SuperMin>();
  constexpr size_t kBlocks = RecordBytesOf<S, TileKind::k5Min>();
  return kSpans > kBlocks ? kSpans : kBlocks;
}
template <typename S>
constexpr size_t SumBytes() {
  return S::kTiles * kMaxExpandedGroups * S::kGroup * kTileOutputs * sizeof(float);
}

// Whether unpacking codes and scales costs so much that expanding pays (measured for each format). The fewer sums fit
// into registers, the fewer products share one unpacking.
template <typename S>
constexpr bool Expands(TileKind kind) {
  constexpr bool kFewSums = S::kGroup * S::kTiles < 12;
  const TileFormat format = TileFormatOf(kind);
  if (format.kept || (format.span_blocks() > 1 && (format.halves() || format.has_min()))) return true;
  return kFewSums && (format.high_bits > 0 || format.table != TileTable::kNone);
}

// The sums of two tokens, where S has such.
template <typename S, bool kHas = S::kTokenPairs>
struct PairSumsOf {
  struct Type {};
};
template <typename S>
struct PairSumsOf<S, true> {
  using Type = typename S::PairSums;
};

template <typename S, TileKind kKind, int kTok, int kTiles, template <typename, TileKind> class Tile>
struct TileKernel {
  using F = typename S::F;
  using I = typename S::I;
  using W = typename S::W;
  using Partial = typename S::Partial;
  static constexpr TileFormat kFormat = TileFormatOf(kKind);
  static constexpr int kHalves = kFormat.halves() ? 2 : 1;
  static constexpr int kRun = S::MaxRun(kFormat.max_code()) < 8 / kHalves ? S::MaxRun(kFormat.max_code()) : 8 / kHalves;
  // Where an instruction set takes 8-bit weights as signed, it is brought to that form by Step and needs no offset.
  static constexpr bool kSigned = kFormat.max_code() > 127 && S::kSignedBytes;
  static constexpr int kOffset = kSigned ? 0 : kFormat.offset;
  static constexpr int kBlocksAhead = BlocksAhead(kFormat);
  static constexpr int kSpan = kFormat.span_blocks();

  struct State {
    Tile<S, kKind> tile[kTiles];
    I dot[kTiles][kTok];
    Partial partial[kTiles][kTok];
    typename PairSumsOf<S>::Type pair[kTiles][(kTok + 1) / 2];
  };

  template <int kGroup>
  static UPDRAFT_INLINE void Group(State& s, const int8_t* x) {
    W w[kTiles];
#pragma GCC unroll 4
    for (int n = 0; n < kTiles; ++n) w[n] = s.tile[n].template Codes<kGroup>();
#pragma GCC unroll 16
    for (int t = 0; t < kTok; ++t) {
#pragma GCC unroll 4
      for (int n = 0; n < kTiles; ++n) {
        if constexpr (kGroup % kRun == 0) s.partial[n][t] = S::Begin(s.dot[n][t]);
        s.partial[n][t] = S::template Step<kFormat.max_code()>(s.partial[n][t], w[n], x + t * kTileBlock + 4 * kGroup);
        if constexpr ((kGroup + 1) % kRun == 0) s.dot[n][t] = S::End(s.dot[n][t], s.partial[n][t]);
      }
    }
  }

  // Two groups at once, where S multiplies them with two tokens at once.
  template <int kGroup>
  static UPDRAFT_INLINE void GroupPair(State& s, const int8_t* x) {
    constexpr int kOfHalf = 8 / kHalves;
    constexpr int kMaxCode = kFormat.max_code();
#pragma GCC unroll 4
    for (int n = 0; n < kTiles; ++n) {
      const W first = s.tile[n].template Codes<kGroup>();
      const W second = s.tile[n].template Codes<kGroup + 1>();
      const auto columns = S::template Zip<kMaxCode>(first, second);
      const int8_t* x_first = x + 4 * kGroup;
#pragma GCC unroll 8
      for (int pair = 0; pair < kTok / 2; ++pair, x_first += 2 * kTileBlock) {
        auto& sums = s.pair[n][pair];
        if constexpr (kGroup % kOfHalf == 0) sums = S::BeginPair();
        sums = S::StepPair(sums, columns, x_first, x_first + kTileBlock);
        if constexpr ((kGroup + 2) % kOfHalf == 0) {
          s.dot[n][2 * pair] = S::EndFirst(s.dot[n][2 * pair], sums);
          s.dot[n][2 * pair + 1] = S::EndSecond(s.dot[n][2 * pair + 1], sums);
        }
      }
      if constexpr (kTok % 2 == 1) {
        I& dot = s.dot[n][kTok - 1];
        Partial& partial = s.partial[n][kTok - 1];
        if constexpr (kGroup % kOfHalf == 0) partial = S::Begin(dot);
        partial = S::template Step<kMaxCode>(partial, first, x_first);
        partial = S::template Step<kMaxCode>(partial, second, x_first + 4);
        if constexpr ((kGroup + 2) % kOfHalf == 0) dot = S::End(dot, partial);
      }
    }
  }

  // Groups [kGroup, kGroup + 4).
  template <int kGroup>
  static UPDRAFT_INLINE void FourGroups(State& s, const int8_t* x) {
    if constexpr (S::kTokenPairs && kTok > 1) {
      GroupPair<kGroup>(s, x);
      GroupPair<kGroup + 2>(s, x);
    } else {
      Group<kGroup>(s, x);
      Group<kGroup + 1>(s, x);
      Group<kGroup + 2>(s, x);
      Group<kGroup + 3>(s, x);
    }
  }

  static UPDRAFT_INLINE void Start(State& s, const ActivationBlock* x, int half) {
#pragma GCC unroll 16
    for (int t = 0; t < kTok; ++t) {
      I start = S::SetI(0);
      if constexpr (kOffset > 0) {
        const int32_t sum = kHalves == 2 ? x[t].neg_half_sum[half] : x[t].neg_sum;
        start = S::template ShiftLeft<Log2(kOffset)>(S::SetI(sum));
      }
#pragma GCC unroll 4
      for (int n = 0; n < kTiles; ++n) s.dot[n][t] = start;
    }
  }

  // Adds a block, or half of it, to `sum`: of all blocks, or of the present span.
  static UPDRAFT_INLINE void Finish(State& s, const ActivationBlock* x, int half, F (&sum)[kTiles][kTok]) {
#pragma GCC unroll 4
    for (int n = 0; n < kTiles; ++n) {
      const F scale = s.tile[n].Scale(half);
#pragma GCC unroll 16
      for (int t = 0; t < kTok; ++t) {
        const F factor = kSpan == 1 ? S::Mul(scale, S::Set(x[t].scale)) : scale;
        sum[n][t] = S::Fma(S::ToFloat(s.dot[n][t]), factor, sum[n][t]);
      }
      if constexpr (kFormat.has_min()) {
        const F min = s.tile[n].Min(half);
#pragma GCC unroll 16
        for (int t = 0; t < kTok; ++t) {
          const F factor = kHalves == 2 ? S::ToFloat(S::SetI(x[t].neg_half_sum[half])) : S::Set(x[t].min_factor);
          sum[n][t] = S::Fma(min, factor, sum[n][t]);
        }
      }
    }
  }

  // Sums of complete spans, in registers or, where these are needed for the present span, in memory:
  // [kTiles][kTok][16].
  struct HeldSums {
    F values[kTiles][kTok];
    UPDRAFT_INLINE F Get(int n, int t) const { return values[n][t]; }
    UPDRAFT_INLINE void Set(int n, int t, F value) { values[n][t] = value; }
  };
  struct StoredSums {
    float* values;
    UPDRAFT_INLINE F Get(int n, int t) const { return S::Load(values + (n * kTok + t) * kTileOutputs); }
    UPDRAFT_INLINE void Set(int n, int t, F value) { S::Store(values + (n * kTok + t) * kTileOutputs, value); }
  };

  template <typename Sums>
  static UPDRAFT_INLINE void Clear(Sums& sums) {
    for (int n = 0; n < kTiles; ++n) {
      for (int t = 0; t < kTok; ++t) sums.Set(n, t, S::Zero());
    }
  }

  template <typename From, typename To>
  static UPDRAFT_INLINE void Copy(const From& from, To& to) {
    for (int n = 0; n < kTiles; ++n) {
      for (int t = 0; t < kTok; ++t) to.Set(n, t, from.Get(n, t));
    }
  }

  // The present span ends with a block of activations x.
  template <typename Sums>
  static UPDRAFT_INLINE void EndSpan(const ActivationBlock* x, F (&part)[kTiles][kTok], Sums& sums) {
#pragma GCC unroll 4
    for (int n = 0; n < kTiles; ++n) {
#pragma GCC unroll 16
      for (int t = 0; t < kTok; ++t) {
        sums.Set(n, t, S::Fma(part[n][t], S::Set(x[t].scale), sums.Get(n, t)));
        part[n][t] = S::Zero();
      }
    }
  }

  static UPDRAFT_INLINE void Block(State& s, const int8_t* q, const ActivationBlock* x, F (&sum)[kTiles][kTok]) {
    Start(s, x, 0);
    FourGroups<0>(s, q);
    if constexpr (kHalves == 2) {
      Finish(s, x, 0, sum);
      Start(s, x, 1);
    }
    FourGroups<4>(s, q);
    Finish(s, x, kHalves - 1, sum);
  }

  template <typename Sums>
  static UPDRAFT_INLINE void Write(const TileOutput& to, int64_t tile, int from, const Sums& sums) {
    for (int n = 0; n < kTiles; ++n) {
      const int64_t out = (tile + n) * kTileOutputs;
      if (out >= to.n_out) return;
      const int lanes = to.n_out - out < kTileOutputs ? static_cast<int>(to.n_out - out) : kTileOutputs;
      for (int t = 0; t < kTok; ++t) {
        float* y = to.y + (from + t) * to.y_stride + out;
        F value = sums.Get(n, t);
        if (to.bias != nullptr) value = S::Add(value, S::LoadPartial(to.bias + out, lanes));
        if (to.accumulate) value = S::Add(value, S::LoadPartial(y, lanes));
        S::StorePartial(y, value, lanes);
      }
    }
  }

  // Tiles tile .. tile + kTiles - 1 times one group of kTok tokens that starts at token `from`.
  //
  // Every n_passes-th block asks memory for the block that lies `ahead` blocks further on. One pass over the weights: a
  // few blocks ahead. Several (one for each group of tokens): the next tiles, spread over the passes over these. Where
  // nothing is to be asked for (kAhead false), the loop is better off without the question.
  template <bool kAhead, typename Sums>
  static UPDRAFT_INLINE void Run(const TileMatMulArgs& args, int64_t tile, int from, int pass, int n_passes,
                                 Sums& sums) {
    const int64_t n_blocks = args.w.n_blocks;
    const int64_t ahead = n_passes == 1 ? kBlocksAhead : kTiles * n_blocks;
    State s;
    HeldSums part;  // of the present span; where spans are single blocks, of all of them
    for (int n = 0; n < kTiles; ++n) s.tile[n].Seek(args.w, (tile + n) * n_blocks, 0);
    Clear(part);
    if constexpr (kSpan > 1) Clear(sums);
    const int8_t* q = args.x.q + from * args.x.n_in;
    const ActivationBlock* x = args.x.blocks + from * n_blocks;
    int64_t next_prefetch = pass;
    for (int64_t block = 0; block < n_blocks; ++block, q += kTok * kTileBlock, x += kTok) {
      if constexpr (kAhead) {
        if (block == next_prefetch) {
#pragma GCC unroll 4
          for (int n = 0; n < kTiles; ++n) s.tile[n].Prefetch(ahead);
          next_prefetch += n_passes;
        }
      }
      Block(s, q, x, part.values);
      if constexpr (kSpan > 1) {
        if (block % kSpan == kSpan - 1) EndSpan(x, part.values, sums);
      }
#pragma GCC unroll 4
      for (int n = 0; n < kTiles; ++n) s.tile[n].Advance(block);
    }
    if constexpr (kSpan > 1) {
      Write(args.out, tile, from, sums);
    } else {
      Write(args.out, tile, from, part);
    }
  }

  // One of few tokens: there are registers for all sums.
  static void RunAlone(const TileMatMulArgs& args, int64_t tile, int from) {
    HeldSums sums;
    Run<true>(args, tile, from, 0, 1, sums);
  }

  // One of several groups; `scratch` has room for [kTiles][kTok][16] sums.
  template <bool kAhead>
  static void RunInTurn(const TileMatMulArgs& args, int64_t tile, int from, int pass, int n_passes, float* scratch) {
    StoredSums sums = {scratch};
    Run<kAhead>(args, tile, from, pass, n_passes, sums);
  }

  // Blocks [block, block + n_blocks) alone, whole spans, of tiles that `records` holds expanded: [n_blocks][kTiles]
  // records. Between the first and the last blocks of the tiles the sums wait at `scratch`.
  static void RunExpanded(const TileMatMulArgs& args, const uint8_t* records, int64_t block, int n_blocks, int64_t tile,
                          int from, float* scratch) {
    State s;
    HeldSums part;
    StoredSums sums = {scratch};
    for (int n = 0; n < kTiles; ++n) s.tile[n].record = records + n * Tile<S, kKind>::kRecordBytes;
    if (block == 0) Clear(sums);
    if constexpr (kSpan == 1) {
      Copy(sums, part);
    } else {
      Clear(part);
    }
    const int8_t* q = args.x.q + from * args.x.n_in + block * kTok * kTileBlock;
    const ActivationBlock* x = args.x.blocks + from * args.w.n_blocks + block * kTok;
    for (int i = 0; i < n_blocks; ++i, q += kTok * kTileBlock, x += kTok) {
      Block(s, q, x, part.values);
      if constexpr (kSpan > 1) {
        if (i % kSpan == kSpan - 1) EndSpan(x, part.values, sums);
      }
#pragma GCC unroll 4
      for (int n = 0; n < kTiles; ++n) s.tile[n].record += kTiles * Tile<S, kKind>::kRecordBytes;
    }
    if constexpr (kSpan == 1) Copy(part, sums);
    if (block + n_blocks == args.w.n_blocks) Write(args.out, tile, from, sums);
  }

  // One tile times the listed blocks. The blocks that come kBlocksAhead later in the list are asked for; after the last
  // one those of the next tile.
  static void RunListed(const SparseTileMatMulArgs& args, int64_t tile, int64_t next_tile) {
    static_assert(kTok == 1 && kTiles == 1);
    const int64_t n_listed = args.n_blocks;
    const int64_t first = tile * args.w.n_blocks;
    State s;
    Tile<S, kKind> ahead;
    HeldSums part, sums;
    Clear(part);
    Clear(sums);
    for (int64_t i = 0; i < n_listed; ++i) {
      const int64_t later = i + kBlocksAhead;
      if (later < n_listed) {
        ahead.Seek(args.w, first, args.blocks[later]);
        ahead.Prefetch(0);
      } else if (later - n_listed < n_listed) {
        ahead.Seek(args.w, next_tile * args.w.n_blocks, args.blocks[later - n_listed]);
        ahead.Prefetch(0);
      }
      s.tile[0].Seek(args.w, first, args.blocks[i]);
      Block(s, args.q + i * kTileBlock, args.x + i, part.values);
      if constexpr (kSpan > 1) {
        const bool ends = i + 1 == n_listed || args.blocks[i + 1] / kSpan != args.blocks[i] / kSpan;
        if (ends) EndSpan(args.x + i, part.values, sums);
      }
    }
    Write(args.out, tile, 0, kSpan > 1 ? sums : part);
  }
};

// Few tokens: one tile at a time, so that memory is read as few streams.
template <typename S, TileKind kKind, int kTok = S::kSkinny>
void RunSkinny(const TileMatMulArgs& args, TokenGroup group) {
  if (group.size == kTok) {
    for (int64_t tile = args.tile_from; tile < args.tile_to; ++tile) {
      TileKernel<S, kKind, kTok, 1, PackedTile>::RunAlone(args, tile, group.from);
    }
  } else if constexpr (kTok > 1) {
    RunSkinny<S, kKind, kTok - 1>(args, group);
  }
}

// The smallest group that more than S::kSkinny tokens are cut into.
template <typename S>
constexpr int LeastGroup() {
  int least = S::kGroup;
  for (int n_tok = S::kSkinny + 1; n_tok <= S::kSkinny + S::kGroup * S::kGroup; ++n_tok) {
    const int size = n_tok / ((n_tok + S::kGroup - 1) / S::kGroup);
    least = size < least ? size : least;
  }
  return least;
}

// Calls run.template operator()<size>() for a group of many tokens: as many sums as there are registers, over several
// tiles because a broadcast of activations costs as much as a dot product. Groups are cut evenly.
template <typename S, int kTok = S::kGroup, typename Body>
UPDRAFT_INLINE void ForGroupSize(int size, const Body& run) {
  if (size == kTok) {
    run.template operator()<kTok>();
  } else if constexpr (kTok > LeastGroup<S>()) {
    ForGroupSize<S, kTok - 1>(size, run);
  }
}

// Asks for the planes of the kTiles tiles from `tile` on, a part in each of n_parts calls of Next.
template <typename S, TileKind kKind, int kTiles = S::kTiles>
class TilesAhead {
 public:
  TilesAhead(const TileView& w, int64_t tile, int64_t n_parts) {
    constexpr TileFormat kFormat = TileFormatOf(kKind);
    const uint8_t* const planes[] = {w.low, w.high, w.scale};
    const int block_bytes[] = {kFormat.low_bytes(), kFormat.high_bytes(), kFormat.scale_bytes()};
    for (int i = 0; i < 3; ++i) {
      at_[i] = planes[i] + tile * w.n_blocks * block_bytes[i];
      end_[i] = at_[i] + kTiles * w.n_blocks * block_bytes[i];
      part_[i] = ((end_[i] - at_[i]) / n_parts + 63) / 64 * 64;
    }
  }

  void Next() {
    for (int i = 0; i < 3; ++i) {
      const uint8_t* const to = end_[i] - at_[i] < part_[i] ? end_[i] : at_[i] + part_[i];
      for (; at_[i] < to; at_[i] += 64) S::PrefetchFar(at_[i]);
    }
  }

 private:
  const uint8_t* at_[3];
  const uint8_t* end_[3];
  int64_t part_[3];
};

// What a group of tokens will write, before it does: rows lie far apart, and a row's line would be waited for.
template <typename S, int kTiles = S::kTiles>
void PrefetchOutputs(const TileOutput& to, int64_t tile, TokenGroup group) {
  for (int t = group.from; t < group.from + group.size; ++t) {
    for (int n = 0; n < kTiles; ++n) {
      const int64_t out = (tile + n) * kTileOutputs;
      if (out < to.n_out) S::PrefetchWrite(to.y + t * to.y_stride + out);
    }
  }
}

// The kTiles tiles from `tile` on times groups [group_from, group_to), each group in a pass over the packed tiles.
template <typename S, TileKind kKind, int kTiles = S::kTiles>
void RunPacked(const TileMatMulArgs& args, int64_t tile) {
  const int n_groups = args.group_to - args.group_from;
  TilesAhead<S, kKind, kTiles> ahead(args.w, tile + kTiles, n_groups);
  for (int i = 0; i < n_groups; ++i) {
    // Between the passes, where asking costs the passes nothing.
    if (n_groups > kMaxPrefetchPasses && tile + kTiles < args.tile_to) ahead.Next();
    const TokenGroup group = GroupOf(args.x.n_tok, args.x.n_groups, args.group_from + i);
    PrefetchOutputs<S, kTiles>(args.out, tile, group);
    ForGroupSize<S>(group.size, [&]<int kTok>() {
      using Kernel = TileKernel<S, kKind, kTok, kTiles, PackedTile>;
      auto* sums = reinterpret_cast<float*>(args.scratch);
      if (n_groups <= kMaxPrefetchPasses) {
        Kernel::template RunInTurn<true>(args, tile, group.from, i, n_groups, sums);
      } else {
        Kernel::template RunInTurn<false>(args, tile, group.from, i, n_groups, sums);
      }
    });
  }
}

// The same, a stretch of inputs at a time: expanded once, then multiplied with every group.
template <typename S, TileKind kKind>
void RunExpanded(const TileMatMulArgs& args, int64_t tile, int group_from, int group_to) {
  using Expanded = ExpandedTile<S, kKind>;
  static_assert(RecordBytesOf<S, kKind>() <= RecordBytes<S>());
  constexpr int kStretch = ExpandedBlocks(kKind);
  uint8_t* records = args.scratch;
  auto* all_sums = reinterpret_cast<float*>(args.scratch + RecordBytes<S>());
  const int64_t n_blocks = args.w.n_blocks;
  const int64_t n_passes = (n_blocks + kStretch - 1) / kStretch * (group_to - group_from);
  PackedTile<S, kKind> packed[S::kTiles];
  for (int n = 0; n < S::kTiles; ++n) packed[n].Seek(args.w, (tile + n) * n_blocks, 0);
  TilesAhead<S, kKind> ahead(args.w, tile + S::kTiles, n_passes);
  for (int64_t block = 0; block < n_blocks; block += kStretch) {
    const int n = static_cast<int>(n_blocks - block < kStretch ? n_blocks - block : kStretch);
    for (int i = 0; i < n; ++i) {
      for (int k = 0; k < S::kTiles; ++k) {
        Expanded::Write(packed[k], records + (i * S::kTiles + k) * Expanded::kRecordBytes);
        packed[k].Advance(block + i);
      }
    }
    float* sums = all_sums;
    for (int g = group_from; g < group_to; ++g) {
      const TokenGroup group = GroupOf(args.x.n_tok, args.x.n_groups, g);
      if (tile + S::kTiles < args.tile_to) ahead.Next();
      if (block + n == n_blocks) PrefetchOutputs<S>(args.out, tile, group);
      ForGroupSize<S>(group.size, [&]<int kTok>() {
        using Kernel = TileKernel<S, kKind, kTok, S::kTiles, ExpandedTile>;
        Kernel::RunExpanded(args, records, block, n, tile, group.from, sums);
      });
      sums += S::kTiles * group.size * kTileOutputs;
    }
  }
}

template <typename S, TileKind kKind>
void TileMatMul(const TileMatMulArgs& args) {
  const int n_groups = args.group_to - args.group_from;
  if (args.x.n_tok <= S::kSkinny) {
    RunSkinny<S, kKind>(args, {0, args.x.n_tok});
  } else if (!Expands<S>(kKind) || n_groups < kMinExpandedGroups) {
    // Groups innermost: the weights of one tile stay in a near cache while all tokens pass by.
    for (int64_t tile = args.tile_from; tile < args.tile_to; tile += S::kTiles) RunPacked<S, kKind>(args, tile);
  } else {
    const int n_parts = (n_groups + kMaxExpandedGroups - 1) / kMaxExpandedGroups;
    for (int part = 0; part < n_parts; ++part) {
      const int from = args.group_from + n_groups * part / n_parts;
      const int to = args.group_from + n_groups * (part + 1) / n_parts;
      for (int64_t tile = args.tile_from; tile < args.tile_to; tile += S::kTiles) {
        RunExpanded<S, kKind>(args, tile, from, to);
      }
    }
  }
}

// A matrix of one tile or few.
template <typename S>
void NarrowTileMatMul(const TileMatMulArgs& args) {
  if (args.x.n_tok <= S::kSkinny) {
    RunSkinny<S, TileKind::k8>(args, {0, args.x.n_tok});
  } else {
    for (int64_t tile = args.tile_from; tile < args.tile_to; ++tile) RunPacked<S, TileKind::k8, 1>(args, tile);
  }
}

template <typename S, TileKind kKind>
void SparseTileMatMul(const SparseTileMatMulArgs& args) {
  for (int64_t i = 0; i < args.n_tiles; ++i) {
    const int64_t next = i + 1 < args.n_tiles ? i + 1 : i;
    TileKernel<S, kKind, 1, 1, PackedTile>::RunListed(args, args.tiles[i], args.tiles[next]);
  }
}

template <typename S, int... kKinds>
constexpr void SetKernels(TileMatMulKernels& kernels, std::integer_sequence<int, kKinds...>) {
  ((kernels.run[kKinds] = TileMatMul<S, static_cast<TileKind>(kKinds)>), ...);
  ((kernels.run_sparse[kKinds] = SparseTileMatMul<S, static_cast<TileKind>(kKinds)>), ...);
}

// The table of one instruction set.
template <typename S>
constexpr TileMatMulKernels MakeTileMatMulKernels() {
  TileMatMulKernels kernels;
  kernels.skinny = S::kSkinny;
  kernels.group = S::kGroup;
  kernels.scratch_bytes = RecordBytes<S>() + SumBytes<S>();
  SetKernels<S>(kernels, std::make_integer_sequence<int, kNumTileKinds>());
  kernels.quantize = QuantizeToken<S>;
  kernels.run_narrow = NarrowTileMatMul<S>;
  kernels.quantize_low_rank = QuantizeLowRank<S>;
  kernels.add_low_rank = LowRankKernel<S>::Run;
  return kernels;
}

template <typename S>
constexpr KeptTileMatMulKernels MakeKeptTileMatMulKernels() {
  return {TileMatMul<S, TileKind::k8Kept>, SparseTileMatMul<S, TileKind::k8Kept>};
}

}  // namespace
}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_TILE_MATMUL_GENERIC_H_
