#include "kernels/cpu/tile_matmul/pack.h"

#include <algorithm>
#include <cstring>

#include "kernels/formats/blocks.h"
#include "kernels/formats/codec.h"

namespace updraft::kernels {
namespace {

// One output's block of 32 inputs, as the file states it.
struct Block32 {
  uint8_t codes[kTileBlock];  // unsigned, TileFormat::offset not subtracted
  uint16_t d = 0;             // kScale32, kScaleMin32: f16
  uint16_t m = 0;             // kScaleMin32: f16
  uint8_t scale[2] = {};      // kSuperScaleMin32: scale, min; kSuperScale16: two signed scales
  uint16_t super_d = 0;       // kSuper*: f16, the same for all blocks of 256 inputs
  uint16_t super_min = 0;     // kSuperScaleMin32: f16
  float half_scale[2] = {};   // kScale16, kScaleMin16
  float half_min[2] = {};     // kScaleMin16: subtracted
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
  const float d = F16ToF32(in.d);
  const float dmin = F16ToF32(in.dmin);
  for (int half = 0; half < 2; ++half) {
    const uint8_t group = in.scales[2 * part + half];
    out.half_scale[half] = d * static_cast<float>(group & 15);
    out.half_min[half] = dmin * static_cast<float>(group >> 4);
  }
  for (int i = 0; i < 32; ++i) out.codes[i] = in.qs[32 * (part / 4) + i] >> (2 * (part % 4)) & 3;
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
    out[part].d = F32ToF16(scales[2 * part]);  // exact where the layout takes it from here: it was an f16 in the file
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

void WriteLow(const TileFormat& format, const Block32& block, int out, uint8_t* low) {
  if (format.low_bits == 8) {
    for (int g = 0; g < 8; ++g) std::memcpy(low + 64 * g + 4 * out, block.codes + 4 * g, 4);
    return;
  }
  for (int r = 0; r < 4; ++r) {
    const uint32_t nibbles = (FourCodes(block, 2 * r) & 0x0f0f0f0fu) | (FourCodes(block, 2 * r + 1) & 0x0f0f0f0fu) << 4;
    std::memcpy(low + 64 * r + 4 * out, &nibbles, 4);
  }
}

void WriteHigh(const TileFormat& format, const Block32& block, int out, uint8_t* high) {
  if (format.high_bits == 1) {
    uint32_t bits = 0;
    for (int g = 0; g < 8; ++g) bits |= (FourCodes(block, g) >> 4 & 0x01010101u) << g;
    std::memcpy(high + 4 * out, &bits, 4);
  } else if (format.high_bits == 2) {
    for (int half = 0; half < 2; ++half) {
      uint32_t bits = 0;
      for (int g = 0; g < 4; ++g) bits |= (FourCodes(block, 4 * half + g) >> 4 & 0x03030303u) << (2 * g);
      std::memcpy(high + 64 * half + 4 * out, &bits, 4);
    }
  }
}

void WriteScales(const TileFormat& format, const Block32& block, int out, const BlockPlanes& to) {
  switch (format.scheme) {
    case TileScheme::kScaleMin16:
      for (int half = 0; half < 2; ++half) {
        std::memcpy(to.scale + 128 + 64 * half + 4 * out, &block.half_min[half], 4);
      }
      [[fallthrough]];
    case TileScheme::kScale16:
      for (int half = 0; half < 2; ++half) std::memcpy(to.scale + 64 * half + 4 * out, &block.half_scale[half], 4);
      break;
    case TileScheme::kScaleMin32:
      std::memcpy(to.scale + 32 + 2 * out, &block.m, 2);
      [[fallthrough]];
    case TileScheme::kScale32:
      std::memcpy(to.scale + 2 * out, &block.d, 2);
      break;
    case TileScheme::kSuperScaleMin32:
      std::memcpy(to.super + 32 + 2 * out, &block.super_min, 2);
      [[fallthrough]];
    case TileScheme::kSuperScale16:
      to.scale[out] = block.scale[0];
      to.scale[16 + out] = block.scale[1];
      std::memcpy(to.super + 2 * out, &block.super_d, 2);
      break;
  }
}

}  // namespace

TiledWeights::TiledWeights(DType type, int64_t n_out, int64_t n_in, const void* data, ThreadPool& pool) {
  const TileFormat format = TileFormatOf(TileKindOf(type));
  const int64_t n_blocks = n_in / kTileBlock;
  const int64_t n_supers = format.super_bytes() == 0 ? 0 : n_in / kTileSuperBlock;
  n_tiles_ = (n_out + 2 * kTileOutputs - 1) / (2 * kTileOutputs) * 2;

  const size_t low_bytes = n_tiles_ * n_blocks * format.low_bytes();
  const size_t high_bytes = n_tiles_ * n_blocks * format.high_bytes();
  const size_t scale_bytes = n_tiles_ * n_blocks * format.scale_bytes();
  const size_t super_bytes = n_tiles_ * n_supers * format.super_bytes();
  buffer_ = AlignedBuffer(low_bytes + high_bytes + scale_bytes + super_bytes);
  uint8_t* low = buffer_.data();
  uint8_t* high = low + low_bytes;
  uint8_t* scale = high + high_bytes;
  uint8_t* super = scale + scale_bytes;
  view_ = {low, high, scale, super, n_blocks};

  const ReadFunction read = ReaderOf(type);
  const size_t row_bytes = RowBytes(type, n_in);
  const auto* rows = static_cast<const uint8_t*>(data);
  const int n_parts = Info(type).block_elems / kTileBlock;
  const size_t block_bytes = static_cast<size_t>(Info(type).block_bytes);
  const int n_chunks = static_cast<int>(std::min<int64_t>(n_tiles_, 256));
  pool.Run(n_chunks, [&](int chunk, int) {
    for (int64_t tile = n_tiles_ * chunk / n_chunks; tile < n_tiles_ * (chunk + 1) / n_chunks; ++tile) {
      for (int64_t block = 0; block < n_blocks; block += n_parts) {
        for (int out = 0; out < kTileOutputs; ++out) {
          const int64_t row = tile * kTileOutputs + out;
          Block32 parts[kTileSuperBlock / kTileBlock] = {};
          if (row < n_out) read(type, rows + row * row_bytes + block / n_parts * block_bytes, parts);
          for (int part = 0; part < n_parts; ++part) {
            const int64_t at = tile * n_blocks + block + part;
            const int64_t super_at =
                n_supers == 0 ? 0 : tile * n_supers + (block + part) / (kTileSuperBlock / kTileBlock);
            const BlockPlanes to{low + at * format.low_bytes(), high + at * format.high_bytes(),
                                 scale + at * format.scale_bytes(), super + super_at * format.super_bytes()};
            WriteLow(format, parts[part], out, to.low);
            WriteHigh(format, parts[part], out, to.high);
            WriteScales(format, parts[part], out, to);
          }
        }
      }
    }
  });
}

}  // namespace updraft::kernels
