// Where the evaluations take logits from: the product's forward pass or the double-precision reference.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "common/model/forward.h"
#include "common/model/kv_cache.h"
#include "deploy/evaluate/reference_forward.h"

namespace updraft {

// Runs one chunk of text at a time; the logits of its positions can be had in any order afterwards.
class LogitsSource {
 public:
  virtual ~LogitsSource() = default;
  virtual const ModelConfig& config() const = 0;
  // Runs tokens [n_tok] from an empty context. n_tok <= the context the source was made for.
  // Errors of both as in common/model/step_status.h.
  virtual absl::Status Run(std::span<const int32_t> tokens) = 0;
  // logits: [n_rows, n_vocab] of positions [first, first + n_rows) of the chunk that ran last.
  virtual absl::Status Logits(int first, int n_rows, std::span<float> logits) = 0;
};

// The model as the product runs it. `model` must outlive the source.
class ModelSource : public LogitsSource {
 public:
  // InvalidArgument when the model cannot hold `context` tokens.
  static absl::StatusOr<std::unique_ptr<ModelSource>> Create(const Model* model, int context,
                                                             kernels::KvType kv_type = kernels::KvType::kF16);
  const ModelConfig& config() const override { return model_->config(); }
  absl::Status Run(std::span<const int32_t> tokens) override;
  absl::Status Logits(int first, int n_rows, std::span<float> logits) override;

 private:
  ModelSource(const Model* model, std::unique_ptr<KvPool> pool) : model_(model), pool_(std::move(pool)) {}
  const Model* model_;
  std::unique_ptr<KvPool> pool_;
  Scratch scratch_;
  kernels::Buffer hidden_;  // [n_tok, d_model]
  kernels::Buffer logits_;  // [n_rows, n_vocab]
};

// The same in double precision on the dequantized weights. `model` must outlive the source.
class ReferenceSource : public LogitsSource {
 public:
  explicit ReferenceSource(const Model* model, const ReferenceOptions& options = {}) : reference_(*model, options) {}
  const ModelConfig& config() const override { return reference_.config(); }
  absl::Status Run(std::span<const int32_t> tokens) override;
  absl::Status Logits(int first, int n_rows, std::span<float> logits) override;

 private:
  ReferenceModel reference_;
  std::vector<double> hidden_;  // [n_tok, d_model]
};

}  // namespace updraft
