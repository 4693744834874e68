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
#include "common/gguf/mapping_guard.h"

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
// A mapping shows later changes of the file, and of a file that is cut shorter the lost pages read as zeros
// (mapping_guard.h). So whoever computes from the bytes asks CheckIntact afterwards, before the result is used. Replace
// model files by renaming a new one over the old, as gguf::Writer does, which leaves mappings as they are; never
// rewrite them in place.
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

  // UNAVAILABLE, for good, once the file was written to, cut shorter, or could not be read where it was accessed; what
  // was read from bytes() before a call that says OK was the file as it was mapped. (The system sets the time of a
  // file before its bytes change; a file system that serves other machines may show either late.) A new file under the
  // name, or none, is no change. One system call; any thread.
  absl::Status CheckIntact() const;

 private:
  void Close();

  std::string path_;
  int fd_ = -1;                    // none for an empty file
  MappingGuard* guard_ = nullptr;  // of bytes_
  std::span<const std::byte> bytes_;
  int64_t modified_ns_ = 0;
  FileAccess access_;
};

}  // namespace updraft::gguf

#endif  // UPDRAFT_COMMON_GGUF_MAPPED_FILE_H_
