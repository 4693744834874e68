#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/str_format.h"
#include "deploy/relay/relay.h"

namespace updraft::relay {
namespace {

// Appends to files that are opened for each piece: connections are many, descriptors few.
class FolderWriter {
 public:
  explicit FolderWriter(std::string folder) : folder_(std::move(folder)) {}

  void Write(uint64_t connection, Direction direction, std::string_view bytes) {
    const std::string path = absl::StrFormat("%s/%d.%s", folder_, connection, DirectionName(direction));
    std::ofstream file(path, std::ios::binary | std::ios::app);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    file.close();
    if (file || told_) return;
    told_ = true;
    std::fprintf(stderr, "relay: capture '%s': cannot be written: %s; what passes is not all kept\n", path.c_str(),
                 std::strerror(errno));
  }

 private:
  const std::string folder_;
  bool told_ = false;
};

}  // namespace

absl::StatusOr<Capture> CaptureToFolder(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    return absl::UnavailableError(
        absl::StrFormat("capture '%s': the folder cannot be made: %s", folder, error.message()));
  }
  // Files of an earlier run would be continued.
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string extension = entry.path().extension().string();
    if (extension == ".up" || extension == ".down") {
      return absl::AlreadyExistsError(absl::StrFormat(
          "capture '%s': expected a folder without captured files, found '%s'; remove them, or choose another", folder,
          entry.path().filename().string()));
    }
  }
  auto writer = std::make_shared<FolderWriter>(folder);
  return Capture([writer](uint64_t connection, Direction direction, std::string_view bytes) {
    writer->Write(connection, direction, bytes);
  });
}

}  // namespace updraft::relay
