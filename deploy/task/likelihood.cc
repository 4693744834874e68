#include "deploy/task/likelihood.h"

#include <algorithm>
#include <span>
#include <vector>

#include "absl/strings/str_format.h"
#include "common/decode/evidence.h"
#include "common/model/forward.h"
#include "common/model/step_status.h"

namespace updraft {
namespace {

constexpr size_t kChunkRows = 256;

}  // namespace

absl::StatusOr<Likelihood> LikelihoodOf(Answerer& answerer, const Conversation& conversation,
                                        const std::string& answer) {
  auto prompt = answerer.Render(conversation);
  if (!prompt.ok()) return prompt.status();
  const auto written = answerer.tokenizer().Encode(answer, {.add_special = false, .at_text_start = true});
  if (!written.ok()) return written.status();
  const Model& model = answerer.model();
  const ModelConfig& config = model.config();
  std::vector<int32_t> tokens = *prompt;
  tokens.insert(tokens.end(), written->begin(), written->end());
  if (tokens.size() > static_cast<size_t>(config.context_length)) {
    return absl::OutOfRangeError(
        absl::StrFormat("prompt and answer have %d tokens, the context %d", tokens.size(), config.context_length));
  }
  SequenceKv sequence(&answerer.pool());
  if (absl::Status status = sequence.Reserve(static_cast<int>(tokens.size())); !status.ok()) return status;

  const size_t first = prompt->size() - 1;  // the row that chooses the answer's first token
  const size_t d_model = config.d_model, n_vocab = config.n_vocab;
  Likelihood likelihood;
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
    if (!kernels::GrowTo(ops, n_rows * d_model * sizeof(float), hidden) ||
        !kernels::GrowTo(ops, n_vocab * sizeof(float), logits)) {
      return TakeStepStatus(model);
    }
    Forward(model, batch, {.from = 0, .to = config.n_layer}, {hidden.floats(), n_rows * d_model},
            answerer.pool().store(), scratch);
    for (size_t row = first > begin ? first - begin : 0; row < n_rows; ++row) {
      ComputeLogits(model, /*exit=*/-1, {hidden.floats() + row * d_model, d_model}, 1, {logits.floats(), n_vocab});
      const std::span<const float> row_logits = ops.HostView(logits.floats(), n_vocab, staging);
      if (row_logits.empty()) return TakeStepStatus(model);
      const size_t next = begin + row + 1;
      const bool ends = next == tokens.size();
      if (ends && answerer.stop_tokens().empty()) continue;
      const float logprob = LogProbabilityOfAny(row_logits, ends ? std::span<const int32_t>(answerer.stop_tokens())
                                                                 : std::span<const int32_t>(tokens).subspan(next, 1));
      likelihood.logprob += std::max(static_cast<double>(logprob), kLogprobFloor);
      ++likelihood.n_tokens;
    }
  }
  if (absl::Status status = TakeStepStatus(model); !status.ok()) return status;
  return likelihood;
}

}  // namespace updraft
