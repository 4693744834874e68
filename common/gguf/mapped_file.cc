#include "common/gguf/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_format.h"

namespace updraft::gguf {
namespace {

absl::Status SystemError(int error, const std::string& path, const char* what) {
  return absl::ErrnoToStatus(error, absl::StrFormat("file '%s': cannot %s", path, what));
}

struct Facts {
  mode_t mode;
  gid_t group;
  size_t size;
  int64_t modified_ns;
};

// By statx: fstat is one of the calls that programs which fake the wall clock (libfaketime) answer themselves, and a
// step of that clock is no write.
bool Look(int fd, Facts* facts) {
  struct statx x;
  if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &x) != 0) return false;
  *facts = {.mode = x.stx_mode,
            .group = x.stx_gid,
            .size = static_cast<size_t>(x.stx_size),
            .modified_ns = int64_t{x.stx_mtime.tv_sec} * 1'000'000'000 + x.stx_mtime.tv_nsec};
  return true;
}

}  // namespace

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path, const MapOptions& options) {
  MappedFile file;
  file.path_ = path;
  // O_NONBLOCK: opening a FIFO must not hang; it has no effect on regular files.
  file.fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file.fd_ < 0) return SystemError(errno, path, "open it for reading");
  Facts facts;
  if (!Look(file.fd_, &facts)) return SystemError(errno, path, "read its size");
  if (!S_ISREG(facts.mode)) {
    return absl::FailedPreconditionError(absl::StrFormat("file '%s': expected a regular file, found a %s", path,
                                                         S_ISDIR(facts.mode) ? "directory" : "device, pipe or socket"));
  }
  file.modified_ns_ = facts.modified_ns;
  file.access_ = {.mode = facts.mode & 0777, .group = facts.group};
  if (facts.size == 0) return file;
  const size_t size = facts.size;
  const int flags = MAP_SHARED | (options.populate ? MAP_POPULATE : 0);
  void* address = mmap(nullptr, size, PROT_READ, flags, file.fd_, 0);
  if (address == MAP_FAILED) return SystemError(errno, path, "map it into memory");
  file.bytes_ = {static_cast<const std::byte*>(address), size};
  file.guard_ = Watch(file.bytes_);
  if (options.lock && mlock(address, size) != 0) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "file '%s': cannot lock %d bytes in memory; raise the limit (ulimit -l) or do not ask for locking", path,
        size));
  }
  return file;
}

absl::Status MappedFile::CheckIntact() const {
  if (guard_ == nullptr) return absl::OkStatus();
  Facts facts;
  const bool known = Look(fd_, &facts);
  if (!IsLost(guard_)) {
    if (known && facts.size == bytes_.size() && facts.modified_ns == modified_ns_) return absl::OkStatus();
    SetLost(guard_);
  }
  const bool resized = known && facts.size != bytes_.size();
  return absl::UnavailableError(absl::StrFormat(
      "file '%s': expected it to stay as it was opened, %d bytes, found %s; what is computed from it is worthless "
      "until "
      "the program starts again; replace files by renaming new ones over them, never in place",
      path_, bytes_.size(),
      resized ? absl::StrFormat("%d bytes", facts.size) : "that it was written to or could not be read"));
}

MappedFile::MappedFile(MappedFile&& other) noexcept { *this = std::move(other); }

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this != &other) {
    Close();
    path_ = std::move(other.path_);
    fd_ = std::exchange(other.fd_, -1);
    guard_ = std::exchange(other.guard_, nullptr);
    bytes_ = std::exchange(other.bytes_, {});
    modified_ns_ = other.modified_ns_;
    access_ = other.access_;
  }
  return *this;
}

MappedFile::~MappedFile() { Close(); }

void MappedFile::Close() {
  if (guard_ != nullptr) Release(guard_);
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  if (fd_ >= 0) close(fd_);
}

}  // namespace updraft::gguf
