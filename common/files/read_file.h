// A small file in one piece.
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"

namespace updraft {

constexpr size_t kMaxReadFileBytes = size_t{1} << 30;

// All bytes of `path`: a regular file, a pipe or a device. NotFound when there is none, PermissionDenied when it may
// not be read, InvalidArgument for a folder or for more than `max_bytes`, DataLoss when reading fails half way. The
// messages begin with the path.
absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes = kMaxReadFileBytes);

}  // namespace updraft
