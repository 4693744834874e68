#include "common/model/weight_packer.h"

#include <chrono>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/model/packed_file.h"

namespace updraft {
namespace {

using Clock = std::chrono::steady_clock;

// Calls back at the rate that LoadOptions promises.
class Progress {
 public:
  Progress(const LoadOptions& options, uint64_t total) : call_(options.on_progress), total_(total) {}

  void Add(uint64_t bytes) {
    done_ += bytes;
    if (!call_ || done_ == total_ || Clock::now() - last_ < kInterval) return;
    last_ = Clock::now();
    call_(done_, total_);
  }
  void Finish() {
    if (call_) call_(total_, total_);
  }

 private:
  static constexpr std::chrono::milliseconds kInterval{50};

  const std::function<void(uint64_t, uint64_t)>& call_;
  const uint64_t total_;
  uint64_t done_ = 0;
  Clock::time_point last_ = Clock::now();
};

class Packer {
 public:
  Packer(std::span<const MatrixToPack> matrices, const gguf::File& file, kernels::Ops& ops, const LoadOptions& options,
         PackedCacheUse& use)
      : matrices_(matrices), file_(file), ops_(ops), use_(use) {
    if (!options.packed_cache.empty()) Plan(options.packed_cache, file);
  }

  std::vector<std::unique_ptr<kernels::PackedMatrix>> Run(Progress& progress) {
    std::optional<PackedFile> kept = Open();
    std::vector<std::unique_ptr<kernels::PackedMatrix>> packed;
    size_t n_kept = 0;
    for (const MatrixToPack& matrix : matrices_) {
      std::unique_ptr<kernels::PackedMatrix> result;
      if (kept && ops_.PackedSize(matrix.tensor->type, matrix.n_out, matrix.n_in) > 0) {
        auto read = kept->Read(n_kept++, ops_);
        if (read.ok()) {
          result = *std::move(read);
        } else {  // and so may be the rest
          WarnOfReplacing(read.status());
          kept.reset();
        }
      }
      if (result == nullptr) {
        result = ops_.Pack(matrix.tensor->type, matrix.n_out, matrix.n_in, matrix.tensor->data.data());
      }
      packed.push_back(std::move(result));
      progress.Add(matrix.tensor->data.size());
    }
    if (kept) {
      use_.outcome = PackedCacheUse::Outcome::kRead;
    } else if (plan_ != nullptr) {
      Write(packed);
    }
    return packed;
  }

 private:
  void Plan(const std::string& folder, const gguf::File& file) {
    std::vector<PackedEntry> entries;
    for (const MatrixToPack& m : matrices_) {
      const size_t bytes = ops_.PackedSize(m.tensor->type, m.n_out, m.n_in);
      if (bytes > 0) entries.push_back({m.tensor->name, m.tensor->type, m.n_out, m.n_in, bytes});
    }
    if (entries.empty()) return;
    auto plan = PackedFilePlan::Create(folder, file, ops_.PackedLayout(), std::move(entries));
    if (!plan.ok()) {
      Fail(plan.status());
      return;
    }
    plan_ = *std::move(plan);
    use_.path = plan_->path();
  }

  std::optional<PackedFile> Open() {
    if (plan_ == nullptr) return std::nullopt;
    absl::StatusOr<PackedFile> file = plan_->Open();
    if (file.ok()) return *std::move(file);
    if (!absl::IsNotFound(file.status())) WarnOfReplacing(file.status());
    return std::nullopt;
  }

  void Write(std::span<const std::unique_ptr<kernels::PackedMatrix>> packed) {
    std::vector<std::span<const uint8_t>> contents;
    for (const auto& matrix : packed) {
      const std::span<const uint8_t> bytes = ops_.PackedBytes(*matrix);
      if (!bytes.empty()) contents.push_back(bytes);
    }
    absl::Status status = file_.CheckIntact();  // what was packed from another file must not be found again
    if (status.ok()) status = plan_->Write(contents);
    if (!status.ok()) {
      Fail(status);
    } else {
      use_.outcome = PackedCacheUse::Outcome::kWritten;
    }
  }

  void WarnOfReplacing(const absl::Status& status) {
    use_.warnings.push_back(
        absl::StrCat(std::string(status.message()), "; the weights are packed and it is to be replaced"));
  }

  void Fail(const absl::Status& status) {
    use_.outcome = PackedCacheUse::Outcome::kFailed;
    use_.warnings.push_back(
        absl::StrCat(std::string(status.message()), "; without the file, the weights are packed at every load"));
  }

  const std::span<const MatrixToPack> matrices_;
  const gguf::File& file_;
  kernels::Ops& ops_;
  PackedCacheUse& use_;
  std::unique_ptr<PackedFilePlan> plan_;  // null: no packed file
};

}  // namespace

const char* Name(PackedCacheUse::Outcome outcome) {
  switch (outcome) {
    case PackedCacheUse::Outcome::kOff:
      return "off";
    case PackedCacheUse::Outcome::kRead:
      return "read";
    case PackedCacheUse::Outcome::kWritten:
      return "written";
    case PackedCacheUse::Outcome::kFailed:
      return "failed";
  }
  return "";
}

std::vector<std::unique_ptr<kernels::PackedMatrix>> PackMatrices(std::span<const MatrixToPack> matrices,
                                                                 const gguf::File& file, kernels::Ops& ops,
                                                                 const LoadOptions& options, PackedCacheUse& use) {
  uint64_t total = 0;
  for (const MatrixToPack& matrix : matrices) total += matrix.tensor->data.size();
  Progress progress(options, total);
  auto packed = Packer(matrices, file, ops, options, use).Run(progress);
  progress.Finish();
  return packed;
}

}  // namespace updraft
