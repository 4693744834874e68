// Local answers in a progress file.
#pragma once

#include <optional>

#include "absl/status/status.h"
#include "deploy/calibrate/progress_file.h"
#include "deploy/task/answerer.h"

namespace updraft {

// progress must outlive it.
class StoredAnswers final : public AnswerStore {
 public:
  explicit StoredAnswers(ProgressFile* progress) : progress_(progress) {}
  // One that cannot be read is made again.
  std::optional<LocalAnswer> Find(int i) override;
  absl::Status Keep(int i, const LocalAnswer& answer) override;

 private:
  ProgressFile* const progress_;
};

}  // namespace updraft
