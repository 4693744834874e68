// Metadata values of a GGUF file.
#ifndef UPDRAFT_COMMON_GGUF_VALUE_H_
#define UPDRAFT_COMMON_GGUF_VALUE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>
#include <variant>

namespace updraft::gguf {

// The numbers of the file format.
enum class ValueType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};
inline constexpr uint32_t kNumValueTypes = 13;

// "u32", "string", ...
const char* ValueTypeName(ValueType type);

// Bytes of one value; 0 for strings and arrays, whose size varies.
size_t ValueTypeBytes(ValueType type);

// An array as it lies in the file: little-endian, packed, without alignment; a string is a u64 length and its bytes.
// The reader has checked it: `bytes` holds exactly `size` well-formed elements, which are never arrays themselves.
struct ArrayView {
  ValueType element = ValueType::kU8;
  uint64_t size = 0;
  std::span<const std::byte> bytes;
};

// The alternatives are in the order of ValueType. Strings and arrays are views into the file's bytes: they live as long
// as the File (or the bytes that it was parsed from).
using Value = std::variant<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, float, bool, std::string_view,
                           ArrayView, uint64_t, int64_t, double>;
static_assert(std::variant_size_v<Value> == kNumValueTypes);

inline ValueType TypeOf(const Value& value) { return static_cast<ValueType>(value.index()); }

struct MetadataEntry {
  std::string_view key;
  Value value;
};

// Element i of a checked array of fixed-size elements. T has the element's size; i < array.size.
template <typename T>
T ElementAt(const ArrayView& array, uint64_t i) {
  if constexpr (std::is_same_v<T, bool>) {
    return array.bytes[i] != std::byte{0};  // whatever the byte has become since it was checked
  } else {
    T value;
    std::memcpy(&value, array.bytes.data() + i * sizeof(T), sizeof(T));
    return value;
  }
}

// Walks a checked array of strings.
class StringCursor {
 public:
  explicit StringCursor(const ArrayView& strings) : rest_(strings.bytes) {}

  // To be called at most strings.size times. Stays within the array's bytes even where they have changed since they
  // were checked (MappedFile).
  std::string_view Next() {
    uint64_t length = 0;
    if (rest_.size() < sizeof(length)) return {};
    std::memcpy(&length, rest_.data(), sizeof(length));
    rest_ = rest_.subspan(sizeof(length));
    const auto text = rest_.first(std::min<uint64_t>(length, rest_.size()));
    rest_ = rest_.subspan(text.size());
    return {reinterpret_cast<const char*>(text.data()), text.size()};
  }

 private:
  std::span<const std::byte> rest_;
};

}  // namespace updraft::gguf

#endif  // UPDRAFT_COMMON_GGUF_VALUE_H_
