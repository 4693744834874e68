#include "common/model/memory_need.h"

namespace updraft {

absl::StatusOr<MemoryNeed> NeedOf(const ModelConfig& config, const WeightsNeed& weights, const KvStoreOptions& kv,
                                  int max_rows, int n_at_once) {
  const absl::StatusOr<size_t> kv_bytes = KvStore::BytesFor(config, kv);
  if (!kv_bytes.ok()) return kv_bytes.status();
  const ModelConfig& c = config;
  // Scratch (forward.h) and hidden states of each row, logits of 16 rows at most at once.
  const int64_t row = 2 * (int64_t{c.d_model} + (int64_t{c.n_head} + c.n_kv_head) * c.head_dim + c.d_ff);
  const int64_t head = 16 * (int64_t{c.n_vocab} + c.d_model);
  // What a sequence keeps while others run: some hidden states, and logits that sampling changes.
  const int64_t kept = 32 * int64_t{c.d_model} + c.n_vocab;
  return MemoryNeed{
      .weights_bytes = weights.weights_bytes,
      .kv_bytes = *kv_bytes,
      .step_bytes = sizeof(float) * static_cast<uint64_t>(row * max_rows + head + kept * (n_at_once - 1)),
      // A tokenizer takes some four times what its vocabulary takes in the file; servers and threads little.
      .other_bytes = 4 * weights.header_bytes + (uint64_t{8} << 20)};
}

}  // namespace updraft
