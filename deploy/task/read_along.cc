#include "deploy/task/read_along.h"

#include <algorithm>
#include <vector>

#include "common/model/forward.h"
#include "common/model/step_status.h"

namespace updraft {
namespace {

constexpr size_t kChunkRows = 256;

}  // namespace

absl::Status ReadAlong(Answerer& answerer, std::span<const int32_t> tokens, std::span<const int> heads, size_t first,
                       const std::function<void(size_t head, size_t row, std::span<const float> logits)>& visit) {
  const Model& model = answerer.model();
  const ModelConfig& config = model.config();
  const size_t d_model = config.d_model, n_vocab = config.n_vocab;
  SequenceKv sequence(&answerer.pool());
  if (absl::Status status = sequence.Reserve(static_cast<int>(tokens.size())); !status.ok()) return status;
  Scratch scratch;
  kernels::Ops& ops = model.ops();
  kernels::Buffer hidden, logits;
  std::vector<float> staging;
  std::vector<int32_t> positions;
  for (size_t begin = 0; begin < tokens.size(); begin += kChunkRows) {
    const size_t n_rows = std::min(kChunkRows, tokens.size() - begin);
    positions.resize(n_rows);
    for (size_t row = 0; row < n_rows; ++row) positions[row] = static_cast<int32_t>(begin + row);
    const std::vector<const int32_t*> tables(n_rows, sequence.blocks().data());
    const Batch batch{tokens.subspan(begin, n_rows), positions, tables};
    if (!kernels::GrowTo(ops, n_rows * d_model * sizeof(float), hidden) ||
        !kernels::GrowTo(ops, n_vocab * sizeof(float), logits)) {
      return TakeStepStatus(model);
    }
    int from = 0;
    for (size_t i = 0; i < heads.size(); ++i) {
      const int to = heads[i] == kFinalHead ? config.n_layer : config.exit_layers[heads[i]];
      Forward(model, batch, {from, to}, {hidden.floats(), n_rows * d_model}, answerer.pool().store(), scratch);
      from = to;
      for (size_t row = first > begin ? first - begin : 0; row < n_rows; ++row) {
        ComputeLogits(model, heads[i], {hidden.floats() + row * d_model, d_model}, 1, {logits.floats(), n_vocab});
        const std::span<const float> row_logits = ops.HostView(logits.floats(), n_vocab, staging);
        if (row_logits.empty()) return TakeStepStatus(model);
        visit(i, begin + row, row_logits);
      }
    }
  }
  return TakeStepStatus(model);
}

}  // namespace updraft
