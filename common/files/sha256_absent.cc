// In place of sha256.cc in a build without OpenSSL.
#include "common/files/sha256.h"

namespace updraft {

absl::StatusOr<std::string> Sha256Hex(std::span<const std::byte> /*bytes*/) {
  return absl::UnimplementedError("SHA-256: this build has no OpenSSL");
}

}  // namespace updraft
