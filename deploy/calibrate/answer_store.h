// Local answers in a progress file.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "deploy/calibrate/progress_file.h"
#include "deploy/task/answerer.h"

namespace updraft {

// keys: of the conversations, in their order. progress must outlive it.
class StoredAnswers final : public AnswerStore {
 public:
  StoredAnswers(ProgressFile* progress, std::vector<std::string> keys) : progress_(progress), keys_(std::move(keys)) {}
  // One that cannot be read is made again.
  std::optional<LocalAnswer> Find(int i) override;
  absl::Status Keep(int i, const LocalAnswer& answer) override;

 private:
  ProgressFile* const progress_;
  const std::vector<std::string> keys_;
};

}  // namespace updraft
