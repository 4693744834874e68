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

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path, const MapOptions& options) {
  // O_NONBLOCK: opening a FIFO must not hang; it has no effect on regular files.
  const FileDescriptor fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) return SystemError(errno, path, "open it for reading");
  struct stat facts;
  if (fstat(fd.get(), &facts) != 0) return SystemError(errno, path, "read its size");
  if (!S_ISREG(facts.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrFormat("file '%s': expected a regular file, found a %s", path,
                        S_ISDIR(facts.st_mode) ? "directory" : "device, pipe or socket"));
  }
  MappedFile file;
  file.modified_ns_ = int64_t{facts.st_mtim.tv_sec} * 1'000'000'000 + facts.st_mtim.tv_nsec;
  file.access_ = {.mode = facts.st_mode & 0777, .group = facts.st_gid};
  if (facts.st_size == 0) return file;
  const size_t size = static_cast<size_t>(facts.st_size);
  const int flags = MAP_SHARED | (options.populate ? MAP_POPULATE : 0);
  void* address = mmap(nullptr, size, PROT_READ, flags, fd.get(), 0);
  if (address == MAP_FAILED) return SystemError(errno, path, "map it into memory");
  file.bytes_ = {static_cast<const std::byte*>(address), size};
  if (options.lock && mlock(address, size) != 0) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "file '%s': cannot lock %d bytes in memory; raise the limit (ulimit -l) or do not ask for locking", path,
        size));
  }
  return file;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : bytes_(std::exchange(other.bytes_, {})), modified_ns_(other.modified_ns_), access_(other.access_) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this != &other) {
    Unmap();
    bytes_ = std::exchange(other.bytes_, {});
    modified_ns_ = other.modified_ns_;
    access_ = other.access_;
  }
  return *this;
}

MappedFile::~MappedFile() { Unmap(); }

void MappedFile::Unmap() {
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace updraft::gguf
