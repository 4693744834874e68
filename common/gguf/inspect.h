// What a model file holds, for people and scripts: `updraft inspect`.
#ifndef UPDRAFT_COMMON_GGUF_INSPECT_H_
#define UPDRAFT_COMMON_GGUF_INSPECT_H_

#include <array>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "common/gguf/reader.h"

namespace updraft::gguf {

using Scalar = std::variant<bool, int64_t, uint64_t, double, std::string>;

// One metadata entry. Of an array only the first elements are kept: vocabularies have hundreds of thousands.
struct MetadataSummary {
  static constexpr size_t kMaxElements = 8;

  std::string key;
  ValueType type = ValueType::kU8;
  ValueType element = ValueType::kU8;  // of an array; else the same as type
  uint64_t size = 1;                   // elements of an array; else 1
  std::vector<Scalar> first;           // min(size, kMaxElements) of them
};

struct TensorSummary {
  std::string name;
  kernels::DType type = kernels::DType::kF32;
  std::vector<int64_t> dims;  // ggml's order, the row length first
  uint64_t bytes = 0;
};

struct TypeShare {
  kernels::DType type = kernels::DType::kF32;
  int64_t n_tensors = 0;
  uint64_t n_weights = 0;
  uint64_t bytes = 0;
};

// Owns its contents; independent of the File that it was made from.
struct Inspection {
  std::string path;      // of the first part
  uint64_t n_parts = 1;  // files that the model is split into
  uint32_t version = 0;
  uint64_t file_bytes = 0;
  uint64_t alignment = 0;
  std::string architecture;  // general.architecture; empty when absent
  std::string name;          // general.name; empty when absent
  uint64_t n_weights = 0;    // elements of all tensors
  uint64_t tensor_bytes = 0;
  double bits_per_weight = 0.0;  // 8 * tensor_bytes / n_weights, scales and unquantized tensors included; 0 if none
  std::vector<TypeShare> types;  // the largest share of bytes first
  std::vector<MetadataSummary> metadata;  // in file order
  std::vector<TensorSummary> tensors;     // in file order
  std::vector<std::string> warnings;      // for whoever knows more of the file than its format to fill in
};

// INVALID_ARGUMENT when general.architecture or general.name is not a string.
absl::StatusOr<Inspection> Inspect(const File& file);

// For a terminal: a few lines of facts, the types, the metadata, the tensors. Bytes other than printable ASCII come out
// escaped, so that a hostile file cannot send control sequences to the terminal.
std::string ToText(const Inspection& inspection);

// One JSON object on one line: {path, parts, version, file_bytes, alignment, architecture, name, parameters,
// tensor_bytes, bits_per_weight, warnings: [text], types: [{type, tensors, parameters, bytes}], metadata: {key: value},
// tensors: [{name, type, dims, bytes}]}. A long array stands as {"array": element type, "size": n, "first": [...]}; a
// number that JSON lacks (NaN, infinity) as null; ill-formed UTF-8 as U+FFFD.
std::string ToJson(const Inspection& inspection);

}  // namespace updraft::gguf

#endif  // UPDRAFT_COMMON_GGUF_INSPECT_H_
