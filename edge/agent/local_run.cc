#include "edge/agent/local_run.h"

#include <algorithm>
#include <memory>
#include <span>
#include <utility>

#include "common/answer/detokenized_text.h"
#include "common/grammar/token_masks.h"

namespace updraft {

namespace {

AssemblerOptions OptionsOf(const LocalModel& model, const Prompt& prompt, RunOptions options) {
  AssemblerOptions assembler;
  assembler.stops = std::move(options.stops);
  assembler.stop_tokens = model.served().stop_tokens();
  assembler.max_tokens =
      std::min(options.max_tokens, model.max_sequence_tokens() - static_cast<int>(prompt.tokens.size()));
  return assembler;
}

std::unique_ptr<grammar::GrammarMask> MaskOf(const LocalModel& model, const Prompt& prompt, const AnswerSoFar& so_far) {
  if (prompt.shape == nullptr) return nullptr;
  const bool drops_space = prompt.at_text_start && model.served().tokenizer()->adds_space_prefix();
  auto mask = std::make_unique<grammar::GrammarMask>(prompt.shape, drops_space);
  if (!prompt.shape_may_be_missed) return mask;
  for (const int32_t token : so_far.tokens) mask->Advance(token);
  if (mask->broken()) return nullptr;
  mask->Rollback(static_cast<int>(so_far.tokens.size()));  // the generator reads them
  return mask;
}

}  // namespace

LocalRun::LocalRun(const LocalModel* model, const Prompt& prompt, RunOptions options, const AnswerSoFar& so_far)
    : LocalRun(model, prompt, std::move(options), so_far, MaskOf(*model, prompt, so_far)) {}

LocalRun::LocalRun(const LocalModel* model, const Prompt& prompt, RunOptions options, const AnswerSoFar& so_far,
                   std::unique_ptr<TokenMask> mask)
    : mask_(mask.get()),
      generator_(&model->served().model(), model->pool(),
                 {.sampling = options.sampling,
                  .n_top_logprobs = options.n_top_logprobs,
                  .n_prompt_tokens = static_cast<int>(prompt.tokens.size()),
                  .exit_mode = model->options().exit_mode},
                 {.mask = std::move(mask), .workspace = model->workspace()}),
      assembler_(std::make_unique<DetokenizedText>(model->served().tokenizer(), prompt.at_text_start, prompt.spelled),
                 OptionsOf(*model, prompt, std::move(options))),
      resumed_(assembler_.Resume(so_far)),
      prefill_(prompt.tokens) {
  prefill_.insert(prefill_.end(), so_far.tokens.begin(), so_far.tokens.end());
}

absl::StatusOr<bool> LocalRun::Prefill() {
  const std::span<const int32_t> rest = std::span<const int32_t>(prefill_).subspan(prefilled_);
  // A chosen token runs with the next one, as it would have done; it is the last, and may be the only one.
  const size_t n_read = parked_ ? rest.size() - 1 : rest.size();
  const auto piece = rest.first(std::min<size_t>(n_read, kPrefillPiece));
  if (absl::Status status = generator_.Prefill(piece); !status.ok()) return status;
  prefilled_ += piece.size();
  if (!parked_ || prefilled_ + 1 < prefill_.size()) return prefilled_ == prefill_.size();
  if (absl::Status status = generator_.Accept(prefill_.back()); !status.ok()) return status;
  ++prefilled_;
  return true;
}

void LocalRun::Park() {
  if (prefilled_ == prefill_.size()) {
    parked_ = n_generated_ > 0;
    prefill_.assign(generator_.tokens().begin(), generator_.tokens().end());
  }
  generator_.Truncate(0);
  prefilled_ = 0;
}

absl::Status LocalRun::Broken() {
  return absl::InternalError(
      "shape: expected tokens that lead on to an answer of the shape, found none; ask for a simpler one");
}

absl::StatusOr<LocalRun::Step> LocalRun::Next() {
  Step step;
  if (resumed_ != AnswerEnd::kOpen) {
    step.piece = assembler_.Close(resumed_);
    return step;
  }
  if (mask_ != nullptr && mask_->broken()) return Broken();
  auto next = generator_.Next();
  if (!next.ok()) return next.status();
  ++n_generated_;
  step.piece = assembler_.Push(next->token, next->evidence);
  step.evidence = next->evidence;
  step.evidence->text_offset = step.piece.evidence ? step.piece.evidence->text_offset : TokenEvidence::kNoText;
  return step;
}

}  // namespace updraft
