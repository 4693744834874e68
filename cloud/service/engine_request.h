// From a request on the wire to one of the engine.
#pragma once

#include "absl/status/statusor.h"
#include "cloud/engine/request.h"
#include "common/serving/served_model.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

struct RequestLimits {
  int max_tokens_default = 256;  // answer tokens when a request does not say
  int max_sequence_tokens = 0;   // capacity of the KV pool: the default above is lowered to what fits
};

// Checks every field and converts. INVALID_ARGUMENT names the field, FAILED_PRECONDITION is for token ids of another
// vocabulary. The deadline is the caller's to set; room in the pool is the engine's to check. Any thread.
absl::StatusOr<engine::Request> ToEngineRequest(const ServedModel& model, const v1::GenerateRequest& request,
                                                const RequestLimits& limits);

}  // namespace updraft
