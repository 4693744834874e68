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
                         const AvailableMemory& available, int n_at_once = 1);

// What is there at once. kv.n_blocks is set by kv_tokens.
struct ServedAtOnce {
  int kv_tokens = 0;
  KvStoreOptions kv = {};
  int max_rows = 0;  // tokens in one step
  // Sequences that run in turn, each with rows of its own: of kv_tokens no more is taken than they can fill. 0: they
  // run as one batch.
  int n_in_turn = 0;
};

// For LoadOptions::admit: CheckMemory against what this process may take now, which it logs.
AdmitModel AdmitWithinMemory(const ServedAtOnce& served);
// Of the cache, in tokens.
int KvTokensOf(const ServedAtOnce& served, const ModelConfig& config);

}  // namespace updraft
