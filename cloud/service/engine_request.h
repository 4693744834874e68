// From a request on the wire to one of the engine.
#pragma once

#include "absl/status/statusor.h"
#include "cloud/engine/request.h"
#include "common/serving/served_model.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

struct RequestLimits {
  int max_tokens_default = 0;  // answer tokens when a request does not say; 0: until the end, or what there is room for
  int max_sequence_tokens = 0;  // prompt and answer together: the model's context, or what the KV pool holds
};

// Checks every field and converts. INVALID_ARGUMENT names the field, FAILED_PRECONDITION is for token ids of another
// vocabulary, OUT_OF_RANGE for what never has room. The deadline is the caller's to set. Any thread.
// features, if not null: what confidence goes by of the prompt.
absl::StatusOr<engine::Request> ToEngineRequest(const ServedModel& model, const v1::GenerateRequest& request,
                                                const RequestLimits& limits, PromptFeatures* features = nullptr);

}  // namespace updraft
