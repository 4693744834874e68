// How kernels see the weights of one tile, block by block: as they are packed, or expanded in a cache.
//
// Both kinds of tile offer Codes<kGroup>() (one word: 4 consecutive inputs of 16 outputs; in ascending order of
// groups), Scale(half), Min(half) and Advance(block), and stand at one block at a time.
#ifndef UPDRAFT_KERNELS_CPU_TILE_MATMUL_TILE_READER_H_
#define UPDRAFT_KERNELS_CPU_TILE_MATMUL_TILE_READER_H_

#include <cstdint>

#include "kernels/cpu/tile_matmul/tile_format.h"
#include "kernels/formats/lowbit_blocks.h"

namespace updraft::kernels {
namespace {

#define UPDRAFT_INLINE inline __attribute__((always_inline))

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

template <typename S, TileKind kKind>
struct PackedTile {
  using F = typename S::F;
  using W = typename S::W;
  static constexpr TileFormat kFormat = TileFormatOf(kKind);
  static constexpr int kSuperBlocks = kTileSuperBlock / kTileBlock;

  const uint8_t* low;  // places in the planes
  const uint8_t* high;
  const uint8_t* scale;
  const uint8_t* super;
  W raw;                // 64 bytes of the low plane: one group of 8-bit codes, two of 4-bit or four of 2-bit ones
  W plane;              // 64 bytes of the high plane
  const uint8_t* kept;  // the next code of a format that stores only some

  // At a block of a tile that begins at block `first`.
  UPDRAFT_INLINE void Seek(const TileView& w, int64_t first, int64_t block) {
    low = w.low + (first + block) * kFormat.low_bytes();
    high = w.high + (first + block) * kFormat.high_bytes();
    scale = w.scale + (first + block) * kFormat.scale_bytes();
    super = w.super + (first + block) / kSuperBlocks * kFormat.super_bytes();
  }

  template <int kGroup>
  UPDRAFT_INLINE W LowBits() {
    if constexpr (kFormat.low_bits == 8) {
      return S::LoadW(low + 64 * kGroup);
    } else if constexpr (kFormat.low_bits == 4) {
      if constexpr (kGroup % 2 == 0) raw = S::LoadW(low + 32 * kGroup);
      return kGroup % 2 == 0 ? S::Low4(raw) : S::High4(raw);
    } else {
      if constexpr (kGroup % 4 == 0) raw = S::LoadW(low + 16 * kGroup);
      return S::template TwoBits<2 * (kGroup % 4)>(raw);
    }
  }

  template <int kGroup>
  UPDRAFT_INLINE W KeptCodes() {
    if constexpr (kGroup == 0) kept = low;
    uint64_t mask;
    __builtin_memcpy(&mask, high + 8 * kGroup, 8);
    const W codes = S::Expand(kept, mask, kFormat.offset);
    kept += __builtin_popcountll(mask);
    return codes;
  }

  template <int kGroup>
  UPDRAFT_INLINE W Codes() {
    if constexpr (kFormat.kept) {
      return KeptCodes<kGroup>();
    } else {
      return StoredCodes<kGroup>();
    }
  }

  template <int kGroup>
  UPDRAFT_INLINE W StoredCodes() {
    const W low_bits = LowBits<kGroup>();
    if constexpr (kFormat.table != TileTable::kNone) {
      return S::Lookup(TableCodes(kFormat.table), low_bits);
    } else if constexpr (kFormat.high_bits == 0) {
      return low_bits;
    } else if constexpr (kFormat.high_bits == 1) {
      if constexpr (kGroup == 0) plane = S::LoadW(high);
      return S::template OrPlane<kGroup, kFormat.low_bits, 1>(low_bits, plane);
    } else {
      if constexpr (kGroup % 4 == 0) plane = S::LoadW(high + 16 * kGroup);
      return S::template OrPlane<2 * (kGroup % 4), kFormat.low_bits, 3>(low_bits, plane);
    }
  }

  UPDRAFT_INLINE F Scale(int half) const {
    const auto* f16 = reinterpret_cast<const uint16_t*>(scale);
    const auto* super_f16 = reinterpret_cast<const uint16_t*>(super);
    const auto* i8 = reinterpret_cast<const int8_t*>(scale);
    switch (kFormat.scheme) {
      case TileScheme::kScale32:
      case TileScheme::kScaleMin32:
        return S::LoadF16(f16);
      case TileScheme::kScale32Bf16:
        return S::LoadBf16(f16);
      case TileScheme::kSuper:
        return S::LoadF16(super_f16);
      case TileScheme::kSuperScale32:
      case TileScheme::kSuperScale16:
        return S::Mul(S::LoadF16(super_f16), S::LoadI8(i8 + 16 * half));
      case TileScheme::kSuperScaleMin32:
        return S::Mul(S::LoadF16(super_f16), S::LoadU8(scale));
      case TileScheme::kSuperScaleMin16:
        return S::Mul(S::LoadF16(super_f16), S::LoadLow4(scale + 16 * half));
      case TileScheme::kScale16:
        return S::Load(reinterpret_cast<const float*>(scale) + kTileOutputs * half);
    }
    return S::Zero();
  }

  // Of a format with minima.
  UPDRAFT_INLINE F Min(int half) const {
    const auto* super_min = reinterpret_cast<const uint16_t*>(super) + kTileOutputs;
    switch (kFormat.scheme) {
      case TileScheme::kScaleMin32:
        return S::LoadF16(reinterpret_cast<const uint16_t*>(scale) + kTileOutputs);
      case TileScheme::kSuperScaleMin32:
        return S::Mul(S::LoadF16(super_min), S::LoadU8(scale + kTileOutputs));
      case TileScheme::kSuperScaleMin16:
        return S::Mul(S::LoadF16(super_min), S::LoadHigh4(scale + 16 * half));
      default:
        return S::Zero();
    }
  }

  // From block `block` to the next.
  UPDRAFT_INLINE void Advance(int64_t block) {
    low += kFormat.low_bytes();
    high += kFormat.high_bytes();
    scale += kFormat.scale_bytes();
    if constexpr (kFormat.super_bytes() > 0) {
      if (block % kSuperBlocks == kSuperBlocks - 1) super += kFormat.super_bytes();
    }
  }

  template <int kBytes>
  static UPDRAFT_INLINE void PrefetchLines(const uint8_t* p) {
    if constexpr (kBytes > 0) {
      S::Prefetch(p);
      PrefetchLines<kBytes - 64>(p + 64);
    }
  }

  // Asks for the block that lies so many further on.
  UPDRAFT_INLINE void Prefetch(int64_t blocks) const {
    PrefetchLines<kFormat.low_bytes()>(low + blocks * kFormat.low_bytes());
    PrefetchLines<kFormat.high_bytes()>(high + blocks * kFormat.high_bytes());
    PrefetchLines<(kFormat.scale_bytes() > 0 ? 64 : 0)>(scale + blocks * kFormat.scale_bytes());
  }
};

// Records of one block each: codes as bytes [8 groups][64], scales [halves][16] and minima [halves][16] as floats.
template <typename S, TileKind kKind>
struct ExpandedTile {
  using F = typename S::F;
  using W = typename S::W;
  static constexpr TileFormat kFormat = TileFormatOf(kKind);
  static constexpr int kHalves = kFormat.halves() ? 2 : 1;
  static constexpr int kCodeBytes = kTileOutputs * kTileBlock;
  static constexpr int kScaleBytes = kHalves * kTileOutputs * static_cast<int>(sizeof(float));
  static constexpr int kRecordBytes = kCodeBytes + (kFormat.has_min() ? 2 : 1) * kScaleBytes;

  const uint8_t* record;

  template <int kGroup>
  UPDRAFT_INLINE W Codes() {
    return S::LoadW(record + 64 * kGroup);
  }
  UPDRAFT_INLINE F Scale(int half) const {
    return S::Load(reinterpret_cast<const float*>(record + kCodeBytes) + kTileOutputs * half);
  }
  UPDRAFT_INLINE F Min(int half) const {
    return S::Load(reinterpret_cast<const float*>(record + kCodeBytes + kScaleBytes) + kTileOutputs * half);
  }
  UPDRAFT_INLINE void Advance(int64_t /*block*/) { record += kRecordBytes; }

  template <int kGroup = 0>
  static UPDRAFT_INLINE void WriteCodes(PackedTile<S, kKind>& from, uint8_t* to) {
    if constexpr (kGroup < 8) {
      S::StoreW(to + 64 * kGroup, from.template Codes<kGroup>());
      WriteCodes<kGroup + 1>(from, to);
    }
  }

  // Writes the record of the block at which `from` stands.
  static UPDRAFT_INLINE void Write(PackedTile<S, kKind>& from, uint8_t* to) {
    WriteCodes(from, to);
    auto* floats = reinterpret_cast<float*>(to + kCodeBytes);
    for (int half = 0; half < kHalves; ++half) {
      S::Store(floats + kTileOutputs * half, from.Scale(half));
      if constexpr (kFormat.has_min()) S::Store(floats + kTileOutputs * (kHalves + half), from.Min(half));
    }
  }
};

}  // namespace
}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_TILE_MATMUL_TILE_READER_H_
