// A file that appears under its name only when it is complete.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace updraft {

// Bytes are appended to a temporary file in the target's directory. Commit flushes it to storage and renames it;
// destruction without Commit removes it. Move-only, not thread-safe.
class AtomicFile {
 public:
  // Only a name that is free or a regular file can be the target; a link is followed. InvalidArgument for a device, a
  // pipe, a folder, a link that leads nowhere.
  static absl::StatusOr<AtomicFile> Create(const std::string& path);

  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();

  // Buffered. RESOURCE_EXHAUSTED when the storage is full.
  absl::Status Append(std::span<const std::byte> bytes);
  absl::Status Commit();

 private:
  AtomicFile(std::string path, std::string temporary, int fd);
  absl::Status Flush();
  absl::Status WriteAll(std::span<const std::byte> bytes);
  absl::Status SyncDirectory() const;
  absl::Status Error(int error, const char* what) const;

  std::string path_;
  std::string temporary_;
  int fd_ = -1;
  std::string buffer_;
};

}  // namespace updraft
