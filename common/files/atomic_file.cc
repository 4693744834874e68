#include "common/files/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace updraft {
namespace {

constexpr size_t kBufferBytes = 1 << 20;

std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

absl::StatusOr<AtomicFile> AtomicFile::Create(const std::string& path) {
  static std::atomic<unsigned> counter{0};
  if (path.empty() || path.back() == '/') {
    return absl::InvalidArgumentError(absl::StrFormat("'%s' is not a file name", path));
  }
  // A link is followed, so that what it points to is replaced; a device or a folder would be destroyed by the rename,
  // and so would a link that leads nowhere.
  std::string target = path;
  struct stat info;
  if (stat(path.c_str(), &info) == 0) {
    if (!S_ISREG(info.st_mode)) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "'%s' exists and is not a regular file; expected a name that is free or a file to replace", path));
    }
    if (char* resolved = realpath(path.c_str(), nullptr); resolved != nullptr) {
      target = resolved;
      std::free(resolved);
    }
  } else if (lstat(path.c_str(), &info) == 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "'%s' is a link to a file that cannot be reached; make the folder and file it names, or remove the link",
        path));
  }
  // The process id and a counter make the name unique among the living; a leftover of a crashed process with a recycled
  // id is skipped by O_EXCL.
  for (int attempt = 0; attempt < 100; ++attempt) {
    std::string temporary = absl::StrCat(target, ".tmp.", getpid(), ".", counter.fetch_add(1));
    const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0) return AtomicFile(target, std::move(temporary), fd);
    if (errno != EEXIST) {
      return absl::ErrnoToStatus(errno, absl::StrFormat("file '%s': cannot create '%s'", path, temporary));
    }
  }
  return absl::AlreadyExistsError(absl::StrFormat("file '%s': too many leftovers '%s.tmp.*'; remove them", path, path));
}

AtomicFile::AtomicFile(std::string path, std::string temporary, int fd)
    : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd) {
  buffer_.reserve(kBufferBytes);
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::move(other.temporary_)),
      fd_(std::exchange(other.fd_, -1)),
      buffer_(std::move(other.buffer_)) {
  other.temporary_.clear();
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) close(fd_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

absl::Status AtomicFile::Error(int error, const char* what) const {
  const std::string message = absl::StrFormat("file '%s': cannot %s its temporary file '%s'", path_, what, temporary_);
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
    return absl::ResourceExhaustedError(
        absl::StrCat(message, ": ", std::string(absl::ErrnoToStatus(error, "").message()), "; free some space"));
  }
  return absl::ErrnoToStatus(error, message);
}

absl::Status AtomicFile::WriteAll(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd_, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return Error(errno, "write");
    }
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status AtomicFile::Flush() {
  absl::Status status = WriteAll(std::as_bytes(std::span(buffer_)));
  buffer_.clear();
  return status;
}

absl::Status AtomicFile::Append(std::span<const std::byte> bytes) {
  if (buffer_.size() + bytes.size() > kBufferBytes) {
    if (absl::Status s = Flush(); !s.ok()) return s;
    if (bytes.size() >= kBufferBytes) return WriteAll(bytes);
  }
  buffer_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return absl::OkStatus();
}

absl::Status AtomicFile::Commit() {
  if (absl::Status s = Flush(); !s.ok()) return s;
  // Without this a crash after the rename could leave an empty file under the final name.
  if (fsync(fd_) != 0) return Error(errno, "flush");
  if (close(std::exchange(fd_, -1)) != 0) return Error(errno, "close");
  if (rename(temporary_.c_str(), path_.c_str()) != 0) return Error(errno, "rename");
  temporary_.clear();
  return SyncDirectory();
}

absl::Status AtomicFile::SyncDirectory() const {
  const std::string directory = DirectoryOf(path_);
  const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrFormat("directory '%s': cannot open it", directory));
  const int result = fsync(fd);
  const int error = errno;
  close(fd);
  // Some file systems (network, FUSE) cannot flush a directory and say EINVAL; the rename has happened all the same.
  if (result != 0 && error != EINVAL) {
    return absl::ErrnoToStatus(error, absl::StrFormat("directory '%s': cannot flush it", directory));
  }
  return absl::OkStatus();
}

}  // namespace updraft
