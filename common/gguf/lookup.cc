// Typed access to metadata: File::Get*.
#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/gguf/parser.h"
#include "common/gguf/reader.h"

namespace updraft::gguf {
namespace {

template <typename T>
constexpr const char* NameOf() {
  if constexpr (std::is_same_v<T, uint32_t>) return "a u32";
  if constexpr (std::is_same_v<T, uint64_t>) return "a u64";
  if constexpr (std::is_same_v<T, int32_t>) return "an i32";
  if constexpr (std::is_same_v<T, float>) return "an f32";
  if constexpr (std::is_same_v<T, bool>) return "a bool";
  if constexpr (std::is_same_v<T, std::string_view>) return "a string";
}

template <typename T>
inline constexpr bool kIsInteger = std::is_integral_v<T> && !std::is_same_v<T, bool>;

// True, with the value in `to`, where the two types go together and the value is in range.
template <typename To, typename From>
bool Convert(From from, To* to) {
  if constexpr (std::is_same_v<To, From>) {
    *to = from;
    return true;
  } else if constexpr (kIsInteger<To> && kIsInteger<From>) {
    if (!std::in_range<To>(from)) return false;
    *to = static_cast<To>(from);
    return true;
  } else if constexpr (std::is_same_v<To, float> && std::is_same_v<From, double>) {
    if (std::isfinite(from) && std::fabs(from) > std::numeric_limits<float>::max()) return false;
    *to = static_cast<float>(from);
    return true;
  } else {
    return false;
  }
}

std::string Shown(const Value& value) {
  return std::visit(
      [](const auto& v) -> std::string {
        using V = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<V, std::string_view>) {
          return absl::StrFormat("the string %s", Quoted(v));
        } else if constexpr (std::is_same_v<V, ArrayView>) {
          return absl::StrFormat("an array of %d %s", v.size, ValueTypeName(v.element));
        } else if constexpr (std::is_same_v<V, bool>) {
          return v ? "the bool true" : "the bool false";
        } else if constexpr (std::is_floating_point_v<V>) {
          return absl::StrFormat("the number %g", v);
        } else {
          return absl::StrFormat("the integer %d", v);
        }
      },
      value);
}

absl::Status Absent(const std::string& path, std::string_view key, const char* wanted) {
  return absl::NotFoundError(
      absl::StrFormat("file '%s': metadata %s is missing (expected %s)", path, Quoted(key), wanted));
}

absl::Status WrongType(const std::string& path, std::string_view key, const char* wanted, const Value& found) {
  return absl::InvalidArgumentError(
      absl::StrFormat("file '%s': metadata %s: expected %s, found %s", path, Quoted(key), wanted, Shown(found)));
}

template <typename T>
absl::StatusOr<T> GetScalar(const File& file, std::string_view key) {
  const Value* value = file.Find(key);
  if (value == nullptr) return Absent(file.path(), key, NameOf<T>());
  T result{};
  if (!std::visit([&result](const auto& v) { return Convert(v, &result); }, *value)) {
    return WrongType(file.path(), key, NameOf<T>(), *value);
  }
  return result;
}

template <typename T>
absl::StatusOr<T> GetScalarOr(const File& file, std::string_view key, T fallback) {
  if (!file.Has(key)) return fallback;
  return GetScalar<T>(file, key);
}

// Calls visit(T{}) with the C++ type of fixed-size elements; false for strings and arrays.
template <typename Visit>
bool WithElementType(ValueType type, Visit visit) {
  switch (type) {
    case ValueType::kU8:
      return visit(uint8_t{});
    case ValueType::kI8:
      return visit(int8_t{});
    case ValueType::kU16:
      return visit(uint16_t{});
    case ValueType::kI16:
      return visit(int16_t{});
    case ValueType::kU32:
      return visit(uint32_t{});
    case ValueType::kI32:
      return visit(int32_t{});
    case ValueType::kF32:
      return visit(float{});
    case ValueType::kBool:
      return visit(bool{});
    case ValueType::kU64:
      return visit(uint64_t{});
    case ValueType::kI64:
      return visit(int64_t{});
    case ValueType::kF64:
      return visit(double{});
    case ValueType::kString:
    case ValueType::kArray:
      return false;
  }
  return false;
}

template <typename T>
absl::StatusOr<std::vector<T>> GetArray(const File& file, std::string_view key) {
  const std::string wanted = absl::StrFormat("an array, each element %s", NameOf<T>());
  const Value* value = file.Find(key);
  if (value == nullptr) return Absent(file.path(), key, wanted.c_str());
  const auto* array = std::get_if<ArrayView>(value);
  if (array == nullptr) return WrongType(file.path(), key, wanted.c_str(), *value);
  std::vector<T> result;
  const bool fits = WithElementType(array->element, [&](auto tag) {
    using From = decltype(tag);
    result.reserve(array->size);
    for (uint64_t i = 0; i < array->size; ++i) {
      T element{};
      if (!Convert(ElementAt<From>(*array, i), &element)) return false;
      result.push_back(element);
    }
    return true;
  });
  if (!fits) return WrongType(file.path(), key, wanted.c_str(), *value);
  return result;
}

}  // namespace

absl::StatusOr<uint32_t> File::GetU32(std::string_view key) const { return GetScalar<uint32_t>(*this, key); }
absl::StatusOr<uint64_t> File::GetU64(std::string_view key) const { return GetScalar<uint64_t>(*this, key); }
absl::StatusOr<int32_t> File::GetI32(std::string_view key) const { return GetScalar<int32_t>(*this, key); }
absl::StatusOr<float> File::GetF32(std::string_view key) const { return GetScalar<float>(*this, key); }
absl::StatusOr<bool> File::GetBool(std::string_view key) const { return GetScalar<bool>(*this, key); }
absl::StatusOr<std::string_view> File::GetString(std::string_view key) const {
  return GetScalar<std::string_view>(*this, key);
}

absl::StatusOr<uint32_t> File::GetU32Or(std::string_view key, uint32_t fallback) const {
  return GetScalarOr(*this, key, fallback);
}
absl::StatusOr<uint64_t> File::GetU64Or(std::string_view key, uint64_t fallback) const {
  return GetScalarOr(*this, key, fallback);
}
absl::StatusOr<int32_t> File::GetI32Or(std::string_view key, int32_t fallback) const {
  return GetScalarOr(*this, key, fallback);
}
absl::StatusOr<float> File::GetF32Or(std::string_view key, float fallback) const {
  return GetScalarOr(*this, key, fallback);
}
absl::StatusOr<bool> File::GetBoolOr(std::string_view key, bool fallback) const {
  return GetScalarOr(*this, key, fallback);
}
absl::StatusOr<std::string_view> File::GetStringOr(std::string_view key, std::string_view fallback) const {
  return GetScalarOr(*this, key, fallback);
}

absl::StatusOr<std::vector<std::string_view>> File::GetStrings(std::string_view key) const {
  constexpr const char* kWanted = "an array of strings";
  const Value* value = Find(key);
  if (value == nullptr) return Absent(path(), key, kWanted);
  const auto* array = std::get_if<ArrayView>(value);
  if (array == nullptr || array->element != ValueType::kString) return WrongType(path(), key, kWanted, *value);
  std::vector<std::string_view> strings;
  strings.reserve(array->size);
  StringCursor cursor(*array);
  for (uint64_t i = 0; i < array->size; ++i) strings.push_back(cursor.Next());
  return strings;
}

absl::StatusOr<std::vector<int32_t>> File::GetI32s(std::string_view key) const { return GetArray<int32_t>(*this, key); }
absl::StatusOr<std::vector<uint32_t>> File::GetU32s(std::string_view key) const {
  return GetArray<uint32_t>(*this, key);
}
absl::StatusOr<std::vector<float>> File::GetF32s(std::string_view key) const { return GetArray<float>(*this, key); }
absl::StatusOr<std::vector<bool>> File::GetBools(std::string_view key) const { return GetArray<bool>(*this, key); }

}  // namespace updraft::gguf
