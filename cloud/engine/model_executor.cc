#include "cloud/engine/model_executor.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace updraft::engine {

ModelExecutor::ModelExecutor(const Model* model, std::unique_ptr<KvStore> kv) : model_(model), kv_(std::move(kv)) {
  head_rows_.resize(static_cast<size_t>(kHeadRows) * model->config().d_model);
  logits_.resize(static_cast<size_t>(kHeadRows) * model->config().n_vocab);
}

int ModelExecutor::n_vocab() const { return model_->config().n_vocab; }
int ModelExecutor::context_length() const { return model_->config().context_length; }

absl::Status ModelExecutor::Run(const Step& step, std::span<SampledToken> sampled) {
  const Batch& batch = step.batch;
  const std::span<const SampleRow> samples = step.samples;
  for (const BlockMove& move : step.moves) kv_->CopyBlock(move.from, move.to);
  const ModelConfig& config = model_->config();
  const size_t d_model = config.d_model, n_vocab = config.n_vocab;
  const size_t n_hidden = batch.tokens.size() * d_model;
  if (hidden_.size() < n_hidden) hidden_.resize(n_hidden);
  const std::span<float> hidden(hidden_.data(), n_hidden);
  wanted_.clear();
  for (const SampleRow& sample : samples) wanted_.push_back(sample.row);
  std::sort(wanted_.begin(), wanted_.end());
  wanted_.erase(std::unique(wanted_.begin(), wanted_.end()), wanted_.end());
  Batch sampled_batch = batch;
  sampled_batch.wanted = wanted_;
  Forward(*model_, sampled_batch, {.from = 0, .to = config.n_layer}, hidden, *kv_, scratch_);

  for (size_t first = 0; first < samples.size(); first += kHeadRows) {
    const size_t n_rows = std::min<size_t>(kHeadRows, samples.size() - first);
    for (size_t i = 0; i < n_rows; ++i) {
      std::copy_n(hidden.data() + samples[first + i].row * d_model, d_model, head_rows_.data() + i * d_model);
    }
    ComputeLogits(*model_, /*exit=*/-1, std::span<const float>(head_rows_.data(), n_rows * d_model),
                  static_cast<int>(n_rows), std::span<float>(logits_.data(), n_rows * n_vocab));
    for (size_t i = 0; i < n_rows; ++i) {
      const SampleRow& sample = samples[first + i];
      SampledToken& result = sampled[first + i];
      const std::span<float> logits(logits_.data() + i * n_vocab, n_vocab);
      result = SampledToken();
      // Evidence is about the model's own distribution, so it is taken before sampling reshapes the logits; only the
      // log-probability of the choice has to wait for it.
      std::vector<float> original;
      const bool keep = sample.include_evidence && !LeavesLogitsUnchanged(*sample.sampling);
      if (keep) original.assign(logits.begin(), logits.end());
      result.token = SampleToken(logits, *sample.sampling, static_cast<int64_t>(sample.context.size()), sample.context);
      if (!sample.include_evidence) continue;
      result.evidence = EvidenceOf(keep ? std::span<const float>(original) : logits, result.token);
      result.evidence.exit_layer = config.n_layer;
    }
  }
  return absl::OkStatus();
}

}  // namespace updraft::engine
