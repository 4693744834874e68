#include "common/gguf/reader.h"

#include <algorithm>
#include <utility>

#include "common/files/file_error.h"
#include "common/gguf/parser.h"

namespace updraft::gguf {

absl::StatusOr<File> File::Open(const std::string& path, const MapOptions& options) {
  absl::StatusOr<MappedFile> mapping = MappedFile::Open(path, options);
  if (!mapping.ok()) return mapping.status();
  Parser parser(mapping->bytes(), path);
  if (absl::Status status = parser.Parse(); !status.ok()) return AsFileError(status);
  return parser.TakeFile(*std::move(mapping));
}

absl::StatusOr<File> File::Parse(std::span<const std::byte> bytes, std::string name) {
  Parser parser(bytes, std::move(name));
  if (absl::Status status = parser.Parse(); !status.ok()) return status;
  return parser.TakeFile(MappedFile());
}

const Value* File::Find(std::string_view key) const {
  const auto at = std::lower_bound(metadata_by_key_.begin(), metadata_by_key_.end(), key,
                                   [this](uint32_t i, std::string_view k) { return metadata_[i].key < k; });
  return at != metadata_by_key_.end() && metadata_[*at].key == key ? &metadata_[*at].value : nullptr;
}

const TensorInfo* File::FindTensor(std::string_view name) const {
  const auto at = std::lower_bound(tensors_by_name_.begin(), tensors_by_name_.end(), name,
                                   [this](uint32_t i, std::string_view n) { return tensors_[i].name < n; });
  return at != tensors_by_name_.end() && tensors_[*at].name == name ? &tensors_[*at] : nullptr;
}

}  // namespace updraft::gguf
