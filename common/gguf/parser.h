// Parses the bytes of a GGUF file into a File. Private to this folder; others use reader.h.
#ifndef UPDRAFT_COMMON_GGUF_PARSER_H_
#define UPDRAFT_COMMON_GGUF_PARSER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/gguf/reader.h"

namespace updraft::gguf {

// A name from a file, fit for a message: quoted, control and non-ASCII bytes escaped, cut when long.
std::string Quoted(std::string_view name);

// One use: make it, call Parse, take the file.
class Parser {
 public:
  Parser(std::span<const std::byte> bytes, std::string name);

  absl::Status Parse();
  File TakeFile(MappedFile mapping);

 private:
  // Errors carry the file, the byte offset and the part being read.
  absl::Status Malformed(std::string_view what) const { return MalformedAt(position_, what); }
  absl::Status MalformedAt(uint64_t offset, std::string_view what) const;
  absl::Status Unsupported(std::string_view what) const;
  absl::Status Truncated(uint64_t wanted, std::string_view part) const;

  uint64_t remaining() const { return bytes_.size() - position_; }
  const std::byte* cursor() const { return bytes_.data() + position_; }

  template <typename T>
  absl::StatusOr<T> ReadNumber(std::string_view part);
  absl::StatusOr<std::string_view> ReadString(std::string_view part, uint64_t max_bytes);
  absl::StatusOr<ValueType> ReadValueType(std::string_view part);
  template <typename T>
  absl::StatusOr<Value> ReadScalar(std::string_view part);
  absl::StatusOr<Value> ReadValue(ValueType type, std::string_view part);
  absl::StatusOr<Value> ReadArray(std::string_view part);
  absl::Status SkipStrings(uint64_t count, std::string_view part);
  absl::Status CheckBools(const ArrayView& array, uint64_t offset, std::string_view part) const;

  absl::Status ParseHeader();
  absl::Status CheckVersion(uint32_t version) const;
  absl::Status ParseMetadata();
  absl::Status ParseAlignment();
  absl::Status ParseTensorInfos();
  absl::Status ParseTensorInfo();
  absl::Status ParseDims(TensorInfo& tensor, int64_t* elements);
  absl::Status ParseType(TensorInfo& tensor, int64_t elements, uint64_t* n_bytes);
  absl::Status PlaceTensors();
  absl::Status CheckOverlaps() const;

  // Where a tensor says its data is, relative to the start of the data.
  struct Extent {
    uint64_t offset = 0;
    uint64_t bytes = 0;
  };

  const std::string path_;
  const std::span<const std::byte> bytes_;
  File file_;
  uint64_t position_ = 0;
  uint64_t data_offset_ = 0;  // where tensor data starts
  uint64_t n_tensors_ = 0;
  uint64_t n_metadata_ = 0;
  std::vector<Extent> extents_;  // of file_.tensors_
};

}  // namespace updraft::gguf

#endif  // UPDRAFT_COMMON_GGUF_PARSER_H_
