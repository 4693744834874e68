// Builds the bytes of GGUF files by hand, right ones and wrong ones, independently of gguf::Writer.
#ifndef UPDRAFT_TESTS_COMMON_GGUF_GGUF_BYTES_H_
#define UPDRAFT_TESTS_COMMON_GGUF_GGUF_BYTES_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/gguf/value.h"

namespace updraft::gguf::testing {

// Appends little-endian numbers and GGUF strings.
class ByteSink {
 public:
  template <typename T>
  ByteSink& Number(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  ByteSink& String(std::string_view text) {
    Number(static_cast<uint64_t>(text.size()));
    return Raw(text);
  }
  ByteSink& Raw(std::string_view text) {
    bytes_.append(text);
    return *this;
  }
  ByteSink& PadTo(size_t multiple) {
    bytes_.append((multiple - bytes_.size() % multiple) % multiple, '\0');
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

// The parts of a file; every count can be falsified.
struct GgufBytes {
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::vector<std::string> metadata;  // encoded entries
  std::vector<std::string> tensors;   // encoded tensor descriptions
  std::string data;
  int64_t extra_metadata = 0;  // added to the counts in the header
  int64_t extra_tensors = 0;
  size_t alignment = 32;

  template <typename T>
  GgufBytes& Scalar(std::string_view key, ValueType type, T value) {
    metadata.push_back(ByteSink().String(key).Number(type).Number(value).bytes());
    return *this;
  }
  GgufBytes& String(std::string_view key, std::string_view value) {
    metadata.push_back(ByteSink().String(key).Number(ValueType::kString).String(value).bytes());
    return *this;
  }
  // `elements`: their encoded bytes.
  GgufBytes& Array(std::string_view key, ValueType element, uint64_t count, std::string_view elements) {
    metadata.push_back(
        ByteSink().String(key).Number(ValueType::kArray).Number(element).Number(count).Raw(elements).bytes());
    return *this;
  }
  GgufBytes& Tensor(std::string_view name, std::initializer_list<uint64_t> dims, uint32_t type, uint64_t offset) {
    ByteSink sink;
    sink.String(name).Number(static_cast<uint32_t>(dims.size()));
    for (const uint64_t dim : dims) sink.Number(dim);
    tensors.push_back(sink.Number(type).Number(offset).bytes());
    return *this;
  }
  GgufBytes& Data(size_t n_bytes) {
    for (size_t i = 0; i < n_bytes; ++i) data.push_back(static_cast<char>(i * 37 + 11));
    return *this;
  }
  GgufBytes& ZerosTo(size_t n_bytes) {
    data.resize(n_bytes, '\0');
    return *this;
  }

  std::string Build() const {
    ByteSink sink;
    sink.Raw(magic).Number(version);
    sink.Number(static_cast<uint64_t>(static_cast<int64_t>(tensors.size()) + extra_tensors));
    sink.Number(static_cast<uint64_t>(static_cast<int64_t>(metadata.size()) + extra_metadata));
    for (const std::string& entry : metadata) sink.Raw(entry);
    for (const std::string& tensor : tensors) sink.Raw(tensor);
    if (!tensors.empty()) sink.PadTo(alignment);
    return sink.Raw(data).bytes();
  }
};

// A small sound file with every metadata type and tensors of several types.
inline std::string SampleFile() {
  GgufBytes file;
  file.String("general.architecture", "llama").String("general.name", "sample");
  file.Scalar("k.u8", ValueType::kU8, uint8_t{200}).Scalar("k.i8", ValueType::kI8, int8_t{-100});
  file.Scalar("k.u16", ValueType::kU16, uint16_t{60000}).Scalar("k.i16", ValueType::kI16, int16_t{-30000});
  file.Scalar("k.u32", ValueType::kU32, uint32_t{4000000000}).Scalar("k.i32", ValueType::kI32, int32_t{-2000000000});
  file.Scalar("k.u64", ValueType::kU64, uint64_t{1} << 63).Scalar("k.i64", ValueType::kI64, -(int64_t{1} << 62));
  file.Scalar("k.f32", ValueType::kF32, 0.5f).Scalar("k.f64", ValueType::kF64, 0.25);
  file.Scalar("k.bool", ValueType::kBool, uint8_t{1});
  file.Array("k.strings", ValueType::kString, 3, ByteSink().String("a").String("").String("c\xc3\xa9").bytes());
  file.Array("k.i32s", ValueType::kI32, 2, ByteSink().Number(int32_t{-1}).Number(int32_t{7}).bytes());
  file.Array("k.f32s", ValueType::kF32, 2, ByteSink().Number(1.5f).Number(-2.5f).bytes());
  file.Array("k.bools", ValueType::kBool, 3, std::string_view("\0\1\1", 3));
  file.Array("k.empty", ValueType::kU8, 0, "");
  file.Tensor("a.f32", {3, 2}, 0, 0).Tensor("b.q4_0", {64}, 2, 32).Tensor("c.q6_k", {256, 1, 1, 1}, 14, 96);
  file.Data(24).ZerosTo(32).Data(36).ZerosTo(96).Data(210);
  return file.Build();
}

inline std::span<const std::byte> Bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

}  // namespace updraft::gguf::testing

#endif  // UPDRAFT_TESTS_COMMON_GGUF_GGUF_BYTES_H_
