#include "common/gguf/reader.h"

#include <sys/stat.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "common/files/file_error.h"
#include "common/gguf/parser.h"

namespace updraft::gguf {

absl::StatusOr<File> File::OpenOne(const std::string& path, const MapOptions& options) {
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

uint64_t File::file_bytes() const {
  uint64_t bytes = 0;
  for (const Part& part : parts_) bytes += part.bytes.size();
  return bytes;
}

int64_t File::modified_ns() const {
  int64_t last = 0;
  for (const Part& part : parts_) last = std::max(last, part.mapping.modified_ns());
  return last;
}

FileAccess File::access() const {
  FileAccess access = parts_.front().mapping.access();
  for (const Part& part : parts_) {
    access.mode &= part.mapping.access().mode;
    if (part.mapping.access().group != access.group) access.mode &= ~static_cast<mode_t>(S_IRWXG);
  }
  return access;
}

absl::Status File::CheckIntact() const {
  for (const Part& part : parts_) {
    if (absl::Status status = part.mapping.CheckIntact(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

namespace {

// Positions in `entries`, sorted by `name_of` them, in `order`; the first name that occurs twice, if any.
template <typename Entries, typename NameOf>
std::optional<std::string_view> SortedByName(const Entries& entries, NameOf name_of, std::vector<uint32_t>& order) {
  order.resize(entries.size());
  std::iota(order.begin(), order.end(), 0u);
  const auto name_at = [&](uint32_t i) -> std::string_view { return name_of(entries[i]); };
  std::ranges::sort(order, {}, name_at);
  const auto twice = std::ranges::adjacent_find(order, {}, name_at);
  return twice == order.end() ? std::nullopt : std::optional(name_at(*twice));
}

}  // namespace

std::optional<std::string_view> File::IndexMetadata() {
  return SortedByName(
      metadata_, [](const MetadataEntry& entry) { return entry.key; }, metadata_by_key_);
}

std::optional<std::string_view> File::IndexTensors() {
  return SortedByName(
      tensors_, [](const TensorInfo& tensor) -> std::string_view { return tensor.name; }, tensors_by_name_);
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
