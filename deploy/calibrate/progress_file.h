// What a long run has found out so far, so that the same run begun again goes on from there.
#pragma once

#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/sync/mutex.h"

namespace updraft {

// JSONL: the run's name first, then one finding a line, each written out at once. A last line that was broken off is
// forgotten. Thread-safe.
class ProgressFile {
 public:
  // run: what distinguishes this run from others, any text; findings of another are dropped. PermissionDenied or
  // Internal where the file cannot be written.
  static absl::StatusOr<std::unique_ptr<ProgressFile>> Open(const std::string& path, const std::string& run);

  // kind: of finding; key: of what. Text that is not UTF-8 comes back with U+FFFD in its place.
  std::optional<std::string> Find(std::string_view kind, std::string_view key) const;
  // DataLoss: the disk is full, or the file is gone.
  absl::Status Add(std::string_view kind, std::string_view key, const std::string& finding);
  int n_found_at_start() const { return n_at_start_; }
  const std::string& path() const { return path_; }
  // The run is over.
  void Remove();

 private:
  explicit ProgressFile(std::string path) : path_(std::move(path)) {}
  std::string Load(const std::string& run) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);  // the lines that stand

  const std::string path_;
  int n_at_start_ = 0;
  mutable Mutex mu_;
  std::ofstream out_ ABSL_GUARDED_BY(mu_);
  std::map<std::pair<std::string, std::string>, std::string> findings_ ABSL_GUARDED_BY(mu_);
};

}  // namespace updraft
