// A file mapped into memory, read-only.
#ifndef UPDRAFT_COMMON_GGUF_MAPPED_FILE_H_
#define UPDRAFT_COMMON_GGUF_MAPPED_FILE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/files/file_access.h"

namespace updraft::gguf {

struct MapOptions {
  // Read the whole file now, so that no page fault comes later. Start-up then takes as long as the storage does.
  bool populate = false;
  // Keep the pages in memory (mlock). Fails with RESOURCE_EXHAUSTED when the process may not lock that much.
  bool lock = false;
};

// Owns one read-only shared mapping: processes that map the same model share its pages. Move-only; bytes() stays where
// it is when the object moves, and is gone when the last owner is destroyed.
//
// A mapping shows later changes of the file, and a file that is cut shorter while mapped makes access to the lost pages
// fatal (SIGBUS). Replace model files by renaming a new one over the old, as gguf::Writer does; never rewrite in place.
class MappedFile {
 public:
  // NOT_FOUND, PERMISSION_DENIED, FAILED_PRECONDITION (not a regular file), RESOURCE_EXHAUSTED, INTERNAL.
  static absl::StatusOr<MappedFile> Open(const std::string& path, const MapOptions& options = {});

  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  // Page-aligned; empty for an empty file.
  std::span<const std::byte> bytes() const { return bytes_; }
  // When the file was last modified before it was mapped: nanoseconds since 1970.
  int64_t modified_ns() const { return modified_ns_; }
  // Who could read and write it then.
  const FileAccess& access() const { return access_; }

 private:
  void Unmap();

  std::span<const std::byte> bytes_;
  int64_t modified_ns_ = 0;
  FileAccess access_;
};

}  // namespace updraft::gguf

#endif  // UPDRAFT_COMMON_GGUF_MAPPED_FILE_H_
