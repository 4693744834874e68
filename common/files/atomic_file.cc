#include "common/files/atomic_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace updraft {
namespace {

constexpr size_t kBufferBytes = 1 << 20;

std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

constexpr char kTemporary[] = ".tmp.";

// Takes the digits at the front of `text` away; false when there are none.
bool ConsumeDigits(absl::string_view& text) {
  const size_t before = text.size();
  while (!text.empty() && absl::ascii_isdigit(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
  return text.size() < before;
}

bool IsTemporaryOf(absl::string_view name, absl::string_view target) {
  return absl::ConsumePrefix(&name, target) && absl::ConsumePrefix(&name, kTemporary) && ConsumeDigits(name) &&
         absl::ConsumePrefix(&name, ".") && ConsumeDigits(name) && name.empty();
}

// Whether the regular file that is open as `fd` is what `path` names.
bool IsNamed(int fd, const std::string& path) {
  struct stat opened, named;
  return fstat(fd, &opened) == 0 && lstat(path.c_str(), &named) == 0 && S_ISREG(opened.st_mode) &&
         opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

// Between making a temporary file and locking it another process can take it for a leftover: then that one has the lock
// or has removed the file. A file system without locks has no such processes.
bool IsOurs(int fd, const std::string& temporary) {
  if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) return false;
  return IsNamed(fd, temporary);
}

// Whoever writes has the lock until the file has its final name, so with the lock in hand nobody else renames or
// removes it. The name is looked at again with the lock: the file may have been renamed before, and another made.
void RemoveUnlessLocked(const std::string& temporary) {
  // O_RDWR: network file systems lock only what may be written. O_NONBLOCK: opening a FIFO must not hang.
  const int fd = open(temporary.c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return;
  if (flock(fd, LOCK_EX | LOCK_NB) == 0 && IsNamed(fd, temporary)) unlink(temporary.c_str());
  close(fd);
}

void RemoveLeftovers(const std::string& target) {
  const std::string name = std::filesystem::path(target).filename().string();
  std::error_code error;
  std::filesystem::directory_iterator entry(DirectoryOf(target), error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    const std::string path = entry->path().string();
    if (IsTemporaryOf(entry->path().filename().string(), name)) RemoveUnlessLocked(path);
  }
}

// The name to replace for `path`. A device or a folder would be destroyed by the rename, and so would a link that leads
// nowhere.
absl::StatusOr<std::string> TargetOf(const std::string& path, bool refuse_links) {
  if (path.empty() || path.back() == '/') {
    return absl::InvalidArgumentError(absl::StrFormat("'%s' is not a file name", path));
  }
  struct stat info;
  const bool is_link = lstat(path.c_str(), &info) == 0 && S_ISLNK(info.st_mode);
  if (is_link && refuse_links) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "'%s': expected a name that is free or a regular file to replace, found a link; remove it", path));
  }
  if (stat(path.c_str(), &info) != 0) {
    if (!is_link) return path;
    return absl::InvalidArgumentError(absl::StrFormat(
        "'%s' is a link to a file that cannot be reached; make the folder and file it names, or remove the link",
        path));
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "'%s' exists and is not a regular file; expected a name that is free or a file to replace", path));
  }
  char* resolved = is_link ? realpath(path.c_str(), nullptr) : nullptr;
  std::string target = resolved != nullptr ? resolved : path;
  std::free(resolved);
  return target;
}

}  // namespace

absl::StatusOr<AtomicFile> AtomicFile::Create(const std::string& path, const AtomicFileOptions& options) {
  static std::atomic<unsigned> counter{0};
  const absl::StatusOr<std::string> target = TargetOf(path, options.refuse_links);
  if (!target.ok()) return target.status();
  RemoveLeftovers(*target);
  // The process id and a counter make the name unique among the living, but for containers that share the folder and
  // count processes alike; O_EXCL skips their files and leftovers that cannot be removed.
  for (int attempt = 0; attempt < 100; ++attempt) {
    std::string temporary = absl::StrCat(*target, kTemporary, getpid(), ".", counter.fetch_add(1));
    const mode_t mode = options.access ? 0600 : 0666;
    const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd >= 0) {
      if (IsOurs(fd, temporary)) return AtomicFile(*target, std::move(temporary), fd, options.access);
      close(fd);
    } else if (errno != EEXIST) {
      return absl::ErrnoToStatus(errno, absl::StrFormat("file '%s': cannot create '%s'", path, temporary));
    }
  }
  return absl::AlreadyExistsError(absl::StrFormat("file '%s': too many leftovers '%s.tmp.*'; remove them", path, path));
}

AtomicFile::AtomicFile(std::string path, std::string temporary, int fd, std::optional<FileAccess> access)
    : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd), access_(access) {
  buffer_.reserve(kBufferBytes);
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::move(other.temporary_)),
      fd_(std::exchange(other.fd_, -1)),
      access_(other.access_),
      buffer_(std::move(other.buffer_)) {
  other.temporary_.clear();
}

AtomicFile::~AtomicFile() {
  if (!temporary_.empty()) unlink(temporary_.c_str());
  if (fd_ >= 0) close(fd_);
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

void AtomicFile::SetAccess() {
  struct stat facts;
  if (!access_ || fstat(fd_, &facts) != 0) return;
  mode_t mode = access_->mode & 0777;
  if (facts.st_gid != access_->group) {  // members of either group are others for the other one
    const mode_t others = mode & 07 & (mode >> 3);
    mode = (mode & 0700) | others << 3 | others;
  }
  // A file system without permissions may refuse, and where there are some the file stays its owner's alone.
  (void)fchmod(fd_, mode);
}

absl::Status AtomicFile::Commit() {
  if (absl::Status s = Flush(); !s.ok()) return s;
  SetAccess();
  // Without this a crash after the rename could leave an empty file under the final name.
  if (fsync(fd_) != 0) return Error(errno, "flush");
  if (rename(temporary_.c_str(), path_.c_str()) != 0) return Error(errno, "rename");
  temporary_.clear();
  // Not before: it gives the lock up. What it could still report, fsync has.
  close(std::exchange(fd_, -1));
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
