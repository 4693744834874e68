// Reads GGUF model files, versions 2 and 3, little-endian (the format: ggml's docs/gguf.md).
//
// Files are hostile until checked. Open and Parse check everything once: counts against the bytes that are there before
// anything is allocated, every length, offset, product, type number, name and alignment before use. What a File hands
// out afterwards is in range, so that its users need no checks of their own on sizes.
//
// Nothing is copied but names: tensor data, strings and arrays are views into the mapping. What others write into a
// file that is open shows there: lengths stay in range, values are in doubt, and CheckIntact tells.
//
// A model may be split into files NAME-00001-of-0000N.gguf (llama.cpp's gguf-split): opened by the first, they read as
// one file, whose metadata is the first one's and whose tensors are those of all.
#ifndef UPDRAFT_COMMON_GGUF_READER_H_
#define UPDRAFT_COMMON_GGUF_READER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/gguf/mapped_file.h"
#include "common/gguf/value.h"
#include "kernels/formats/dtype.h"

namespace updraft::gguf {

struct TensorInfo {
  std::string name;
  kernels::DType type = kernels::DType::kF32;
  int n_dims = 0;                              // 1..4
  std::array<int64_t, 4> dims = {1, 1, 1, 1};  // ggml's order: dims[0] is contiguous, the row length; all >= 1
  std::span<const std::byte> data;             // exactly the tensor; aligned as File::alignment() where mapped

  int64_t elements() const { return dims[0] * dims[1] * dims[2] * dims[3]; }  // fits: checked when parsed
  int64_t rows() const { return dims[1] * dims[2] * dims[3]; }
};

// Immutable once made, so any number of threads may read it. Move-only; a move invalidates no view and no pointer that
// it handed out.
class File {
 public:
  // Maps and parses the file, and those that it is split into. Errors of the file system as MappedFile::Open; DATA_LOSS
  // for a malformed file and for parts that do not belong together, FAILED_PRECONDITION for a part that is not the
  // first or whose name does not lead to the others, UNIMPLEMENTED for a sound file that this build cannot use
  // (version, byte order, tensor type).
  static absl::StatusOr<File> Open(const std::string& path, const MapOptions& options = {});

  // Parses bytes that the caller keeps alive and unchanged for as long as the File. `name` stands for the path in
  // messages. As Open, but bytes are an argument: INVALID_ARGUMENT when they are malformed.
  static absl::StatusOr<File> Parse(std::span<const std::byte> bytes, std::string name);

  File(File&&) = default;
  File& operator=(File&&) = default;

  // One file on disk. There is one, or as many as the model is split into.
  struct Part {
    std::string path;
    std::span<const std::byte> bytes;  // the whole file
    uint64_t data_offset = 0;          // where tensor data starts
    MappedFile mapping;                // empty when made by Parse
  };
  std::span<const Part> parts() const { return parts_; }

  const std::string& path() const { return parts_.front().path; }  // of the first part
  uint32_t version() const { return version_; }
  uint64_t alignment() const { return alignment_; }  // of tensor data within the file, in bytes
  uint64_t file_bytes() const;                       // of all parts
  int64_t modified_ns() const;                       // of the part touched last; 0 when made by Parse
  FileAccess access() const;  // of whoever could read and write every part; its owner's alone when made by Parse

  // MappedFile::CheckIntact of all parts: to be asked after anything was computed from what they hold.
  absl::Status CheckIntact() const;

  // ---- Metadata, in file order ----
  std::span<const MetadataEntry> metadata() const { return metadata_; }
  const Value* Find(std::string_view key) const;  // null when absent
  bool Has(std::string_view key) const { return Find(key) != nullptr; }

  // NOT_FOUND when the key is absent, INVALID_ARGUMENT when its type does not fit. Any integer type is accepted where
  // an integer is wanted and the value is in range; f64 where f32 is wanted, rounded. A bool is no integer.
  absl::StatusOr<uint32_t> GetU32(std::string_view key) const;
  absl::StatusOr<uint64_t> GetU64(std::string_view key) const;
  absl::StatusOr<int32_t> GetI32(std::string_view key) const;
  absl::StatusOr<float> GetF32(std::string_view key) const;
  absl::StatusOr<bool> GetBool(std::string_view key) const;
  absl::StatusOr<std::string_view> GetString(std::string_view key) const;

  // The default when the key is absent; still an error when it is there with another type.
  absl::StatusOr<uint32_t> GetU32Or(std::string_view key, uint32_t fallback) const;
  absl::StatusOr<uint64_t> GetU64Or(std::string_view key, uint64_t fallback) const;
  absl::StatusOr<int32_t> GetI32Or(std::string_view key, int32_t fallback) const;
  absl::StatusOr<float> GetF32Or(std::string_view key, float fallback) const;
  absl::StatusOr<bool> GetBoolOr(std::string_view key, bool fallback) const;
  absl::StatusOr<std::string_view> GetStringOr(std::string_view key, std::string_view fallback) const;

  // Arrays, with the same errors and the same conversions of elements.
  absl::StatusOr<std::vector<std::string_view>> GetStrings(std::string_view key) const;
  absl::StatusOr<std::vector<int32_t>> GetI32s(std::string_view key) const;
  absl::StatusOr<std::vector<uint32_t>> GetU32s(std::string_view key) const;
  absl::StatusOr<std::vector<float>> GetF32s(std::string_view key) const;
  absl::StatusOr<std::vector<bool>> GetBools(std::string_view key) const;

  // ---- Tensors, in file order ----
  std::span<const TensorInfo> tensors() const { return tensors_; }
  const TensorInfo* FindTensor(std::string_view name) const;  // null when absent

 private:
  friend class Parser;
  friend class PartJoiner;
  File() = default;

  // Makes the indices below; the first name that is there twice, if any.
  std::optional<std::string_view> IndexMetadata();
  std::optional<std::string_view> IndexTensors();
  static absl::StatusOr<File> OpenOne(const std::string& path, const MapOptions& options);

  std::vector<Part> parts_;
  uint32_t version_ = 0;
  uint64_t alignment_ = 0;
  std::vector<MetadataEntry> metadata_;
  std::vector<TensorInfo> tensors_;
  // Positions in metadata_ and tensors_, sorted by key and by name: a hash table would let a crafted file choose its
  // collisions.
  std::vector<uint32_t> metadata_by_key_;
  std::vector<uint32_t> tensors_by_name_;
};

}  // namespace updraft::gguf

#endif  // UPDRAFT_COMMON_GGUF_READER_H_
