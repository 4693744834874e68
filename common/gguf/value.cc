#include "common/gguf/value.h"

#include <iterator>

namespace updraft::gguf {

const char* ValueTypeName(ValueType type) {
  constexpr const char* kNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                    "bool", "string", "array", "u64", "i64", "f64"};
  static_assert(std::size(kNames) == kNumValueTypes);
  const auto i = static_cast<uint32_t>(type);
  return i < kNumValueTypes ? kNames[i] : "unknown";
}

size_t ValueTypeBytes(ValueType type) {
  switch (type) {
    case ValueType::kU8:
    case ValueType::kI8:
    case ValueType::kBool:
      return 1;
    case ValueType::kU16:
    case ValueType::kI16:
      return 2;
    case ValueType::kU32:
    case ValueType::kI32:
    case ValueType::kF32:
      return 4;
    case ValueType::kU64:
    case ValueType::kI64:
    case ValueType::kF64:
      return 8;
    case ValueType::kString:
    case ValueType::kArray:
      return 0;
  }
  return 0;
}

}  // namespace updraft::gguf
