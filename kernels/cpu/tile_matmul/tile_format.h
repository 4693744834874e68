// The layout of quantized weights in memory, the same for every instruction set: nothing of the file is lost and
// nothing is rounded; codes and scales are only moved.
//
// W [n_out, n_in] is cut into tiles of 16 outputs. A tile holds all n_in inputs, in blocks of 32. Outputs lie in vector
// lanes: one 64-byte word holds 4 consecutive inputs of the 16 outputs, which is what integer dot product instructions
// take, so that no sum ever runs across lanes. The parts of a block lie in planes of their own, so that each plane is
// read as one aligned sequential stream:
//
//   low    [n_tiles][n_in/32][8 groups of 4 inputs]: codes, or their low 4 or 2 bits
//            8-bit: group g is 64 bytes,  byte 4*out + j = code of input 4g + j
//            4-bit: groups 2r, 2r+1 share 64 bytes: low nibbles are group 2r, high nibbles group 2r + 1
//            2-bit: groups 4r .. 4r+3 share 64 bytes: bits 2i, 2i + 1 are group 4r + i
//            kept 8-bit: 256 bytes: the codes other than 0's, of the byte positions in ascending order, group by group;
//            fewer leave the end unused
//   high   [n_tiles][n_in/32]: the codes' bits above those, bit-planes over the same 64 byte positions
//            1 bit: 64 bytes; bit g of byte p belongs to byte p of group g
//            2 bits: 128 bytes; bits 2(g%4), 2(g%4)+1 of byte 64(g/4) + p belong to byte p of group g
//            kept 8-bit: 64 bytes; bit p of the 64-bit integer (little-endian) g: byte p of group g has a code in low
//   scale  [n_tiles][n_in/32]: what changes from block to block
//            kScale32          16 x f16 d
//            kScale32Bf16      16 x bf16 d
//            kScaleMin32       16 x f16 d, 16 x f16 m
//            kSuperScale32     16 x i8 scale
//            kSuperScaleMin32  16 x u8 scale, 16 x u8 min
//            kSuperScale16     16 x i8 scale of inputs 0..15, 16 x i8 scale of inputs 16..31
//            kSuperScaleMin16  16 x (scale in the low nibble, min in the high one) of inputs 0..15, 16 of inputs 16..31
//            kScale16          16 x f32 scale of inputs 0..15, 16 x f32 scale of inputs 16..31
//   super  [n_tiles][n_in/256]: what changes every 256 inputs
//            kSuper, kSuperScale*      16 x f16 d
//            kSuperScaleMin*           16 x f16 d, 16 x f16 dmin
//
// Codes are unsigned; the weight is scale * (code - offset) [- or + min]. A format with a table keeps 4-bit indices, of
// which the table makes codes. The number of tiles is rounded up to an even number; outputs beyond n_out have zero
// scales.
#ifndef UPDRAFT_KERNELS_CPU_TILE_MATMUL_TILE_FORMAT_H_
#define UPDRAFT_KERNELS_CPU_TILE_MATMUL_TILE_FORMAT_H_

#include <cstddef>
#include <cstdint>

#include "kernels/formats/dtype.h"

namespace updraft::kernels {

// Of all that decides what bytes TiledWeights makes and what they mean. They are kept on disk, where this number tells
// whether they can still be read: count it up with every change (packed_bytes_test notices one).
inline constexpr uint32_t kTileLayoutVersion = 1;

inline constexpr int kTileOutputs = 16;
inline constexpr int kTileBlock = 32;        // inputs
inline constexpr int kTileSuperBlock = 256;  // inputs
inline constexpr int kSpanBlocks = 4;        // whose activations share a scale where weights come in super-blocks

enum class TileScheme {
  kScale32,
  kScale32Bf16,
  kScaleMin32,
  kSuper,
  kSuperScale32,
  kSuperScaleMin32,
  kSuperScale16,
  kSuperScaleMin16,
  kScale16
};

// kIq4: kIq4Values; kE2M1: kE2M1Doubled (formats/lowbit_blocks.h).
enum class TileTable { kNone, kIq4, kE2M1 };

struct TileFormat {
  int low_bits;   // 2, 4 or 8
  int high_bits;  // 0, 1, 2
  TileScheme scheme;
  int offset;  // subtracted from a code
  TileTable table = TileTable::kNone;
  bool kept = false;  // at most half of an output's codes in a block are other than 0's, and only these are stored

  // Per tile and block.
  constexpr int low_bytes() const { return low_bits * kTileOutputs * kTileBlock / (kept ? 16 : 8); }
  constexpr int high_bytes() const {
    return kept ? kTileOutputs * kTileBlock / 8 : high_bits * kTileOutputs * kTileBlock / 8;
  }
  constexpr int scale_bytes() const {  // per tile and block
    switch (scheme) {
      case TileScheme::kSuper:
        return 0;
      case TileScheme::kSuperScale32:
        return 16;
      case TileScheme::kScaleMin32:
        return 64;
      case TileScheme::kScale16:
        return 128;
      default:
        return 32;
    }
  }
  constexpr int super_bytes() const {  // per tile and super-block
    switch (scheme) {
      case TileScheme::kSuper:
      case TileScheme::kSuperScale32:
      case TileScheme::kSuperScale16:
        return 32;
      case TileScheme::kSuperScaleMin32:
      case TileScheme::kSuperScaleMin16:
        return 64;
      default:
        return 0;
    }
  }
  constexpr int max_code() const {
    return table == TileTable::kIq4 ? 255 : table == TileTable::kE2M1 ? 31 : (1 << (low_bits + high_bits)) - 1;
  }
  constexpr bool has_min() const {
    return scheme == TileScheme::kScaleMin32 || scheme == TileScheme::kSuperScaleMin32 ||
           scheme == TileScheme::kSuperScaleMin16;
  }
  // Blocks whose activations share one scale. Per block that costs a multiplication of the two scales for every output
  // and token; formats of super-blocks, which have most to do per block besides, share it between several.
  constexpr int span_blocks() const { return super_bytes() > 0 ? kSpanBlocks : 1; }
  // Scales differ between the halves of a block.
  constexpr bool halves() const {
    return scheme == TileScheme::kSuperScale16 || scheme == TileScheme::kSuperScaleMin16 ||
           scheme == TileScheme::kScale16;
  }
};

// Which layout there is; several file formats may share one. A kernel is compiled for each.
enum class TileKind : uint8_t {
  k8,          // q8_0; q8_2of4, q8_16of32 with their zeros
  k8Kept,      // q8_2of4, q8_16of32 without
  k4,          // q4_0
  k4Min,       // q4_1
  k5,          // q5_0
  k5Min,       // q5_1
  k2,          // q1_0, q2_0
  k2Super,     // tq1_0, tq2_0
  k2SuperMin,  // q2_k
  k3Super,     // q3_k
  k4Super,     // q4_k
  k5Super,     // q5_k
  k6Super,     // q6_k
  kIq4,        // iq4_nl
  kIq4Super,   // iq4_xs
  kMx4,        // mxfp4
  kNv4,        // nvfp4
  kGeneral,    // every other format of integers times a scale
};

inline constexpr int kNumTileKinds = 18;

constexpr TileFormat TileFormatOf(TileKind kind) {
  switch (kind) {
    case TileKind::k8:
      return {8, 0, TileScheme::kScale32, 128};
    case TileKind::k8Kept:
      return {8, 0, TileScheme::kScale32, 128, TileTable::kNone, true};
    case TileKind::k4:
      return {4, 0, TileScheme::kScale32, 8};
    case TileKind::k4Min:
      return {4, 0, TileScheme::kScaleMin32, 0};
    case TileKind::k5:
      return {4, 1, TileScheme::kScale32, 16};
    case TileKind::k5Min:
      return {4, 1, TileScheme::kScaleMin32, 0};
    case TileKind::k2:
      return {2, 0, TileScheme::kScale32, 1};
    case TileKind::k2Super:
      return {2, 0, TileScheme::kSuper, 1};
    case TileKind::k2SuperMin:
      return {2, 0, TileScheme::kSuperScaleMin16, 0};
    case TileKind::k3Super:
      return {2, 1, TileScheme::kSuperScale16, 4};
    case TileKind::k4Super:
      return {4, 0, TileScheme::kSuperScaleMin32, 0};
    case TileKind::k5Super:
      return {4, 1, TileScheme::kSuperScaleMin32, 0};
    case TileKind::k6Super:
      return {4, 2, TileScheme::kSuperScale16, 32};
    case TileKind::kIq4:
      return {4, 0, TileScheme::kScale32, 128, TileTable::kIq4};
    case TileKind::kIq4Super:
      return {4, 0, TileScheme::kSuperScale32, 128, TileTable::kIq4};
    case TileKind::kMx4:
      return {4, 0, TileScheme::kScale32Bf16, 16, TileTable::kE2M1};
    case TileKind::kNv4:
      return {4, 0, TileScheme::kScale16, 16, TileTable::kE2M1};
    case TileKind::kGeneral:
      return {8, 0, TileScheme::kScale16, 128};
  }
  return {};
}

constexpr bool IsTiled(DType type) { return type != DType::kF32 && type != DType::kF16 && type != DType::kBF16; }

constexpr bool KeepsHalf(DType type) { return type == DType::kQ8_2of4 || type == DType::kQ8_16of32; }

// The layout of a type for which IsTiled; of one that KeepsHalf there is also k8Kept.
constexpr TileKind TileKindOf(DType type) {
  switch (type) {
    case DType::kQ8_0:
    case DType::kQ8_2of4:  // elements that were left out have the code of 0: the same product, read as a whole
    case DType::kQ8_16of32:
      return TileKind::k8;
    case DType::kQ4_0:
      return TileKind::k4;
    case DType::kQ4_1:
      return TileKind::k4Min;
    case DType::kQ5_0:
      return TileKind::k5;
    case DType::kQ5_1:
      return TileKind::k5Min;
    case DType::kQ1_0:
    case DType::kQ2_0:
      return TileKind::k2;
    case DType::kTQ1_0:
    case DType::kTQ2_0:
      return TileKind::k2Super;
    case DType::kQ2_K:
      return TileKind::k2SuperMin;
    case DType::kQ3_K:
      return TileKind::k3Super;
    case DType::kQ4_K:
      return TileKind::k4Super;
    case DType::kQ5_K:
      return TileKind::k5Super;
    case DType::kQ6_K:
      return TileKind::k6Super;
    case DType::kIQ4_NL:
      return TileKind::kIq4;
    case DType::kIQ4_XS:
      return TileKind::kIq4Super;
    case DType::kMXFP4:
      return TileKind::kMx4;
    case DType::kNVFP4:
      return TileKind::kNv4;
    default:
      return TileKind::kGeneral;
  }
}

// Pointers into packed weights; not owning.
struct TileView {
  const uint8_t* low = nullptr;
  const uint8_t* high = nullptr;
  const uint8_t* scale = nullptr;
  const uint8_t* super = nullptr;
  int64_t n_blocks = 0;  // n_in / 32
};

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_TILE_MATMUL_TILE_FORMAT_H_
