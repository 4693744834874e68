// Whether a model and its KV cache fit into this process's memory, asked before anything is packed: refused at start,
// with the numbers, rather than killed when the cache fills.
#pragma once

#include "absl/status/status.h"
#include "common/memory/available.h"
#include "common/model/config.h"
#include "common/model/load_options.h"
#include "common/model/memory_need.h"

namespace updraft {

// RESOURCE_EXHAUSTED says what is needed for what, what there is and why not more, and which flags to change: those of
// both daemons. kv: as wanted; the message states how many tokens would fit.
absl::Status CheckMemory(const ModelConfig& config, const WeightsNeed& weights, const KvStoreOptions& kv, int max_rows,
                         const AvailableMemory& available);

// For LoadOptions::admit: CheckMemory against what this process may take now, which it logs. kv_tokens: of the cache,
// at most the model's context where `one_sequence`.
AdmitModel AdmitWithinMemory(int kv_tokens, KvStoreOptions kv, bool one_sequence, int max_rows);

}  // namespace updraft
