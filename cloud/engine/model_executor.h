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
  absl::Status Run(const Step& step, std::span<SampledToken> sampled) override;

 private:
  // Rows for which logits are computed at once: [kHeadRows, n_vocab] floats stay within tens of MB for the largest
  // vocabularies.
  static constexpr int kHeadRows = 16;

  const Model* model_;
  std::unique_ptr<KvStore> kv_;
  Scratch scratch_;
  std::vector<int32_t> wanted_;
  std::vector<float> hidden_;     // [n_tok, d_model]
  std::vector<float> head_rows_;  // [<= kHeadRows, d_model]
  std::vector<float> logits_;     // [<= kHeadRows, n_vocab]
};

}  // namespace updraft::engine
