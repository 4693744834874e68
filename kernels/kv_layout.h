// The bytes of the paged key/value cache: where a block keeps what, and how keys and values become fewer bits.
//
// A block holds, for each head, `block_tokens` keys and as many values of head_dim numbers. With KvType::kI8 and kI4,
// 32 dimensions (the last ones may be fewer) of one position share a scale in half precision; a number is scale * code.
//
//             keys of a head                                  values of a head
//   kF16      f16 [head_dim][block_tokens]                    f16 [block_tokens][head_dim]
//   kI8       f16 scale [n_groups][block_tokens]              f16 scale [block_tokens][n_groups]
//             i8  code  [head_dim][block_tokens]              i8  code  [block_tokens][head_dim rounded up to 16]
//   kI4       f16 scale [n_groups][block_tokens]              f16 scale [block_tokens][n_groups]
//             u8  codes [n_groups][16][block_tokens]          u8  codes [block_tokens][n_groups][16]
//             byte i of a group: dimension i in the low nibble, 16 + i in the high one, each plus 8
//
// Keys lie with the positions of a block side by side, so that scores of many positions are computed in vector lanes.
// Heads follow one another, then blocks; each head of a block takes KvHeadBytes for its keys and as many for its
// values.
#ifndef UPDRAFT_KERNELS_KV_LAYOUT_H_
#define UPDRAFT_KERNELS_KV_LAYOUT_H_

#include <cstddef>
#include <cstdint>

namespace updraft::kernels {

enum class KvType : uint8_t { kF16, kI8, kI4 };

// "f16", "i8", "i4". ParseKvType gives false for other names.
const char* KvTypeName(KvType type);
bool ParseKvType(const char* name, KvType& type);

struct KvShape {
  int n_kv_head = 0;
  int head_dim = 0;
  int block_tokens = 0;
  KvType type = KvType::kF16;
};

inline constexpr int kKvGroup = 32;  // dimensions that share a scale

constexpr int KvGroups(int head_dim) { return (head_dim + kKvGroup - 1) / kKvGroup; }
constexpr int KvPaddedDim(int head_dim) { return (head_dim + 15) / 16 * 16; }
// Of the scales of one head of a block, in front of the codes.
constexpr size_t KvScaleBytes(const KvShape& shape) {
  return 2 * static_cast<size_t>(KvGroups(shape.head_dim)) * static_cast<size_t>(shape.block_tokens);
}
constexpr size_t KvHeadBytes(const KvShape& shape) {
  const auto tokens = static_cast<size_t>(shape.block_tokens);
  switch (shape.type) {
    case KvType::kF16:
      return 2 * tokens * static_cast<size_t>(shape.head_dim);
    case KvType::kI8:
      return KvScaleBytes(shape) + tokens * static_cast<size_t>(KvPaddedDim(shape.head_dim));
    case KvType::kI4:
      return KvScaleBytes(shape) + tokens * 16 * static_cast<size_t>(KvGroups(shape.head_dim));
  }
  return 0;
}

// Writes the key and the value [head_dim] of one position to slot `slot` of a head of a block. Codes are nearest; a
// group that holds a NaN or an infinity gets the scale NaN. Of kI8 and kI4 only.
void StoreQuantizedKv(const KvShape& shape, const float* key, const float* value, int slot, std::byte* keys,
                      std::byte* values);

// One number, whatever the type: for references and tests.
float KvKeyAt(const KvShape& shape, const std::byte* keys, int slot, int d);
float KvValueAt(const KvShape& shape, const std::byte* values, int slot, int d);

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_KV_LAYOUT_H_
