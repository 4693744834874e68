#include "edge/agent/local_model.h"

#include <algorithm>
#include <span>
#include <utility>

#include "absl/strings/str_format.h"

namespace updraft {

namespace {

constexpr size_t kPrefillPiece = 256;  // tokens run before the caller may look up

absl::Status Annotate(const absl::Status& status, const std::string& what) {
  return absl::Status(status.code(), what + ": " + std::string(status.message()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<LocalModel>> LocalModel::Load(const LocalModelOptions& options) {
  std::unique_ptr<LocalModel> local(new LocalModel);
  local->options_ = options;
  auto served = ServedModel::Load(options.path, options.load);
  if (!served.ok()) return served.status();
  local->served_ = *std::move(served);
  const Model& model = local->served_->model();
  auto confidence = ConfidenceModel::FromGguf(model.file());
  if (!confidence.ok()) return Annotate(confidence.status(), absl::StrFormat("model '%s'", options.path));
  local->confidence_ = *std::move(confidence);

  KvPoolOptions pool_options;
  const int context = model.config().context_length;
  const int capacity = std::min(options.kv_tokens, context);
  pool_options.type = options.kv_type;
  pool_options.n_blocks = (capacity + pool_options.block_tokens - 1) / pool_options.block_tokens;
  auto pool = KvPool::Create(model.ops(), model.config(), pool_options);
  if (!pool.ok()) return Annotate(pool.status(), "kv_tokens");
  local->pool_ = *std::move(pool);
  local->max_sequence_tokens_ = std::min(context, pool_options.n_blocks * pool_options.block_tokens);
  return local;
}

absl::StatusOr<std::vector<int32_t>> LocalModel::EncodeAnswer(const std::string& text) const {
  return served_->tokenizer()->Encode(text, {.add_special = false});
}

// ---- LocalRun -----------------------------------------------------------------------------------------------------

LocalRun::LocalRun(const LocalModel* model, const Prompt& prompt, RunOptions options, AnswerSoFar so_far)
    : model_(model),
      options_(std::move(options)),
      generator_(&model->served_->model(), model->pool_.get(),
                 {.sampling = options_.sampling, .exit_mode = model->options_.exit_mode}),
      detokenizer_(model->served_->tokenizer(), {.render_special = false, .at_text_start = prompt.at_text_start}),
      stops_(options_.stops),
      prefill_(prompt.tokens),
      n_answer_(static_cast<int>(so_far.tokens.size())) {
  prefill_.insert(prefill_.end(), so_far.tokens.begin(), so_far.tokens.end());
  // The detokenizer and the stop strings see the whole answer, so that a character or a stop string that began before
  // is completed here; what the client has is dropped again.
  for (size_t i = 0; i < so_far.tokens.size(); ++i) {
    pending_ += stops_.Push(detokenizer_.Push(so_far.tokens[i]));
    if (static_cast<int>(i) + 1 == so_far.n_prefix_tokens) skip_bytes_ = pending_.size();
  }
  skip_bytes_ = so_far.sent_text_bytes ? skip_bytes_ + *so_far.sent_text_bytes : pending_.size();
}

absl::StatusOr<bool> LocalRun::Prefill() {
  const std::span<const int32_t> rest = std::span<const int32_t>(prefill_).subspan(prefilled_);
  const auto piece = rest.first(std::min(rest.size(), kPrefillPiece));
  if (absl::Status status = generator_.Prefill(piece); !status.ok()) return status;
  prefilled_ += piece.size();
  return prefilled_ == prefill_.size();
}

void LocalRun::Pass(std::string text, Step& step) {
  pending_ += text;
  const size_t skip = std::min(skip_bytes_, pending_.size());
  skip_bytes_ -= skip;
  step.text += pending_.substr(skip);
  pending_.clear();
}

void LocalRun::Finish(v1::FinishReason reason, Step& step) {
  step.finish = reason;
  Pass(stops_.Push(detokenizer_.Flush()) + stops_.Flush(), step);
}

absl::StatusOr<LocalRun::Step> LocalRun::Next() {
  Step step;
  if (stops_.stopped()) {  // in what was accepted
    Finish(v1::FINISH_REASON_STOP, step);
    return step;
  }
  if (n_answer_ >= options_.max_tokens || n_tokens() >= model_->max_sequence_tokens()) {
    Finish(v1::FINISH_REASON_LENGTH, step);
    return step;
  }
  auto next = generator_.Next();
  if (!next.ok()) return next.status();
  ++n_generated_;
  step.evidence = next->evidence;
  if (model_->served_->IsEnd(next->token)) {
    Finish(v1::FINISH_REASON_STOP, step);
    return step;
  }
  ++n_answer_;
  step.token = next->token;
  Pass(stops_.Push(detokenizer_.Push(next->token)), step);
  if (stops_.stopped()) {
    Finish(v1::FINISH_REASON_STOP, step);
  } else if (n_answer_ >= options_.max_tokens || n_tokens() >= model_->max_sequence_tokens()) {
    Finish(v1::FINISH_REASON_LENGTH, step);
  }
  return step;
}

}  // namespace updraft
