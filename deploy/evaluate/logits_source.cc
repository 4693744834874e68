#include "deploy/evaluate/logits_source.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_format.h"
#include "common/model/step_status.h"

namespace updraft {

absl::StatusOr<std::unique_ptr<ModelSource>> ModelSource::Create(const Model* model, int context,
                                                                 kernels::KvType kv_type) {
  constexpr int kBlockTokens = 16;
  if (context < 1 || context > model->config().context_length) {
    return absl::InvalidArgumentError(absl::StrFormat("context: expected 1 to the %d tokens of model '%s', found %d",
                                                      model->config().context_length, model->config().name, context));
  }
  absl::StatusOr<std::unique_ptr<KvPool>> pool = KvPool::Create(
      model->ops(), model->config(),
      {.n_blocks = (context + kBlockTokens - 1) / kBlockTokens, .block_tokens = kBlockTokens, .type = kv_type});
  if (!pool.ok()) return pool.status();
  return std::unique_ptr<ModelSource>(new ModelSource(model, *std::move(pool)));
}

absl::Status ModelSource::Run(std::span<const int32_t> tokens) {
  constexpr size_t kChunk = 256;
  const size_t d_model = config().d_model;
  // One sequence after another owns the whole pool, so its block table is the identity.
  std::vector<int32_t> blocks(pool_->n_blocks());
  std::iota(blocks.begin(), blocks.end(), 0);
  std::vector<int32_t> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), 0);
  const std::vector<const int32_t*> tables(tokens.size(), blocks.data());
  kernels::Ops& ops = model_->ops();
  if (!kernels::GrowTo(ops, tokens.size() * d_model * sizeof(float), hidden_)) return TakeStepStatus(*model_);
  for (size_t done = 0; done < tokens.size(); done += kChunk) {
    const size_t n = std::min(kChunk, tokens.size() - done);
    const Batch batch = {.tokens = tokens.subspan(done, n),
                         .positions = std::span<const int32_t>(positions).subspan(done, n),
                         .block_tables = std::span<const int32_t* const>(tables).subspan(done, n)};
    Forward(*model_, batch, {.from = 0, .to = config().n_layer}, {hidden_.floats() + done * d_model, n * d_model},
            pool_->store(), scratch_);
  }
  return TakeStepStatus(*model_);
}

absl::Status ModelSource::Logits(int first, int n_rows, std::span<float> logits) {
  const size_t d_model = config().d_model;
  kernels::Ops& ops = model_->ops();
  const size_t n = static_cast<size_t>(n_rows) * config().n_vocab;
  if (!kernels::GrowTo(ops, n * sizeof(float), logits_)) return TakeStepStatus(*model_);
  ComputeLogits(*model_, -1, {hidden_.floats() + first * d_model, n_rows * d_model}, n_rows, {logits_.floats(), n});
  ops.Download(logits_.floats(), n * sizeof(float), logits.data());
  return TakeStepStatus(*model_);
}

absl::Status ReferenceSource::Run(std::span<const int32_t> tokens) {
  hidden_ = reference_.Hidden(tokens, config().n_layer);
  return absl::OkStatus();
}

absl::Status ReferenceSource::Logits(int first, int n_rows, std::span<float> logits) {
  const size_t d_model = config().d_model;
  const std::vector<double> exact =
      reference_.Logits(std::span<const double>(hidden_).subspan(first * d_model, n_rows * d_model));
  for (size_t i = 0; i < exact.size(); ++i) logits[i] = static_cast<float>(exact[i]);
  return absl::OkStatus();
}

}  // namespace updraft
