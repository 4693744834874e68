// Models that are split into several files: File::Open.
#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/files/file_error.h"
#include "common/gguf/parser.h"
#include "common/gguf/reader.h"

namespace updraft::gguf {

// The keys that every part has, as llama.cpp's gguf-split writes them: its number from 0, how many parts there are, and
// how many tensors all parts have together. The first part has all other metadata as well, and perhaps no tensors.
constexpr char kNumberKey[] = "split.no";
constexpr char kCountKey[] = "split.count";
constexpr char kTensorsKey[] = "split.tensors.count";

// Adds the other parts to the first.
class PartJoiner {
 public:
  // `first` is a part of more than one.
  PartJoiner(File first, const MapOptions& options) : file_(std::move(first)), options_(options) {}

  absl::StatusOr<File> Join();

 private:
  absl::Status ReadFirst();
  absl::Status Add(uint32_t number);
  absl::Status CheckPart(const File& part, uint32_t number) const;
  absl::Status CheckWhole();
  std::string PathOf(uint32_t number) const;

  File file_;
  const MapOptions options_;
  std::string prefix_;  // of the parts' paths
  uint32_t n_parts_ = 0;
};

namespace {

std::string Suffix(uint32_t number, uint32_t n_parts) {
  return absl::StrFormat("-%05d-of-%05d.gguf", number + 1, n_parts);
}

absl::Status Mismatch(const File& part, const std::string& what) {
  return absl::DataLossError(absl::StrFormat("file '%s': %s; fetch all parts of one model again", part.path(), what));
}

}  // namespace

std::string PartJoiner::PathOf(uint32_t number) const { return prefix_ + Suffix(number, n_parts_); }

absl::StatusOr<File> PartJoiner::Join() {
  if (absl::Status status = ReadFirst(); !status.ok()) return status;
  for (uint32_t number = 1; number < n_parts_; ++number) {
    if (absl::Status status = Add(number); !status.ok()) return status;
  }
  if (absl::Status status = CheckWhole(); !status.ok()) return status;
  return std::move(file_);
}

absl::Status PartJoiner::ReadFirst() {
  const absl::StatusOr<uint32_t> n_parts = file_.GetU32(kCountKey);
  if (!n_parts.ok()) return AsFileError(n_parts.status());
  n_parts_ = *n_parts;
  const absl::StatusOr<uint32_t> number = file_.GetU32(kNumberKey);
  if (!number.ok()) return AsFileError(number.status());
  if (*number >= n_parts_) {
    return Mismatch(file_, absl::StrFormat("metadata '%s': expected a number below the %d of '%s', found %d",
                                           kNumberKey, n_parts_, kCountKey, *number));
  }
  const std::string suffix = Suffix(*number, n_parts_);
  if (!absl::EndsWith(file_.path(), suffix)) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "file '%s': part %d of a model in %d files; expected a name that ends in '%s', by which the others are found; "
        "rename the parts",
        file_.path(), *number + 1, n_parts_, suffix));
  }
  prefix_ = file_.path().substr(0, file_.path().size() - suffix.size());
  if (*number != 0) {
    return absl::FailedPreconditionError(
        absl::StrFormat("file '%s': part %d of a model in %d files; open the first, '%s'", file_.path(), *number + 1,
                        n_parts_, PathOf(0)));
  }
  return absl::OkStatus();
}

absl::Status PartJoiner::Add(uint32_t number) {
  absl::StatusOr<File> part = File::OpenOne(PathOf(number), options_);
  if (absl::IsNotFound(part.status())) {
    return absl::NotFoundError(absl::StrFormat(
        "file '%s': part %d of a model in %d files is missing: expected it as '%s'; fetch it, or the model again",
        file_.path(), number + 1, n_parts_, PathOf(number)));
  }
  if (!part.ok()) return part.status();
  if (absl::Status status = CheckPart(*part, number); !status.ok()) return status;
  std::ranges::move(part->tensors_, std::back_inserter(file_.tensors_));
  file_.alignment_ = std::min(file_.alignment_, part->alignment_);
  file_.parts_.push_back(std::move(part->parts_.front()));
  return absl::OkStatus();
}

absl::Status PartJoiner::CheckPart(const File& part, uint32_t number) const {
  const std::pair<const char*, uint32_t> expected[] = {{kNumberKey, number}, {kCountKey, n_parts_}};
  for (const auto& [key, value] : expected) {
    const absl::StatusOr<uint32_t> found = part.GetU32(key);
    if (!found.ok()) return AsFileError(found.status());
    if (*found != value) {
      return Mismatch(part, absl::StrFormat("metadata '%s': expected %d, found %d", key, value, *found));
    }
  }
  // Parts after the first need not say more; where they do it must be the same model.
  for (const char* key : {"general.architecture", "general.name"}) {
    const absl::StatusOr<std::string_view> ours = file_.GetStringOr(key, "");
    if (!ours.ok()) return AsFileError(ours.status());
    const absl::StatusOr<std::string_view> theirs = part.GetStringOr(key, *ours);
    if (!theirs.ok()) return AsFileError(theirs.status());
    if (*theirs != *ours) {
      return Mismatch(part, absl::StrFormat("metadata '%s': expected %s as in '%s', found %s", key, Quoted(*ours),
                                            file_.path(), Quoted(*theirs)));
    }
  }
  return absl::OkStatus();
}

absl::Status PartJoiner::CheckWhole() {
  if (const std::optional<std::string_view> twice = file_.IndexTensors()) {
    return Mismatch(file_, absl::StrFormat("tensor %s is in two of its %d parts", Quoted(*twice), n_parts_));
  }
  const absl::StatusOr<uint64_t> n_tensors = file_.GetU64Or(kTensorsKey, file_.tensors_.size());
  if (!n_tensors.ok()) return AsFileError(n_tensors.status());
  if (*n_tensors != file_.tensors_.size()) {
    return Mismatch(file_, absl::StrFormat("expected %d tensors in its %d parts ('%s'), found %d", *n_tensors, n_parts_,
                                           kTensorsKey, file_.tensors_.size()));
  }
  // The whole is in no parts: who writes it again writes one file.
  std::erase_if(file_.metadata_, [](const MetadataEntry& entry) {
    return entry.key == kNumberKey || entry.key == kCountKey || entry.key == kTensorsKey;
  });
  file_.IndexMetadata();
  return absl::OkStatus();
}

absl::StatusOr<File> File::Open(const std::string& path, const MapOptions& options) {
  absl::StatusOr<File> file = OpenOne(path, options);
  if (!file.ok()) return file;
  const absl::StatusOr<uint32_t> n_parts = file->GetU32Or(kCountKey, 1);
  if (!n_parts.ok()) return AsFileError(n_parts.status());
  if (*n_parts <= 1) return file;
  return PartJoiner(*std::move(file), options).Join();
}

}  // namespace updraft::gguf
