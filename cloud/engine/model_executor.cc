#include "cloud/engine/model_executor.h"

#include <algorithm>
#include <cstddef>
#include <new>
#include <utility>

#include "common/model/step_status.h"

namespace updraft::engine {

ModelExecutor::ModelExecutor(const Model* model, std::unique_ptr<KvStore> kv) : model_(model), kv_(std::move(kv)) {}

int ModelExecutor::n_vocab() const { return model_->config().n_vocab; }
int ModelExecutor::context_length() const { return model_->config().context_length; }

std::optional<KvBlocks> ModelExecutor::kv_blocks() const {
  return KvBlocks{.n_blocks = kv_->n_blocks(), .block_tokens = kv_->block_tokens()};
}

absl::Status ModelExecutor::Run(const Step& step, std::span<SampledToken> sampled) {
  try {
    RunRows(step, sampled);
  } catch (const std::bad_alloc&) {
    // Of the lists on the host; what was asked of the model goes on until it is awaited.
    model_->ops().Fail(kernels::Fault::kOutOfMemory);
  }
  return TakeStepStatus(*model_);
}

void ModelExecutor::RunRows(const Step& step, std::span<SampledToken> sampled) {
  const Batch& batch = step.batch;
  const std::span<const SampleRow> samples = step.samples;
  for (const BlockMove& move : step.moves) kv_->CopyBlock(move.from, move.to);
  const ModelConfig& config = model_->config();
  const size_t d_model = config.d_model, n_vocab = config.n_vocab;
  kernels::Ops& ops = model_->ops();
  const size_t n_hidden = batch.tokens.size() * d_model;
  if (!kernels::GrowTo(ops, n_hidden * sizeof(float), hidden_) ||
      !kernels::GrowTo(ops, kHeadRows * d_model * sizeof(float), head_rows_) ||
      !kernels::GrowTo(ops, kHeadRows * n_vocab * sizeof(float), logits_)) {
    return;
  }
  const std::span<float> hidden(hidden_.floats(), n_hidden);
  wanted_.clear();
  for (const SampleRow& sample : samples) wanted_.push_back(sample.row);
  std::sort(wanted_.begin(), wanted_.end());
  wanted_.erase(std::unique(wanted_.begin(), wanted_.end()), wanted_.end());
  Batch sampled_batch = batch;
  sampled_batch.wanted = wanted_;
  Forward(*model_, sampled_batch, {.from = 0, .to = config.n_layer}, hidden, *kv_, scratch_);

  for (size_t first = 0; first < samples.size(); first += kHeadRows) {
    const size_t n_rows = std::min<size_t>(kHeadRows, samples.size() - first);
    head_order_.clear();
    for (size_t i = 0; i < n_rows; ++i) head_order_.push_back(samples[first + i].row);
    ops.GatherRows(hidden.data(), head_order_, config.d_model, head_rows_.floats());
    ComputeLogits(*model_, /*exit=*/-1, std::span<const float>(head_rows_.floats(), n_rows * d_model),
                  static_cast<int>(n_rows), std::span<float>(logits_.floats(), n_rows * n_vocab));
    const std::span<float> logits = ops.HostView(logits_.floats(), n_rows * n_vocab, host_logits_);
    if (logits.empty()) break;  // a fault
    for (size_t i = 0; i < n_rows; ++i) {
      sampled[first + i] = Sample(samples[first + i], logits.subspan(i * n_vocab, n_vocab));
    }
  }
}

SampledToken ModelExecutor::Sample(const SampleRow& sample, std::span<float> logits) {
  SampledToken result;
  // Evidence is about the model's own distribution, so it is taken before sampling reshapes the logits; only the
  // log-probability of the choice has to wait for it.
  const bool changes = !LeavesLogitsUnchanged(*sample.sampling) || !sample.mask.empty();
  const bool keep = sample.include_evidence && sample.given < 0 && changes;
  if (keep) original_.assign(logits.begin(), logits.end());
  result.token = sample.given >= 0
                     ? sample.given
                     : SampleToken(logits, *sample.sampling, static_cast<int64_t>(sample.context.tokens.size()),
                                   sample.context, sample.mask);
  if (!sample.include_evidence) return result;
  const std::span<const float> original = keep ? std::span<const float>(original_) : logits;
  result.evidence = EvidenceOf(original, result.token);
  result.evidence.top = TopLogprobs(original, sample.n_top_logprobs);
  if (!sample.ends.empty()) result.evidence.logprob = LogProbabilityOfAny(logits, sample.ends);
  result.evidence.exit_layer = model_->config().n_layer;
  return result;
}

}  // namespace updraft::engine
