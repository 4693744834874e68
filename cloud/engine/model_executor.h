// The executor on a real model: forward pass, final head, sampling.
#pragma once

#include <memory>
#include <vector>

#include "cloud/engine/executor.h"
#include "common/model/kv_store.h"
#include "common/model/model.h"

namespace updraft::engine {

class ModelExecutor final : public Executor {
 public:
  // `model` must outlive the executor, and no other thread may run it. `kv` is the model's.
  ModelExecutor(const Model* model, std::unique_ptr<KvStore> kv);

  int n_vocab() const override;
  int context_length() const override;
  std::optional<KvBlocks> kv_blocks() const override;
  absl::Status Run(const Step& step, std::span<SampledToken> sampled) override;

 private:
  // Rows for which logits are computed at once: [kHeadRows, n_vocab] floats stay within tens of MB for the largest
  // vocabularies.
  static constexpr size_t kHeadRows = 16;

  void RunRows(const Step& step, std::span<SampledToken> sampled);  // up to a fault; may throw bad_alloc
  SampledToken Sample(const SampleRow& sample, std::span<float> logits);

  const Model* model_;
  std::unique_ptr<KvStore> kv_;
  Scratch scratch_;
  std::vector<int32_t> wanted_, head_order_;
  // In the memory of the model's Ops.
  kernels::Buffer hidden_;     // [n_tok, d_model]
  kernels::Buffer head_rows_;  // [kHeadRows, d_model]
  kernels::Buffer logits_;     // [kHeadRows, n_vocab]
  // The host's.
  std::vector<float> host_logits_;  // where a device's logits are copied to
  std::vector<float> original_;     // [n_vocab]
};

}  // namespace updraft::engine
