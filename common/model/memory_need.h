// What a model takes of a process's memory while it is served.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "common/model/config.h"
#include "common/model/kv_store.h"

namespace updraft {

struct MemoryNeed {
  // Packed matrices, and what is read in the file where it lies: pages that the kernel can give back, but must read
  // again for the next token.
  uint64_t weights_bytes = 0;
  uint64_t kv_bytes = 0;     // resident as blocks are first written
  uint64_t step_bytes = 0;   // activations of the largest step
  uint64_t other_bytes = 0;  // tokenizer and the rest of the process
  uint64_t total() const { return weights_bytes + kv_bytes + step_bytes + other_bytes; }
};

struct WeightsNeed {
  uint64_t weights_bytes = 0;
  uint64_t in_place_bytes = 0;  // of them: read in the file, which is mapped already
  uint64_t header_bytes = 0;    // of the file: its metadata, the vocabulary above all
};

// max_rows: tokens in one step. n_at_once: sequences of which each keeps rows of its own (common/decode/rows.h); a
// batch is one. InvalidArgument for KV options that cannot be.
absl::StatusOr<MemoryNeed> NeedOf(const ModelConfig& config, const WeightsNeed& weights, const KvStoreOptions& kv,
                                  int max_rows, int n_at_once = 1);

}  // namespace updraft
