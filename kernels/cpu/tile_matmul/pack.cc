#include "kernels/cpu/tile_matmul/pack.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "kernels/cpu/work_split.h"
#include "kernels/formats/blocks.h"
#include "kernels/formats/codec.h"
#include "kernels/formats/lowbit_blocks.h"

namespace updraft::kernels {
namespace {

// A few hundred, so that threads end together.
constexpr int kPackChunks = 256;

// One output's block of 32 inputs, as the file states it.
struct Block32 {
  uint8_t codes[kTileBlock];  // unsigned, TileFormat::offset not subtracted; indices where the format has a table
  uint16_t d = 0;             // kScale32, kScaleMin32: f16; kScale32Bf16: bf16
  uint16_t m = 0;             // kScaleMin32: f16
  uint8_t scale[2] = {};      // kSuperScale32: a signed scale; kSuperScaleMin32: scale, min; kSuperScale16: two signed
                              // scales; kSuperScaleMin16: two bytes of scale and min
  uint16_t super_d = 0;       // kSuper*: f16, the same for all blocks of 256 inputs
  uint16_t super_min = 0;     // kSuperScaleMin*: f16
  float half_scale[2] = {};   // kScale16
};

void NibbleHalves(const uint8_t* qs, uint8_t* codes) {
  for (int i = 0; i < 16; ++i) {
    codes[i] = qs[i] & 15;
    codes[i + 16] = qs[i] >> 4;
  }
}

void AddFifthBit(const uint8_t* qh, uint8_t* codes) {
  for (int i = 0; i < 32; ++i) codes[i] |= static_cast<uint8_t>((qh[i / 8] >> (i % 8) & 1) << 4);
}

void Read(const BlockQ8_0& in, int /*part*/, Block32& out) {
  for (int i = 0; i < 32; ++i) out.codes[i] = static_cast<uint8_t>(in.qs[i] + 128);
  out.d = in.d;
}

void Read(const BlockQ4_0& in, int /*part*/, Block32& out) {
  NibbleHalves(in.qs, out.codes);
  out.d = in.d;
}

void Read(const BlockQ4_1& in, int /*part*/, Block32& out) {
  NibbleHalves(in.qs, out.codes);
  out.d = in.d;
  out.m = in.m;
}

void Read(const BlockQ5_0& in, int /*part*/, Block32& out) {
  NibbleHalves(in.qs, out.codes);
  AddFifthBit(in.qh, out.codes);
  out.d = in.d;
}

void Read(const BlockQ5_1& in, int /*part*/, Block32& out) {
  NibbleHalves(in.qs, out.codes);
  AddFifthBit(in.qh, out.codes);
  out.d = in.d;
  out.m = in.m;
}

template <typename Block>
void ReadGroupScale(const Block& in, int part, Block32& out) {
  const GroupScale group = UnpackGroupScale(in.scales, part);
  out.scale[0] = group.scale;
  out.scale[1] = group.min;
  out.super_d = in.d;
  out.super_min = in.dmin;
  const uint8_t* run = in.qs + part / 2 * 32;
  for (int i = 0; i < 32; ++i) out.codes[i] = part % 2 == 0 ? run[i] & 15 : run[i] >> 4;
}

void Read(const BlockQ4_K& in, int part, Block32& out) { ReadGroupScale(in, part, out); }

void Read(const BlockQ5_K& in, int part, Block32& out) {
  ReadGroupScale(in, part, out);
  for (int i = 0; i < 32; ++i) out.codes[i] |= static_cast<uint8_t>((in.qh[i] >> part & 1) << 4);
}

void Read(const BlockQ6_K& in, int part, Block32& out) {
  const int half = part / 4;
  const int quarter = part % 4;
  const uint8_t* ql = in.ql + 64 * half + 32 * (quarter % 2);
  const uint8_t* qh = in.qh + 32 * half;
  for (int i = 0; i < 32; ++i) {
    const int low = quarter < 2 ? ql[i] & 15 : ql[i] >> 4;
    out.codes[i] = static_cast<uint8_t>(low | (qh[i] >> (2 * quarter) & 3) << 4);
  }
  std::memcpy(out.scale, in.scales + 2 * part, 2);
  out.super_d = in.d;
}

void Read(const BlockQ2_K& in, int part, Block32& out) {
  for (int i = 0; i < 32; ++i) out.codes[i] = in.qs[32 * (part / 4) + i] >> (2 * (part % 4)) & 3;
  std::memcpy(out.scale, in.scales + 2 * part, 2);
  out.super_d = in.d;
  out.super_min = in.dmin;
}

void Read(const BlockQ3_K& in, int part, Block32& out) {
  for (int i = 0; i < 32; ++i) {
    const int low = in.qs[32 * (part / 4) + i] >> (2 * (part % 4)) & 3;
    out.codes[i] = static_cast<uint8_t>(low | (in.hmask[i] >> part & 1) << 2);
  }
  for (int half = 0; half < 2; ++half) {
    out.scale[half] = static_cast<uint8_t>(UnpackScale3(in.scales, 2 * part + half));
  }
  out.super_d = in.d;
}

void Read(const BlockIQ4_NL& in, int /*part*/, Block32& out) {
  NibbleHalves(in.qs, out.codes);
  out.d = in.d;
}

void Read(const BlockIQ4_XS& in, int part, Block32& out) {
  NibbleHalves(in.qs + 16 * part, out.codes);
  const int scale = (in.scales_l[part / 2] >> (4 * (part % 2)) & 15) | (in.scales_h >> (2 * part) & 3) << 4;
  out.scale[0] = static_cast<uint8_t>(scale - 32);
  out.super_d = in.d;
}

void Read(const BlockMXFP4& in, int /*part*/, Block32& out) {
  NibbleHalves(in.qs, out.codes);
  int8_t codes[32];
  float scales[2];
  UnpackRow(DType::kMXFP4, &in, codes, scales, 32);
  out.d = F32ToBF16(scales[0]);  // exact: a power of two
}

void Read(const BlockNVFP4& in, int part, Block32& out) {
  for (int half = 0; half < 2; ++half) {
    const uint8_t* qs = in.qs + 8 * (2 * part + half);
    for (int i = 0; i < 8; ++i) {
      out.codes[16 * half + i] = qs[i] & 15;
      out.codes[16 * half + 8 + i] = qs[i] >> 4;
    }
  }
  int8_t codes[64];
  float scales[4];
  UnpackRow(DType::kNVFP4, &in, codes, scales, 64);
  std::memcpy(out.half_scale, scales + 2 * part, sizeof(out.half_scale));
}

// Reads one block of the file, whose parts of 32 inputs go to out[0], out[1], ...
using ReadFunction = void (*)(DType type, const uint8_t* bytes, Block32* out);

template <typename Block>
void ReadParts(DType /*type*/, const uint8_t* bytes, Block32* out) {
  Block in;
  std::memcpy(&in, bytes, sizeof(Block));
  for (int part = 0; part < Block::kElems / kTileBlock; ++part) Read(in, part, out[part]);
}

// Any format of integers times a scale.
void ReadIntegers(DType type, const uint8_t* bytes, Block32* out) {
  const TileFormat format = TileFormatOf(TileKindOf(type));
  int8_t codes[kTileSuperBlock];
  float scales[kTileSuperBlock / 16];
  const int n = Info(type).block_elems;
  UnpackRow(type, bytes, codes, scales, n);
  for (int part = 0; part < n / kTileBlock; ++part) {
    for (int i = 0; i < kTileBlock; ++i) {
      out[part].codes[i] = static_cast<uint8_t>(codes[part * kTileBlock + i] + format.offset);
    }
    // Exact where the layout takes it from here: it was an f16 in the file.
    out[part].d = out[part].super_d = F32ToF16(scales[2 * part]);
    std::memcpy(out[part].half_scale, scales + 2 * part, sizeof(out[part].half_scale));
  }
}

ReadFunction ReaderOf(DType type) {
  switch (type) {
    case DType::kQ8_0:
      return ReadParts<BlockQ8_0>;
    case DType::kQ4_0:
      return ReadParts<BlockQ4_0>;
    case DType::kQ4_1:
      return ReadParts<BlockQ4_1>;
    case DType::kQ5_0:
      return ReadParts<BlockQ5_0>;
    case DType::kQ5_1:
      return ReadParts<BlockQ5_1>;
    case DType::kQ2_K:
      return ReadParts<BlockQ2_K>;
    case DType::kQ3_K:
      return ReadParts<BlockQ3_K>;
    case DType::kQ4_K:
      return ReadParts<BlockQ4_K>;
    case DType::kQ5_K:
      return ReadParts<BlockQ5_K>;
    case DType::kQ6_K:
      return ReadParts<BlockQ6_K>;
    case DType::kIQ4_NL:
      return ReadParts<BlockIQ4_NL>;
    case DType::kIQ4_XS:
      return ReadParts<BlockIQ4_XS>;
    case DType::kMXFP4:
      return ReadParts<BlockMXFP4>;
    case DType::kNVFP4:
      return ReadParts<BlockNVFP4>;
    default:
      return ReadIntegers;
  }
}

uint32_t FourCodes(const Block32& block, int group) {
  uint32_t four;
  std::memcpy(&four, block.codes + 4 * group, 4);
  return four;
}

// Where one block of one tile goes.
struct BlockPlanes {
  uint8_t* low;
  uint8_t* high;
  uint8_t* scale;
  uint8_t* super;
};

// 8 / bits groups share a word of 64 bytes.
void WriteLow(const TileFormat& format, const Block32& block, int out, uint8_t* low) {
  const int bits = format.low_bits;
  const int groups = 8 / bits;
  const uint32_t mask = 0x01010101u * ((1u << bits) - 1);
  for (int word = 0; word < 8 / groups; ++word) {
    uint32_t four = 0;
    for (int i = 0; i < groups; ++i) four |= (FourCodes(block, groups * word + i) & mask) << (bits * i);
    std::memcpy(low + 64 * word + 4 * out, &four, 4);
  }
}

void WriteHigh(const TileFormat& format, const Block32& block, int out, uint8_t* high) {
  const int bits = format.high_bits;
  if (bits == 0) return;
  const int groups = 8 / bits;
  const uint32_t mask = 0x01010101u * ((1u << bits) - 1);
  for (int word = 0; word < 8 / groups; ++word) {
    uint32_t four = 0;
    for (int i = 0; i < groups; ++i) {
      four |= (FourCodes(block, groups * word + i) >> format.low_bits & mask) << (bits * i);
    }
    std::memcpy(high + 64 * word + 4 * out, &four, 4);
  }
}

void WriteScales(const TileFormat& format, const Block32& block, int out, const BlockPlanes& to) {
  const auto put_scales = [&](int n) {
    for (int i = 0; i < n; ++i) to.scale[16 * i + out] = block.scale[i];
  };
  if (format.super_bytes() > 0) std::memcpy(to.super + 2 * out, &block.super_d, 2);
  if (format.super_bytes() > 32) std::memcpy(to.super + 32 + 2 * out, &block.super_min, 2);
  switch (format.scheme) {
    case TileScheme::kScaleMin32:
      std::memcpy(to.scale + 32 + 2 * out, &block.m, 2);
      [[fallthrough]];
    case TileScheme::kScale32:
    case TileScheme::kScale32Bf16:
      std::memcpy(to.scale + 2 * out, &block.d, 2);
      break;
    case TileScheme::kSuper:
      break;
    case TileScheme::kSuperScale32:
      put_scales(1);
      break;
    case TileScheme::kSuperScaleMin32:
    case TileScheme::kSuperScale16:
    case TileScheme::kSuperScaleMin16:
      put_scales(2);
      break;
    case TileScheme::kScale16:
      for (int half = 0; half < 2; ++half) std::memcpy(to.scale + 64 * half + 4 * out, &block.half_scale[half], 4);
      break;
  }
}

// The codes of all outputs of a block that are not 0's, at most half of each output's.
void WriteKept(const TileFormat& format, const Block32 (&block)[kTileOutputs], const BlockPlanes& to) {
  uint8_t* next = to.low;
  for (int group = 0; group < kTileBlock / 4; ++group) {
    uint64_t mask = 0;
    for (int p = 0; p < 4 * kTileOutputs; ++p) {
      const uint8_t code = block[p / 4].codes[4 * group + p % 4];
      if (code == format.offset) continue;
      mask |= uint64_t{1} << p;
      *next++ = code;
    }
    for (int i = 0; i < 8; ++i) to.high[8 * group + i] = static_cast<uint8_t>(mask >> (8 * i));
  }
  std::fill(next, to.low + format.low_bytes(), uint8_t{0});
}

int64_t TilesOf(int64_t n_out) { return (n_out + 2 * kTileOutputs - 1) / (2 * kTileOutputs) * 2; }

// Bytes of the planes.
struct PlaneSizes {
  PlaneSizes(TileKind kind, int64_t n_tiles, int64_t n_in) {
    const TileFormat format = TileFormatOf(kind);
    const int64_t n_blocks = n_in / kTileBlock;
    low = n_tiles * n_blocks * format.low_bytes();
    high = n_tiles * n_blocks * format.high_bytes();
    scale = n_tiles * n_blocks * format.scale_bytes();
    super = format.super_bytes() == 0 ? 0 : n_tiles * (n_in / kTileSuperBlock) * format.super_bytes();
  }
  size_t total() const { return low + high + scale + super; }

  size_t low, high, scale, super;
};

}  // namespace

TiledWeights::TiledWeights(TileKind kind, int64_t n_out, int64_t n_in) : kind_(kind), n_tiles_(TilesOf(n_out)) {
  const PlaneSizes sizes(kind, n_tiles_, n_in);
  buffer_ = AlignedBuffer(sizes.total());
  const uint8_t* low = buffer_.data();
  const uint8_t* high = low + sizes.low;
  const uint8_t* scale = high + sizes.high;
  view_ = {low, high, scale, scale + sizes.scale, n_in / kTileBlock};
}

size_t TiledWeights::SizeOf(TileKind kind, int64_t n_out, int64_t n_in) {
  return PlaneSizes(kind, TilesOf(n_out), n_in).total();
}

std::optional<TiledWeights> TiledWeights::FromSource(TileKind kind, int64_t n_out, int64_t n_in, PackedSource& source,
                                                     ThreadPool& pool) {
  TiledWeights weights(kind, n_out, n_in);
  const size_t bytes = weights.bytes();
  const auto n_pieces = static_cast<int>((bytes + kPackedPiece - 1) / kPackedPiece);
  weights.TouchNearReaders(pool);
  std::atomic<bool> ok = true;
  pool.Run(n_pieces, [&](int piece, int) {
    const size_t at = static_cast<size_t>(piece) * kPackedPiece;
    if (!ok.load(std::memory_order_relaxed)) return;
    if (!source.Read(at, {weights.buffer_.data() + at, std::min(kPackedPiece, bytes - at)})) ok = false;
  });
  if (!ok) return std::nullopt;
  return weights;
}

void TiledWeights::TouchNearReaders(ThreadPool& pool) {
  if (!pool.pins()) return;
  constexpr size_t kPage = 4096;
  const uint8_t* const end = buffer_.data() + buffer_.size();
  const uint8_t* const planes[] = {view_.low, view_.high, view_.scale, view_.super, end};
  const int64_t n_pairs = n_tiles_ / 2;
  const int n_ranges = NumRanges(n_pairs, static_cast<int64_t>(buffer_.size()), pool.n_threads());
  pool.Run(n_ranges, [&](int range, int) {
    for (int i = 0; i < 4; ++i) {
      const int64_t of_pair = (planes[i + 1] - planes[i]) / n_pairs;
      const size_t from = planes[i] - buffer_.data() + of_pair * (n_pairs * range / n_ranges);
      const size_t to = planes[i] - buffer_.data() + of_pair * (n_pairs * (range + 1) / n_ranges);
      for (size_t at = from; at < to; at += kPage) buffer_.data()[at] = 0;
    }
  });
}

TiledWeights::TiledWeights(DType type, TileKind kind, int64_t n_out, int64_t n_in, const void* data, ThreadPool& pool)
    : TiledWeights(kind, n_out, n_in) {
  const TileFormat format = TileFormatOf(kind);
  const int64_t n_blocks = view_.n_blocks;
  const int64_t n_supers = format.super_bytes() == 0 ? 0 : n_in / kTileSuperBlock;
  uint8_t* const low = buffer_.data();
  uint8_t* const high = low + (view_.high - view_.low);
  uint8_t* const scale = low + (view_.scale - view_.low);
  uint8_t* const super = low + (view_.super - view_.low);

  const ReadFunction read = ReaderOf(type);
  const size_t row_bytes = RowBytes(type, n_in);
  const auto* rows = static_cast<const uint8_t*>(data);
  const int n_parts = Info(type).block_elems / kTileBlock;
  const size_t block_bytes = static_cast<size_t>(Info(type).block_bytes);
  // The system puts a page near the thread that writes it first, and nothing has touched the buffer so far. So the
  // matrix is cut as products cut it, each range in equal parts: a thread packs what lies in its own segment of the
  // product. Where a thread packs for another that is late, or a huge page belongs to two, that page lies far from its
  // reader, which costs time alone; the threads of a pool that does not pin move about in any case.
  const int64_t n_pairs = n_tiles_ / 2;
  const int n_ranges = NumRanges(n_pairs, static_cast<int64_t>(buffer_.size()), pool.n_threads());
  const auto parts = static_cast<int>(std::clamp<int64_t>(kPackChunks / n_ranges, 1, n_pairs / n_ranges));
  const int n_chunks = n_ranges * parts;
  pool.Run(n_chunks, [&](int chunk, int) {
    const int64_t tile_to = 2 * (n_pairs * (chunk + 1) / n_chunks);
    for (int64_t tile = 2 * (n_pairs * chunk / n_chunks); tile < tile_to; ++tile) {
      for (int64_t block = 0; block < n_blocks; block += n_parts) {
        Block32 whole[kTileOutputs];  // of a kept format, which has one part
        for (int out = 0; out < kTileOutputs; ++out) {
          const int64_t row = tile * kTileOutputs + out;
          Block32 parts[kTileSuperBlock / kTileBlock] = {};
          if (row < n_out) {
            read(type, rows + row * row_bytes + block / n_parts * block_bytes, parts);
          } else if (format.kept) {
            std::fill_n(parts[0].codes, kTileBlock, static_cast<uint8_t>(format.offset));
          }
          for (int part = 0; part < n_parts; ++part) {
            const int64_t at = tile * n_blocks + block + part;
            const int64_t super_at =
                n_supers == 0 ? 0 : tile * n_supers + (block + part) / (kTileSuperBlock / kTileBlock);
            const BlockPlanes to{low + at * format.low_bytes(), high + at * format.high_bytes(),
                                 scale + at * format.scale_bytes(), super + super_at * format.super_bytes()};
            WriteScales(format, parts[part], out, to);
            if (format.kept) {
              whole[out] = parts[part];
              if (out == kTileOutputs - 1) WriteKept(format, whole, to);
            } else {
              WriteLow(format, parts[part], out, to.low);
              WriteHigh(format, parts[part], out, to.high);
            }
          }
        }
      }
    }
  });
}

void TiledWeights::AddRanges(int64_t tile, int64_t bytes, int thread, MemoryAhead& ahead) const {
  const uint8_t* const end = buffer_.data() + buffer_.size();
  const uint8_t* const planes[] = {view_.low, view_.high, view_.scale, view_.super, end};
  const auto tile_bytes = static_cast<int64_t>(buffer_.size()) / n_tiles_;
  for (int i = 0; i < 4; ++i) {
    const int64_t of_tile = (planes[i + 1] - planes[i]) / n_tiles_;
    const uint8_t* from = planes[i] + tile * of_tile;
    ahead.Add(thread, {from, std::min(bytes * of_tile / tile_bytes, static_cast<int64_t>(planes[i + 1] - from))});
  }
}

}  // namespace updraft::kernels
