#include "common/files/read_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_format.h"

namespace updraft {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 20;

absl::Status CannotOpen(const std::string& path, int error) {
  const std::string message = absl::StrFormat("'%s': cannot be opened for reading: %s", path, std::strerror(error));
  if (error == ENOENT || error == ENOTDIR) return absl::NotFoundError(message);
  return error == EACCES || error == EPERM ? absl::PermissionDeniedError(message) : absl::UnavailableError(message);
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return CannotOpen(path, errno);
  const absl::Cleanup close_file = [fd] { close(fd); };
  struct stat info;
  if (fstat(fd, &info) == 0 && S_ISDIR(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrFormat("'%s': is a folder; expected a file", path));
  }
  std::string bytes;
  while (true) {
    const size_t piece = std::min(kPieceBytes, max_bytes + 1 - bytes.size());
    const size_t at = bytes.size();
    bytes.resize(at + piece);
    const ssize_t n = read(fd, bytes.data() + at, piece);
    bytes.resize(at + static_cast<size_t>(std::max<ssize_t>(n, 0)));
    if (n == 0) return bytes;
    if (n < 0 && errno != EINTR) {
      return absl::DataLossError(
          absl::StrFormat("'%s': cannot be read further than byte %d: %s", path, bytes.size(), std::strerror(errno)));
    }
    if (bytes.size() > max_bytes) {
      return absl::InvalidArgumentError(absl::StrFormat("'%s': is larger than %d bytes", path, max_bytes));
    }
  }
}

}  // namespace updraft
