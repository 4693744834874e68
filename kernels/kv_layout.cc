#include "kernels/kv_layout.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/formats/float16.h"

namespace updraft::kernels {
namespace {

constexpr const char* kNames[] = {"f16", "i8", "i4"};

uint16_t LoadU16(const std::byte* p) {
  uint16_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return bits;
}

void StoreU16(std::byte* p, uint16_t bits) { std::memcpy(p, &bits, sizeof(bits)); }

// n <= kKvGroup numbers to codes; returns the scale's bits. With least = -127 scales are of the largest magnitude, with
// least = -8 of the number of largest magnitude, which gets the code -8, so that all 16 codes are used.
uint16_t QuantizeGroup(const float* x, int n, int least, int greatest, int8_t* codes) {
  float extreme = 0.0f;
  bool finite = true;
  for (int i = 0; i < n; ++i) {
    finite = finite && std::isfinite(x[i]);
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  }
  const float wanted = least == -8 ? extreme / -8.0f : std::fabs(extreme) / 127.0f;
  const uint16_t scale = F32ToF16(finite ? wanted : std::numeric_limits<float>::quiet_NaN());
  const float step = F16ToF32(scale);
  for (int i = 0; i < n; ++i) {
    const bool coded = std::isfinite(step) && step != 0.0f;
    codes[i] = static_cast<int8_t>(
        coded ? std::clamp(std::nearbyint(x[i] / step), static_cast<float>(least), static_cast<float>(greatest))
              : 0.0f);
  }
  return scale;
}

// Byte offsets in a head of a block.
size_t KeyScale(const KvShape& shape, int slot, int group) {
  return 2 * (static_cast<size_t>(group) * shape.block_tokens + slot);
}
size_t ValueScale(const KvShape& shape, int slot, int group) {
  return 2 * (static_cast<size_t>(slot) * KvGroups(shape.head_dim) + group);
}
size_t KeyByte(const KvShape& shape, int slot, int d) {
  const int row = shape.type == KvType::kI8 ? d : d / kKvGroup * 16 + d % 16;
  return KvScaleBytes(shape) + static_cast<size_t>(row) * shape.block_tokens + slot;
}
size_t ValueByte(const KvShape& shape, int slot, int d) {
  const bool i8 = shape.type == KvType::kI8;
  const size_t row = i8 ? KvPaddedDim(shape.head_dim) : 16 * KvGroups(shape.head_dim);
  return KvScaleBytes(shape) + slot * row + (i8 ? d : d / kKvGroup * 16 + d % 16);
}

void StoreCode(const KvShape& shape, int d, int8_t code, std::byte& byte) {
  if (shape.type == KvType::kI8) {
    byte = static_cast<std::byte>(code);
  } else if (d % kKvGroup < 16) {
    byte = static_cast<std::byte>(code + 8);  // the high nibble follows
  } else {
    byte |= static_cast<std::byte>((code + 8) << 4);
  }
}

int LoadCode(const KvShape& shape, int d, std::byte byte) {
  if (shape.type == KvType::kI8) return static_cast<int8_t>(byte);
  const auto nibbles = static_cast<int>(byte);
  return (d % kKvGroup < 16 ? nibbles & 15 : nibbles >> 4) - 8;
}

}  // namespace

const char* KvTypeName(KvType type) { return kNames[static_cast<int>(type)]; }

bool ParseKvType(const char* name, KvType& type) {
  for (const KvType candidate : {KvType::kF16, KvType::kI8, KvType::kI4}) {
    if (std::strcmp(name, KvTypeName(candidate)) != 0) continue;
    type = candidate;
    return true;
  }
  return false;
}

void StoreQuantizedKv(const KvShape& shape, const float* key, const float* value, int slot, std::byte* keys,
                      std::byte* values) {
  const int least = shape.type == KvType::kI8 ? -127 : -8;
  const int greatest = shape.type == KvType::kI8 ? 127 : 7;
  int8_t codes[kKvGroup];
  for (int group = 0; group < KvGroups(shape.head_dim); ++group) {
    const int from = group * kKvGroup;
    const int n = std::min(kKvGroup, shape.head_dim - from);
    StoreU16(keys + KeyScale(shape, slot, group), QuantizeGroup(key + from, n, least, greatest, codes));
    for (int i = 0; i < n; ++i) StoreCode(shape, i, codes[i], keys[KeyByte(shape, slot, from + i)]);
    StoreU16(values + ValueScale(shape, slot, group), QuantizeGroup(value + from, n, least, greatest, codes));
    for (int i = 0; i < n; ++i) StoreCode(shape, i, codes[i], values[ValueByte(shape, slot, from + i)]);
  }
}

float KvKeyAt(const KvShape& shape, const std::byte* keys, int slot, int d) {
  if (shape.type == KvType::kF16) {
    return F16ToF32(LoadU16(keys + 2 * (static_cast<size_t>(d) * shape.block_tokens + slot)));
  }
  return F16ToF32(LoadU16(keys + KeyScale(shape, slot, d / kKvGroup))) *
         static_cast<float>(LoadCode(shape, d, keys[KeyByte(shape, slot, d)]));
}

float KvValueAt(const KvShape& shape, const std::byte* values, int slot, int d) {
  if (shape.type == KvType::kF16) {
    return F16ToF32(LoadU16(values + 2 * (static_cast<size_t>(slot) * shape.head_dim + d)));
  }
  return F16ToF32(LoadU16(values + ValueScale(shape, slot, d / kKvGroup))) *
         static_cast<float>(LoadCode(shape, d, values[ValueByte(shape, slot, d)]));
}

}  // namespace updraft::kernels
