// A file that appears under its name only when it is complete.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/files/file_access.h"

namespace updraft {

struct AtomicFileOptions {
  // For folders where others may put links: what one points to is never replaced.
  bool refuse_links = false;
  // As a file with this access, as far as this one's group is the same; while it is written, its owner's alone. None:
  // what the process's umask leaves.
  std::optional<FileAccess> access = {};
};

// Bytes are appended to a temporary file TARGET.tmp.PROCESS.NUMBER in the target's directory. Commit flushes it to
// storage and renames it; destruction without Commit removes it. A process that is killed leaves it behind, so it is
// locked (flock) while it is written, and the next Create for the target removes those that nobody has locked; where
// the file system has no locks they stay, and where locks hold for one machine alone (some mounts of network file
// systems) machines that write one target at a time may remove each other's: a Commit then fails. Move-only, not
// thread-safe.
class AtomicFile {
 public:
  // Only a name that is free or a regular file can be the target; a link is followed unless options refuse it.
  // InvalidArgument for a device, a pipe, a folder, a link that leads nowhere or is refused.
  static absl::StatusOr<AtomicFile> Create(const std::string& path, const AtomicFileOptions& options = {});

  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();

  // Buffered. RESOURCE_EXHAUSTED when the storage is full.
  absl::Status Append(std::span<const std::byte> bytes);
  // After an error the target is as before, but for one: when flushing its directory fails the new file is there, and
  // a crash of the system may still bring back the old one.
  absl::Status Commit();

 private:
  AtomicFile(std::string path, std::string temporary, int fd, std::optional<FileAccess> access);
  void SetAccess();
  absl::Status Flush();
  absl::Status WriteAll(std::span<const std::byte> bytes);
  absl::Status SyncDirectory() const;
  absl::Status Error(int error, const char* what) const;

  std::string path_;
  std::string temporary_;
  int fd_ = -1;  // holds the lock
  std::optional<FileAccess> access_;
  std::string buffer_;
};

}  // namespace updraft
