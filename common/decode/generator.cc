#include "common/decode/generator.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_format.h"

namespace updraft {
namespace {

// Rows of one prefill pass: enough to reuse each weight many times, few enough that scratch stays small on a device.
constexpr size_t kPrefillChunk = 256;

// Where layers are cut: at the exits, if they are used.
std::vector<int> Boundaries(const ModelConfig& config, ExitMode mode) {
  std::vector<int> boundaries = {0};
  if (mode != ExitMode::kOff) {
    boundaries.insert(boundaries.end(), config.exit_layers.begin(), config.exit_layers.end());
  }
  boundaries.push_back(config.n_layer);
  return boundaries;
}

}  // namespace

absl::Status GeneratorOptions::Validate(const ModelConfig& config) const {
  if (absl::Status status = sampling.Validate(); !status.ok()) return status;
  if (!exit_thresholds.empty() && exit_thresholds.size() != config.exit_layers.size()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("exit_thresholds: expected one for each of the %d exits of model '%s', found %d",
                        config.exit_layers.size(), config.name, exit_thresholds.size()));
  }
  for (const float threshold : exit_thresholds) {
    if (!(threshold >= 0.0f)) {  // true for NaN
      return absl::InvalidArgumentError(
          absl::StrFormat("exit_thresholds: expected probabilities, found %g", threshold));
    }
  }
  if (max_draft_tokens < 1 || max_draft_tokens > 64) {
    return absl::InvalidArgumentError(
        absl::StrFormat("max_draft_tokens: expected 1 to 64, found %d", max_draft_tokens));
  }
  if (max_pending_tokens < 0 || max_pending_tokens > 64) {
    return absl::InvalidArgumentError(
        absl::StrFormat("max_pending_tokens: expected 0 to 64, found %d", max_pending_tokens));
  }
  return absl::OkStatus();
}

Generator::Generator(const Model* model, KvPool* pool, GeneratorOptions options, GeneratorStrategies strategies)
    : model_(model),
      options_(std::move(options)),
      strategies_(std::move(strategies)),
      mask_(strategies_.mask.get()),
      rows_(model, pool, Boundaries(model->config(), options_.exit_mode), strategies_.workspace) {
  const ModelConfig& config = model_->config();
  options_status_ = options_.Validate(config);
  if (strategies_.exit_rule == nullptr) {
    strategies_.exit_rule = std::make_shared<ThresholdExitRule>(
        options_.exit_thresholds.empty() ? config.exit_thresholds : options_.exit_thresholds);
  } else if (strategies_.exit_rule->n_exits() != static_cast<int>(config.exit_layers.size())) {
    options_status_.Update(absl::InvalidArgumentError(
        absl::StrFormat("exit rule: expected one for the %d exits of model '%s', found one for %d",
                        config.exit_layers.size(), config.name, strategies_.exit_rule->n_exits())));
  }
}

absl::Status Generator::CheckTokens(std::span<const int32_t> tokens) const {
  const ModelConfig& config = model_->config();
  for (const int32_t token : tokens) {
    if (token < 0 || token >= config.n_vocab) {
      return absl::InvalidArgumentError(absl::StrFormat("token id: expected 0 to %d for model '%s', found %d",
                                                        config.n_vocab - 1, config.name, token));
    }
  }
  if (tokens.size() > config.context_length - this->tokens().size()) {
    return absl::OutOfRangeError(absl::StrFormat(
        "%d tokens after the %d that the sequence holds exceed the context of %d tokens of model '%s'; shorten the "
        "conversation",
        tokens.size(), this->tokens().size(), config.context_length, config.name));
  }
  return absl::OkStatus();
}

void Generator::AppendChosen(int32_t token) {
  mask_.Advance(rows_.tokens().size(), token);
  rows_.Append(token);
}

void Generator::ShrinkTo(size_t n_tokens) {
  rows_.ShrinkTo(n_tokens);
  mask_.ShrinkTo(n_tokens);
}

void Generator::DropLookahead() {
  if (lookahead_.empty()) return;
  ShrinkTo(tokens().size());
  lookahead_.clear();
  rows_.RewindLast();
}

absl::Status Generator::EndStep(const SequenceRows::Mark& mark) {
  absl::Status status = rows_.EndStep(mark);
  if (status.ok()) return status;
  lookahead_.clear();
  mask_.ShrinkTo(mark.n_tokens);
  return status;
}

absl::Status Generator::Prefill(std::span<const int32_t> tokens) {
  if (!options_status_.ok()) return options_status_;
  if (absl::Status status = CheckTokens(tokens); !status.ok()) return status;
  DropLookahead();
  if (absl::Status status = rows_.Reserve(rows_.tokens().size() + tokens.size()); !status.ok()) return status;
  const SequenceRows::Mark mark = rows_.BeginStep(rows_.tokens().size());
  do {
    const size_t n = std::min(tokens.size(), kPrefillChunk);
    for (const int32_t token : tokens.first(n)) {
      const bool of_answer =
          options_.n_prompt_tokens > 0 && rows_.tokens().size() >= static_cast<size_t>(options_.n_prompt_tokens);
      of_answer ? AppendChosen(token) : rows_.Append(token);
    }
    tokens = tokens.subspan(n);
    rows_.RunDeep(tokens.empty() ? 1 : 0);  // a prompt's other tokens matter for their keys and values alone
  } while (!tokens.empty());
  return EndStep(mark);
}

absl::Status Generator::Accept(int32_t token) {
  if (!options_status_.ok()) return options_status_;
  if (absl::Status status = CheckTokens({&token, 1}); !status.ok()) return status;
  DropLookahead();
  if (!mask_.Allows(token)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("token id: expected one that the answer's grammar allows here, found %d", token));
  }
  if (absl::Status status = rows_.Reserve(rows_.tokens().size() + 1); !status.ok()) return status;
  AppendChosen(token);
  return absl::OkStatus();
}

void Generator::Truncate(int n_tokens) {
  const size_t n = static_cast<size_t>(std::max(n_tokens, 0));
  if (n >= tokens().size()) return;
  lookahead_.clear();
  ShrinkTo(n);
  rows_.RewindLast();
}

absl::StatusOr<GeneratedToken> Generator::Next() {
  if (!options_status_.ok()) return options_status_;
  const size_t n_tokens = rows_.tokens().size();
  if (n_tokens == 0) return absl::FailedPreconditionError("generation needs at least one prompt token; prefill first");
  if (lookahead_.empty()) {
    const ModelConfig& config = model_->config();
    if (n_tokens >= static_cast<size_t>(config.context_length)) {
      return absl::OutOfRangeError(
          absl::StrFormat("the context of %d tokens of model '%s' is full", config.context_length, config.name));
    }
    if (absl::Status status = rows_.Reserve(n_tokens); !status.ok()) return status;
  }
  const SequenceRows::Mark mark = rows_.BeginStep(tokens().size());
  GeneratedToken next;
  switch (options_.exit_mode) {
    case ExitMode::kOff:
      next = NextDeep();
      break;
    case ExitMode::kLossy:
      next = NextLossy();
      break;
    case ExitMode::kLossless:
      next = NextLossless();
      break;
  }
  if (absl::Status status = EndStep(mark); !status.ok()) return status;
  layers_run_ += next.evidence.exit_layer;
  return next;
}

Generator::Exited Generator::RunToSureExit() {
  for (int exit = 0; exit + 1 < rows_.n_segments(); ++exit) {
    if (rows_.last_segment() > exit) continue;
    rows_.RunSegment(exit);
    if (!strategies_.exit_rule->MayLeave(exit)) continue;  // the head would be computed for nothing
    const std::span<float> logits = rows_.LogitsOfLast(exit, 1);
    if (logits.empty()) return {};
    if (strategies_.exit_rule->Leaves(exit, logits)) return {.layers = rows_.layers_after(exit), .logits = logits};
  }
  return {};
}

int32_t Generator::Sample(std::span<float> logits, std::span<const int32_t> context) {
  const std::span<const uint64_t> allowed = mask_.Allowed();
  if (!allowed.empty() || !LeavesLogitsUnchanged(options_.sampling)) {
    sampled_logits_.assign(logits.begin(), logits.end());
    logits = sampled_logits_;
  }
  return SampleToken(logits, options_.sampling, static_cast<int64_t>(context.size()),
                     {.tokens = context, .n_prompt = static_cast<size_t>(std::max(options_.n_prompt_tokens, 0))},
                     allowed);
}

GeneratedToken Generator::Choose(std::span<float> logits, std::span<const int32_t> context, int exit_layer) {
  GeneratedToken chosen;
  chosen.token = Sample(logits, context);
  chosen.evidence = EvidenceOf(logits, chosen.token);
  chosen.evidence.exit_layer = exit_layer;
  chosen.evidence.top = TopLogprobs(logits, options_.n_top_logprobs);
  return chosen;
}

GeneratedToken Generator::NextDeep() {
  rows_.RunDeep();
  const std::span<float> logits = rows_.LogitsOfLast(-1, 1);
  if (logits.empty()) return {};
  const GeneratedToken next = Choose(logits, rows_.tokens(), model_->config().n_layer);
  AppendChosen(next.token);
  return next;
}

GeneratedToken Generator::NextLossy() {
  if (rows_.LastRowIsDeep()) return NextDeep();  // right after a prompt
  const size_t n_pending = rows_.n_rows() - 1;
  if (n_pending >= static_cast<size_t>(options_.max_pending_tokens)) return NextDeep();
  const Exited exited = RunToSureExit();
  if (exited.layers == 0) return NextDeep();
  const GeneratedToken next = Choose(exited.logits, rows_.tokens(), exited.layers);
  AppendChosen(next.token);
  return next;
}

GeneratedToken Generator::NextLossless() {
  if (lookahead_.empty()) {
    if (rows_.LastRowIsDeep()) return NextDeep();  // right after a prompt: the deep pass is done already
    draft_layers_.clear();
    DraftIds();
    if (draft_layers_.empty()) DraftByExits();
    Verify();
    if (lookahead_.empty()) return {};
  }
  const GeneratedToken next = lookahead_.front();
  lookahead_.pop_front();
  return next;
}

bool Generator::RoomForDraft() {
  const size_t n_tokens = rows_.tokens().size();
  // A full pool ends the draft; the deep pass goes on from wherever the rows stand.
  return draft_layers_.size() < static_cast<size_t>(options_.max_draft_tokens) &&
         n_tokens < static_cast<size_t>(model_->config().context_length) && rows_.Reserve(n_tokens + 1).ok();
}

void Generator::DraftIds() {
  if (strategies_.drafter == nullptr) return;
  draft_ids_.clear();
  strategies_.drafter->Draft(rows_.tokens(), options_.max_draft_tokens, draft_ids_);
  const ModelConfig& config = model_->config();
  for (const int32_t id : draft_ids_) {
    if (id < 0 || id >= config.n_vocab || !mask_.Allows(id) || !RoomForDraft()) return;
    AppendChosen(id);
    draft_layers_.push_back(config.n_layer);
  }
}

void Generator::DraftByExits() {
  while (RoomForDraft()) {
    const Exited exited = RunToSureExit();
    if (exited.layers == 0) return;
    AppendChosen(Sample(exited.logits, rows_.tokens()));
    draft_layers_.push_back(exited.layers);
  }
}

void Generator::Verify() {
  const ModelConfig& config = model_->config();
  const size_t n_drafts = draft_layers_.size();
  const size_t n_before = rows_.tokens().size() - n_drafts;
  mask_.ShrinkTo(n_before);
  rows_.RunDeep();
  const std::span<float> logits = rows_.LogitsOfLast(-1, static_cast<int>(n_drafts + 1));
  if (logits.empty()) return;
  for (size_t i = 0; i <= n_drafts; ++i) {
    const size_t position = n_before + i;
    if (position >= static_cast<size_t>(config.context_length)) return;
    const std::span<const int32_t> context = std::span<const int32_t>(rows_.tokens()).first(position);
    GeneratedToken chosen = Choose(logits.subspan(i * config.n_vocab, config.n_vocab), context, config.n_layer);
    // The draw depends on seed and position alone, so the draft is right exactly when the deep logits choose it too.
    const bool confirmed = i < n_drafts && rows_.tokens()[position] == chosen.token;
    mask_.Advance(position, chosen.token);
    if (confirmed) {
      chosen.evidence.exit_layer = draft_layers_[i];
    } else {
      rows_.ShrinkTo(position);
      rows_.Append(chosen.token);
    }
    lookahead_.push_back(chosen);
    if (!confirmed) return;
  }
}

}  // namespace updraft
