#ifndef UPDRAFT_COMMON_FILES_SHA256_H_
#define UPDRAFT_COMMON_FILES_SHA256_H_

#include <cstddef>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace updraft {

// SHA-256 of the bytes in lower-case hexadecimal, as sha256sum prints it. UNIMPLEMENTED in a build without OpenSSL,
// INTERNAL when it refuses.
absl::StatusOr<std::string> Sha256Hex(std::span<const std::byte> bytes);

}  // namespace updraft

#endif  // UPDRAFT_COMMON_FILES_SHA256_H_
