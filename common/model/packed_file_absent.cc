// In place of packed_file.cc where there is no OpenSSL: models load, and say that they keep no packed weights.
#include "common/model/packed_file.h"

namespace updraft {

PackedFile::PackedFile(PackedFile&& other) noexcept : fd_(other.fd_), plan_(other.plan_) {}
PackedFile::~PackedFile() = default;

absl::StatusOr<std::unique_ptr<kernels::PackedMatrix>> PackedFile::Read(size_t, kernels::Ops&) const {
  return absl::UnimplementedError("packed weights: not in this build");
}

absl::StatusOr<std::unique_ptr<PackedFilePlan>> PackedFilePlan::Create(const std::string& folder, const gguf::File&,
                                                                       uint32_t, std::vector<PackedEntry>) {
  return absl::UnimplementedError("packed weights '" + folder +
                                  "': this program was built without OpenSSL, whose checksums they need; build it "
                                  "where libssl-dev is installed, or do not ask for them");
}

absl::StatusOr<PackedFile> PackedFilePlan::Open() const {
  return absl::UnimplementedError("packed weights: not in this build");
}

absl::Status PackedFilePlan::Write(std::span<const std::span<const uint8_t>>) const {
  return absl::UnimplementedError("packed weights: not in this build");
}

}  // namespace updraft
