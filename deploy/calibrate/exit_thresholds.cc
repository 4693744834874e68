#include "deploy/calibrate/exit_thresholds.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "common/model/forward.h"
#include "common/model/step_status.h"

namespace updraft {
namespace {

constexpr size_t kChunkRows = 256;
constexpr float kNever = 2.0f;  // above any probability

int32_t ArgMax(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace

absl::StatusOr<std::vector<ExitTrace>> TraceExits(Answerer& answerer, const LocalAnswer& answer) {
  const Model& model = answerer.model();
  const ModelConfig& config = model.config();
  std::vector<ExitTrace> traces(config.exit_layers.size());
  std::vector<int32_t> chosen = answer.tokens;
  if (answer.end_token.has_value()) chosen.push_back(*answer.end_token);
  if (traces.empty() || chosen.empty() || answer.prompt_tokens.empty()) return traces;

  std::vector<int32_t> tokens = answer.prompt_tokens;
  tokens.insert(tokens.end(), chosen.begin(), chosen.end() - 1);
  const size_t first_choice = answer.prompt_tokens.size();  // the row whose logits chose chosen[1]
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
    const Batch batch{std::span(tokens).subspan(begin, n_rows), positions, tables};
    const size_t d_model = config.d_model, n_vocab = config.n_vocab;
    if (!kernels::GrowTo(ops, n_rows * d_model * sizeof(float), hidden) ||
        !kernels::GrowTo(ops, n_vocab * sizeof(float), logits)) {
      return TakeStepStatus(model);
    }
    // Nothing reads the KV of layers above the last exit, so they need not run.
    for (size_t exit = 0; exit < traces.size(); ++exit) {
      Forward(model, batch, {exit == 0 ? 0 : config.exit_layers[exit - 1], config.exit_layers[exit]},
              {hidden.floats(), n_rows * d_model}, answerer.pool().store(), scratch);
      for (size_t row = 0; row < n_rows; ++row) {
        if (begin + row < first_choice) continue;
        ComputeLogits(model, static_cast<int>(exit), {hidden.floats() + row * d_model, d_model}, 1,
                      {logits.floats(), n_vocab});
        const std::span<const float> row_logits = ops.HostView(logits.floats(), n_vocab, staging);
        if (row_logits.empty()) return TakeStepStatus(model);
        traces[exit].top_prob.push_back(TopProbability(row_logits));
        traces[exit].agrees.push_back(ArgMax(row_logits) == chosen[begin + row - first_choice + 1]);
      }
    }
  }
  if (absl::Status status = TakeStepStatus(model); !status.ok()) return status;
  return traces;
}

std::vector<float> ChooseExitThresholds(std::span<const std::vector<ExitTrace>> traces, double budget) {
  const size_t n_exits = traces.empty() ? 0 : traces.front().size();
  std::vector<float> thresholds;
  for (size_t exit = 0; exit < n_exits; ++exit) {
    // An answer is changed at this exit by every threshold up to the highest top probability of its disagreeing tokens.
    std::vector<float> changed_up_to;
    for (const auto& answer : traces) {
      float highest = -1.0f;
      for (size_t i = 0; i < answer[exit].top_prob.size(); ++i) {
        if (!answer[exit].agrees[i]) highest = std::max(highest, answer[exit].top_prob[i]);
      }
      if (highest >= 0.0f) changed_up_to.push_back(highest);
    }
    std::sort(changed_up_to.begin(), changed_up_to.end(), std::greater<>());
    const size_t allowed =
        static_cast<size_t>(budget * static_cast<double>(traces.size()) / static_cast<double>(n_exits));
    float threshold = 0.0f;
    if (allowed < changed_up_to.size()) threshold = std::nextafter(changed_up_to[allowed], kNever);
    thresholds.push_back(threshold > 1.0f ? kNever : threshold);
  }
  return thresholds;
}

}  // namespace updraft
