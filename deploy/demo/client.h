// Sends items through an agent with bounded concurrency.
#pragma once

#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rpc/inference_client.h"
#include "deploy/demo/record.h"

namespace updraft {

struct ClientOptions {
  v1::TierChoice tier = v1::TIER_CHOICE_UNSPECIFIED;
  int concurrency = 2;
  absl::Duration timeout = absl::Seconds(60);
  bool include_evidence = false;
  std::function<void(int done, int total)> on_progress;  // called by one thread at a time; may be empty
};

// One record per item, in order. An item that fails gets its status; when the first queries all fail, their error is
// returned.
absl::StatusOr<std::vector<AnswerRecord>> AskAll(InferenceClient& client, const std::vector<TaskItem>& items,
                                                 const ClientOptions& options);

}  // namespace updraft
