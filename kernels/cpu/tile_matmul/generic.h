// The one body of the quantized matmul, over the sixteen lanes of an instruction set (../simd/README.md).
//
// The kernel keeps, for kTiles tiles (16 outputs each) times a group of tokens, one vector of float sums and one of
// integer sums per pair. Every 64-byte word of weights is loaded and unpacked once and used for all tokens of the
// group.
//
// `S` brings the integer dot product in three steps, because machines differ in how wide an intermediate sum may grow:
// Begin(acc) opens a run, Step adds 4 products per lane, End(acc, partial) closes the run. A run has at most
// S::MaxRun(max_code) steps.
#ifndef UPDRAFT_KERNELS_CPU_TILE_MATMUL_GENERIC_H_
#define UPDRAFT_KERNELS_CPU_TILE_MATMUL_GENERIC_H_

#include <cstdint>
#include <utility>

#include "kernels/cpu/tile_matmul/tile_matmul.h"
#include "kernels/formats/lowbit_blocks.h"

namespace updraft::kernels {
namespace {

#define UPDRAFT_INLINE inline __attribute__((always_inline))

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

// The codes that a table's indices stand for: its values plus the format's offset.
struct alignas(16) CodeTable {
  uint8_t codes[16];
};
constexpr CodeTable MakeCodeTable(const int8_t (&values)[16], int offset) {
  CodeTable table = {};
  for (int i = 0; i < 16; ++i) table.codes[i] = static_cast<uint8_t>(values[i] + offset);
  return table;
}
constexpr CodeTable kIq4Codes = MakeCodeTable(kIq4Values, 128);
constexpr CodeTable kE2M1Codes = MakeCodeTable(kE2M1Doubled, 16);
constexpr const uint8_t* TableCodes(TileTable table) {
  return table == TileTable::kIq4 ? kIq4Codes.codes : kE2M1Codes.codes;
}

template <typename S, TileKind kKind, int kTok, int kTiles>
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

  // One tile's place in the planes, advanced block by block.
  struct Cursor {
    const uint8_t* low;
    const uint8_t* high;
    const uint8_t* scale;
    const uint8_t* super;
  };

  struct State {
    Cursor at[kTiles];
    W raw[kTiles];    // 64 bytes of the low plane: one group of 8-bit codes, two of 4-bit or four of 2-bit ones
    W plane[kTiles];  // 64 bytes of the high plane
    I dot[kTiles][kTok];
    Partial partial[kTiles][kTok];
  };

  template <int kGroup>
  static UPDRAFT_INLINE W LowBits(State& s, int n) {
    if constexpr (kFormat.low_bits == 8) {
      return S::LoadW(s.at[n].low + 64 * kGroup);
    } else if constexpr (kFormat.low_bits == 4) {
      if constexpr (kGroup % 2 == 0) s.raw[n] = S::LoadW(s.at[n].low + 32 * kGroup);
      return kGroup % 2 == 0 ? S::Low4(s.raw[n]) : S::High4(s.raw[n]);
    } else {
      if constexpr (kGroup % 4 == 0) s.raw[n] = S::LoadW(s.at[n].low + 16 * kGroup);
      return S::template TwoBits<2 * (kGroup % 4)>(s.raw[n]);
    }
  }

  template <int kGroup>
  static UPDRAFT_INLINE W Codes(State& s, int n) {
    const W low = LowBits<kGroup>(s, n);
    if constexpr (kFormat.table != TileTable::kNone) {
      return S::Lookup(TableCodes(kFormat.table), low);
    } else if constexpr (kFormat.high_bits == 0) {
      return low;
    } else if constexpr (kFormat.high_bits == 1) {
      if constexpr (kGroup == 0) s.plane[n] = S::LoadW(s.at[n].high);
      return S::template OrPlane<kGroup, kFormat.low_bits, 1>(low, s.plane[n]);
    } else {
      if constexpr (kGroup % 4 == 0) s.plane[n] = S::LoadW(s.at[n].high + 16 * kGroup);
      return S::template OrPlane<2 * (kGroup % 4), kFormat.low_bits, 3>(low, s.plane[n]);
    }
  }

  template <int kGroup>
  static UPDRAFT_INLINE void Group(State& s, const int8_t* x) {
    W w[kTiles];
#pragma GCC unroll 4
    for (int n = 0; n < kTiles; ++n) w[n] = Codes<kGroup>(s, n);
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

  static UPDRAFT_INLINE F Scale(const Cursor& at, int half) {
    const auto* f16 = reinterpret_cast<const uint16_t*>(at.scale);
    const auto* super = reinterpret_cast<const uint16_t*>(at.super);
    const auto* i8 = reinterpret_cast<const int8_t*>(at.scale);
    switch (kFormat.scheme) {
      case TileScheme::kScale32:
      case TileScheme::kScaleMin32:
        return S::LoadF16(f16);
      case TileScheme::kScale32Bf16:
        return S::LoadBf16(f16);
      case TileScheme::kSuper:
        return S::LoadF16(super);
      case TileScheme::kSuperScale32:
      case TileScheme::kSuperScale16:
        return S::Mul(S::LoadF16(super), S::LoadI8(i8 + 16 * half));
      case TileScheme::kSuperScaleMin32:
        return S::Mul(S::LoadF16(super), S::LoadU8(at.scale));
      case TileScheme::kSuperScaleMin16:
        return S::Mul(S::LoadF16(super), S::LoadLow4(at.scale + 16 * half));
      case TileScheme::kScale16:
        return S::Load(reinterpret_cast<const float*>(at.scale) + kTileOutputs * half);
    }
    return S::Zero();
  }

  static UPDRAFT_INLINE void Finish(State& s, const ActivationBlock* x, int half, F (&sum)[kTiles][kTok]) {
#pragma GCC unroll 4
    for (int n = 0; n < kTiles; ++n) {
      const F scale = Scale(s.at[n], half);
#pragma GCC unroll 16
      for (int t = 0; t < kTok; ++t) {
        sum[n][t] = S::Fma(S::ToFloat(s.dot[n][t]), S::Mul(scale, S::Set(x[t].scale)), sum[n][t]);
      }
      if constexpr (kFormat.scheme == TileScheme::kScaleMin32) {
        const F min = S::LoadF16(reinterpret_cast<const uint16_t*>(s.at[n].scale) + kTileOutputs);
#pragma GCC unroll 16
        for (int t = 0; t < kTok; ++t) sum[n][t] = S::Fma(min, S::Set(x[t].scaled_sum), sum[n][t]);
      } else if constexpr (kFormat.scheme == TileScheme::kSuperScaleMin32) {
        const F min = S::Mul(S::LoadF16(reinterpret_cast<const uint16_t*>(s.at[n].super) + kTileOutputs),
                             S::LoadU8(s.at[n].scale + kTileOutputs));
#pragma GCC unroll 16
        for (int t = 0; t < kTok; ++t) sum[n][t] = S::Fma(min, S::Set(-x[t].scaled_sum), sum[n][t]);
      } else if constexpr (kFormat.scheme == TileScheme::kSuperScaleMin16) {
        const F min = S::Mul(S::LoadF16(reinterpret_cast<const uint16_t*>(s.at[n].super) + kTileOutputs),
                             S::LoadHigh4(s.at[n].scale + 16 * half));
#pragma GCC unroll 16
        for (int t = 0; t < kTok; ++t) {
          const float half_sum = x[t].scale * static_cast<float>(x[t].neg_half_sum[half]);
          sum[n][t] = S::Fma(min, S::Set(half_sum), sum[n][t]);
        }
      }
    }
  }

  static UPDRAFT_INLINE void Advance(State& s, int64_t block) {
#pragma GCC unroll 4
    for (int n = 0; n < kTiles; ++n) {
      s.at[n].low += kFormat.low_bytes();
      s.at[n].high += kFormat.high_bytes();
      s.at[n].scale += kFormat.scale_bytes();
      if constexpr (kFormat.super_bytes() > 0) {
        constexpr int kBlocks = kTileSuperBlock / kTileBlock;
        if (block % kBlocks == kBlocks - 1) s.at[n].super += kFormat.super_bytes();
      }
    }
  }

  template <int kBytes>
  static UPDRAFT_INLINE void PrefetchLines(const uint8_t* p) {
    if constexpr (kBytes > 0) {
      S::Prefetch(p);
      PrefetchLines<kBytes - 64>(p + 64);
    }
  }

  static UPDRAFT_INLINE void Prefetch(const State& s, int64_t blocks) {
#pragma GCC unroll 4
    for (int n = 0; n < kTiles; ++n) {
      PrefetchLines<kFormat.low_bytes()>(s.at[n].low + blocks * kFormat.low_bytes());
      PrefetchLines<kFormat.high_bytes()>(s.at[n].high + blocks * kFormat.high_bytes());
      PrefetchLines<(kFormat.scale_bytes() > 0 ? 64 : 0)>(s.at[n].scale + blocks * kFormat.scale_bytes());
    }
  }

  static UPDRAFT_INLINE void Block(State& s, const int8_t* q, const ActivationBlock* x, F (&sum)[kTiles][kTok]) {
    Start(s, x, 0);
    Group<0>(s, q);
    Group<1>(s, q);
    Group<2>(s, q);
    Group<3>(s, q);
    if constexpr (kHalves == 2) {
      Finish(s, x, 0, sum);
      Start(s, x, 1);
    }
    Group<4>(s, q);
    Group<5>(s, q);
    Group<6>(s, q);
    Group<7>(s, q);
    Finish(s, x, kHalves - 1, sum);
  }

  static UPDRAFT_INLINE void Write(const TileOutput& to, int64_t tile, int from, F (&sum)[kTiles][kTok]) {
    for (int n = 0; n < kTiles; ++n) {
      const int64_t out = (tile + n) * kTileOutputs;
      if (out >= to.n_out) return;
      const int lanes = to.n_out - out < kTileOutputs ? static_cast<int>(to.n_out - out) : kTileOutputs;
      for (int t = 0; t < kTok; ++t) {
        float* y = to.y + (from + t) * to.y_stride + out;
        F value = sum[n][t];
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
  template <bool kAhead>
  static void Run(const TileMatMulArgs& args, int64_t tile, int from, int pass, int n_passes) {
    const int64_t n_blocks = args.w.n_blocks;
    const int64_t ahead = n_passes == 1 ? kBlocksAhead : kTiles * n_blocks;
    State s;
    F sum[kTiles][kTok];
    for (int n = 0; n < kTiles; ++n) {
      const int64_t block = (tile + n) * n_blocks;
      s.at[n] = At(args.w, block, 0);
      for (int t = 0; t < kTok; ++t) sum[n][t] = S::Zero();
    }
    const int8_t* q = args.x.q + from * args.x.n_in;
    const ActivationBlock* x = args.x.blocks + from * n_blocks;
    int64_t next_prefetch = pass;
    for (int64_t block = 0; block < n_blocks; ++block, q += kTok * kTileBlock, x += kTok) {
      if constexpr (kAhead) {
        if (block == next_prefetch) {
          Prefetch(s, ahead);
          next_prefetch += n_passes;
        }
      }
      Block(s, q, x, sum);
      Advance(s, block);
    }
    Write(args.out, tile, from, sum);
  }

  // The place of a block of a tile that begins at block `first`.
  static UPDRAFT_INLINE Cursor At(const TileView& w, int64_t first, int64_t block) {
    return {w.low + (first + block) * kFormat.low_bytes(), w.high + (first + block) * kFormat.high_bytes(),
            w.scale + (first + block) * kFormat.scale_bytes(),
            w.super + (first + block) / (kTileSuperBlock / kTileBlock) * kFormat.super_bytes()};
  }

  // One tile times the listed blocks. The blocks that come kBlocksAhead later in the list are asked for; after the last
  // one those of the next tile.
  static void RunListed(const SparseTileMatMulArgs& args, int64_t tile, int64_t next_tile) {
    static_assert(kTok == 1 && kTiles == 1);
    const int64_t n_listed = args.n_blocks;
    const int64_t first = tile * args.w.n_blocks;
    State s, ahead;
    F sum[1][1] = {{S::Zero()}};
    for (int64_t i = 0; i < n_listed; ++i) {
      const int64_t later = i + kBlocksAhead;
      if (later < n_listed) {
        ahead.at[0] = At(args.w, first, args.blocks[later]);
        Prefetch(ahead, 0);
      } else if (later - n_listed < n_listed) {
        ahead.at[0] = At(args.w, next_tile * args.w.n_blocks, args.blocks[later - n_listed]);
        Prefetch(ahead, 0);
      }
      s.at[0] = At(args.w, first, args.blocks[i]);
      Block(s, args.q + i * kTileBlock, args.x + i, sum);
    }
    Write(args.out, tile, 0, sum);
  }
};

// Few tokens: one tile at a time, so that memory is read as few streams.
template <typename S, TileKind kKind, int kTok = S::kSkinny>
void RunSkinny(const TileMatMulArgs& args, int64_t tile, TokenGroup group) {
  if (group.size == kTok) {
    for (int n = 0; n < S::kTiles; ++n) {
      TileKernel<S, kKind, kTok, 1>::template Run<true>(args, tile + n, group.from, 0, 1);
    }
  } else if constexpr (kTok > 1) {
    RunSkinny<S, kKind, kTok - 1>(args, tile, group);
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

// Many tokens: as many sums as there are registers, over several tiles because a broadcast of activations costs as much
// as a dot product. Groups are cut evenly.
template <typename S, TileKind kKind, int kTok = S::kGroup>
void RunGroup(const TileMatMulArgs& args, int64_t tile, TokenGroup group, int pass, int n_passes) {
  if (group.size == kTok) {
    using Kernel = TileKernel<S, kKind, kTok, S::kTiles>;
    if (n_passes <= kMaxPrefetchPasses) {
      Kernel::template Run<true>(args, tile, group.from, pass, n_passes);
    } else {
      Kernel::template Run<false>(args, tile, group.from, pass, n_passes);
    }
  } else if constexpr (kTok > LeastGroup<S>()) {
    RunGroup<S, kKind, kTok - 1>(args, tile, group, pass, n_passes);
  }
}

// Asks for part i of n of what a plane has of the tiles from `tile` on.
template <typename S>
void PrefetchPart(const uint8_t* plane, int64_t tile, int64_t tile_bytes, int i, int n) {
  const int64_t bytes = S::kTiles * tile_bytes;
  const uint8_t* from = plane + tile * tile_bytes;
  for (int64_t at = bytes * i / n / 64 * 64; at < bytes * (i + 1) / n; at += 64) S::PrefetchFar(from + at);
}

template <typename S, TileKind kKind>
void TileMatMul(const TileMatMulArgs& args) {
  constexpr TileFormat kFormat = TileFormatOf(kKind);
  const int n_groups = args.group_to - args.group_from;
  // Groups innermost: the weights of one tile stay in the nearest cache while all tokens pass by.
  for (int64_t tile = args.tile_from; tile < args.tile_to; tile += S::kTiles) {
    if (args.x.n_tok <= S::kSkinny) {
      RunSkinny<S, kKind>(args, tile, {0, args.x.n_tok});
      continue;
    }
    for (int i = 0; i < n_groups; ++i) {
      if (n_groups > kMaxPrefetchPasses && tile + S::kTiles < args.tile_to) {
        // Between the passes, where asking costs the passes nothing.
        const int64_t next = tile + S::kTiles;
        PrefetchPart<S>(args.w.low, next, args.w.n_blocks * kFormat.low_bytes(), i, n_groups);
        PrefetchPart<S>(args.w.high, next, args.w.n_blocks * kFormat.high_bytes(), i, n_groups);
        PrefetchPart<S>(args.w.scale, next, args.w.n_blocks * kFormat.scale_bytes(), i, n_groups);
      }
      RunGroup<S, kKind>(args, tile, GroupOf(args.x.n_tok, args.x.n_groups, args.group_from + i), i, n_groups);
    }
  }
}

template <typename S, TileKind kKind>
void SparseTileMatMul(const SparseTileMatMulArgs& args) {
  for (int64_t i = 0; i < args.n_tiles; ++i) {
    const int64_t next = i + 1 < args.n_tiles ? i + 1 : i;
    TileKernel<S, kKind, 1, 1>::RunListed(args, args.tiles[i], args.tiles[next]);
  }
}

template <typename S>
void QuantizeGroup(const float* x, int size, int64_t n_in, int8_t* q, ActivationBlock* blocks) {
  using F = typename S::F;
  using I = typename S::I;
  constexpr float kLargest = 3.40282347e+38f;
  constexpr float kLeast = 4e-37f;  // below it 127 / max overflows; such a block counts as zero
  for (int t = 0; t < size; ++t) {
    for (int64_t b = 0; b < n_in / kTileBlock; ++b) {
      const F lo = S::Load(x + t * n_in + b * kTileBlock);
      const F hi = S::Load(x + t * n_in + b * kTileBlock + 16);
      const float max = S::MaxAbs(lo, hi);
      ActivationBlock& block = blocks[b * size + t];
      int8_t* codes = q + (b * size + t) * kTileBlock;
      const bool finite = max <= kLargest;
      const float inverse = finite && max >= kLeast ? 127.0f / max : 0.0f;
      const F zero = S::Zero();
      const I ilo = S::ToInt(finite ? S::Mul(lo, S::Set(inverse)) : zero);
      const I ihi = S::ToInt(finite ? S::Mul(hi, S::Set(inverse)) : zero);
      S::StoreI8(codes, ilo);
      S::StoreI8(codes + 16, ihi);
      const int32_t slo = S::SumI(ilo);
      const int32_t shi = S::SumI(ihi);
      block.scale = !finite ? __builtin_nanf("") : inverse == 0.0f ? 0.0f : max / 127.0f;
      block.scaled_sum = block.scale * static_cast<float>(slo + shi);
      block.neg_sum = -(slo + shi);
      block.neg_half_sum[0] = -slo;
      block.neg_half_sum[1] = -shi;
    }
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
  SetKernels<S>(kernels, std::make_integer_sequence<int, kNumTileKinds>());
  kernels.quantize = QuantizeGroup<S>;
  return kernels;
}

}  // namespace
}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_TILE_MATMUL_GENERIC_H_
