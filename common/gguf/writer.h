// Writes GGUF version 3 files, tensor by tensor: a model larger than memory can be written.
//
//   absl::StatusOr<Writer> writer = Writer::Create("model.gguf");
//   writer->SetString("general.architecture", "llama");               // 1. metadata, in the order that the file keeps
//   writer->AddTensor("token_embd.weight", DType::kQ4_0, {2048, 32000});  // 2. declare every tensor
//   status = writer->AppendTensorData("token_embd.weight", bytes);      // 3. data, in the order of declaration
//   status = writer->Finish();                                          // 4. the file appears under its name
//
// The data goes to a temporary file beside the target, which Finish flushes to storage and renames: the target is
// always either the old file or the complete new one, and processes that have the old one mapped keep it. A Writer that
// is destroyed before Finish removes its temporary file.
#ifndef UPDRAFT_COMMON_GGUF_WRITER_H_
#define UPDRAFT_COMMON_GGUF_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/gguf/reader.h"
#include "common/gguf/value.h"
#include "kernels/formats/dtype.h"

namespace updraft::gguf {

struct WriterOptions {
  // Of tensor data, in bytes: a power of two from 8 to 2^20. Written as general.alignment where it is not the default.
  uint64_t alignment = 32;
};

// Not thread-safe. The first error sticks: later calls do nothing, and status(), AppendTensorData and Finish return it.
// So a run of Set and Add calls needs no checks in between.
class Writer {
 public:
  // Creates the temporary file. Errors: as the file system has them; INVALID_ARGUMENT for options.
  static absl::StatusOr<Writer> Create(const std::string& path, const WriterOptions& options = {});

  Writer(Writer&&) noexcept;
  Writer& operator=(Writer&&) noexcept;
  ~Writer();

  // ---- 1. Metadata. A key that is already set is replaced in its place. general.alignment is the writer's own. ----
  void SetU32(std::string_view key, uint32_t value);
  void SetU64(std::string_view key, uint64_t value);
  void SetI32(std::string_view key, int32_t value);
  void SetF32(std::string_view key, float value);
  void SetBool(std::string_view key, bool value);
  void SetString(std::string_view key, std::string_view value);
  void SetStrings(std::string_view key, std::span<const std::string> values);
  void SetStrings(std::string_view key, std::span<const std::string_view> values);
  void SetI32s(std::string_view key, std::span<const int32_t> values);
  void SetU32s(std::string_view key, std::span<const uint32_t> values);
  void SetF32s(std::string_view key, std::span<const float> values);
  void SetBools(std::string_view key, std::span<const uint8_t> values);  // each 0 or 1
  // Any value, copied; with it the metadata of an open File is carried over entry by entry.
  void Set(std::string_view key, const Value& value);
  void CopyMetadata(const File& from);

  // ---- 2. Tensors. dims in ggml's order: dims[0] is the row length. Names of 1 to 63 bytes, the most that ggml reads.
  void AddTensor(std::string_view name, kernels::DType type, std::span<const int64_t> dims);
  void AddTensor(std::string_view name, kernels::DType type, std::initializer_list<int64_t> dims);

  // ---- 3. Data, in as many pieces per tensor as is handy. The first call writes the header; from then on metadata and
  // tensors are fixed.
  absl::Status AppendTensorData(std::string_view name, std::span<const std::byte> bytes);

  // ---- 4. FAILED_PRECONDITION when data is missing. After OK the file is on storage under its name. ----
  absl::Status Finish();

  const absl::Status& status() const;

 private:
  struct State;
  explicit Writer(std::unique_ptr<State> state);

  std::unique_ptr<State> state_;
};

}  // namespace updraft::gguf

#endif  // UPDRAFT_COMMON_GGUF_WRITER_H_
