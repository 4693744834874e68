// Uses all that a parsed file hands out, so that a bad range shows up under a sanitizer.
#ifndef UPDRAFT_TESTS_COMMON_GGUF_EXERCISE_H_
#define UPDRAFT_TESTS_COMMON_GGUF_EXERCISE_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/gguf/inspect.h"
#include "common/gguf/reader.h"
#include "kernels/formats/codec.h"

namespace updraft::gguf::testing {

// Returns a number that depends on everything that was read, so that no read is optimised away.
inline uint64_t Exercise(const File& file) {
  uint64_t sum = file.version() + file.alignment() + file.file_bytes();
  for (const MetadataEntry& entry : file.metadata()) {
    sum += entry.key.size() + file.Has(entry.key);
    if (auto v = file.GetU32(entry.key); v.ok()) sum += *v;
    if (auto v = file.GetU64(entry.key); v.ok()) sum += *v;
    if (auto v = file.GetI32(entry.key); v.ok()) sum += static_cast<uint32_t>(*v);
    if (auto v = file.GetF32(entry.key); v.ok()) sum += *v > 0 ? 1 : 0;
    if (auto v = file.GetBool(entry.key); v.ok()) sum += *v ? 1 : 0;
    if (auto v = file.GetString(entry.key); v.ok()) sum += std::count(v->begin(), v->end(), 'a');
    if (auto v = file.GetStrings(entry.key); v.ok()) {
      for (const std::string_view text : *v) sum += std::count(text.begin(), text.end(), 'a');
    }
    if (auto v = file.GetI32s(entry.key); v.ok()) sum += v->size();
    if (auto v = file.GetU32s(entry.key); v.ok()) sum += v->size();
    if (auto v = file.GetF32s(entry.key); v.ok()) sum += v->size();
    if (auto v = file.GetBools(entry.key); v.ok()) sum += v->size();
  }
  std::vector<float> row;
  for (const TensorInfo& tensor : file.tensors()) {
    sum += file.FindTensor(tensor.name) == &tensor;
    for (const std::byte byte : tensor.data) sum += std::to_integer<uint64_t>(byte);
    row.resize(static_cast<size_t>(tensor.dims[0]));
    kernels::DequantizeRow(tensor.type, tensor.data.data(), row.data(), tensor.dims[0]);
    for (const float x : row) sum += x > 0 ? 1 : 0;
  }
  if (auto inspection = Inspect(file); inspection.ok()) {
    sum += ToText(*inspection).size() + ToJson(*inspection).size();
  }
  return sum;
}

}  // namespace updraft::gguf::testing

#endif  // UPDRAFT_TESTS_COMMON_GGUF_EXERCISE_H_
