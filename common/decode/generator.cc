#include "common/decode/generator.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/model/step_status.h"

namespace updraft {
namespace {

// Rows of one prefill pass: enough to reuse each weight many times, few enough that scratch stays small on a device.
constexpr size_t kPrefillChunk = 256;

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

Generator::Generator(const Model* model, KvPool* pool, GeneratorOptions options)
    : model_(model), pool_(pool), options_(std::move(options)), kv_(pool) {
  const ModelConfig& config = model_->config();
  options_status_ = options_.Validate(config);
  if (options_.exit_thresholds.empty()) options_.exit_thresholds = config.exit_thresholds;
  boundaries_.push_back(0);
  if (options_.exit_mode != ExitMode::kOff) {
    boundaries_.insert(boundaries_.end(), config.exit_layers.begin(), config.exit_layers.end());
  }
  boundaries_.push_back(config.n_layer);
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

void Generator::Append(int32_t token) {
  if (LastRowFinished()) rows_.clear();  // segments never increase, so all rows are finished
  if (rows_.empty()) first_row_ = tokens_.size();
  tokens_.push_back(token);
  rows_.push_back({});
}

void Generator::GrowHidden() {
  const size_t bytes = rows_.size() * model_->config().d_model * sizeof(float);
  if (bytes <= hidden_.bytes()) return;
  kernels::Ops& ops = model_->ops();
  kernels::Buffer grown = ops.Allocate(std::max(bytes, 2 * hidden_.bytes()), kernels::MemoryUse::kActivations);
  ops.Copy(hidden_.data(), hidden_.bytes(), grown.data());
  if (grown) hidden_ = std::move(grown);  // else it is a fault, after which nobody reads it
}

Generator::StepMark Generator::BeginStep() const {
  const size_t n_tokens = tokens().size();
  size_t first = first_row_;
  // Of finished rows the last one alone is still wanted.
  if (n_tokens > 0 && (LastRowFinished() || first >= n_tokens)) first = n_tokens - 1;
  return {.n_tokens = n_tokens, .first_row = first};
}

absl::Status Generator::EndStep(const StepMark& mark) {
  absl::Status status = TakeStepStatus(model_->ops());
  if (status.ok()) return status;
  lookahead_.clear();
  tokens_.resize(mark.n_tokens);
  kv_.Truncate(static_cast<int>(mark.n_tokens));
  first_row_ = mark.first_row;
  rows_.assign(mark.n_tokens - mark.first_row, {});
  return status;
}

void Generator::ShrinkTo(size_t n_tokens) {
  tokens_.resize(n_tokens);
  kv_.Truncate(static_cast<int>(n_tokens));
  first_row_ = std::min(first_row_, n_tokens);
  rows_.resize(std::min(rows_.size(), n_tokens - first_row_));
}

void Generator::RewindLast() {
  if (tokens_.empty()) return;
  if (rows_.empty()) {
    first_row_ = tokens_.size() - 1;
    rows_.resize(1);
  }
  rows_.back().segment = 0;
}

void Generator::DropLookahead() {
  if (lookahead_.empty()) return;
  ShrinkTo(tokens().size());
  lookahead_.clear();
  RewindLast();
}

absl::Status Generator::Prefill(std::span<const int32_t> tokens) {
  if (!options_status_.ok()) return options_status_;
  if (absl::Status status = CheckTokens(tokens); !status.ok()) return status;
  DropLookahead();
  if (absl::Status status = kv_.Reserve(static_cast<int>(tokens_.size() + tokens.size())); !status.ok()) return status;
  const StepMark mark = BeginStep();
  do {
    const size_t n = std::min(tokens.size(), kPrefillChunk);
    for (const int32_t token : tokens.first(n)) Append(token);
    tokens = tokens.subspan(n);
    RunDeep(tokens.empty() ? 1 : 0);  // a prompt's other tokens matter for their keys and values alone
  } while (!tokens.empty());
  return EndStep(mark);
}

absl::Status Generator::Accept(int32_t token) {
  if (!options_status_.ok()) return options_status_;
  if (absl::Status status = CheckTokens({&token, 1}); !status.ok()) return status;
  DropLookahead();
  if (absl::Status status = kv_.Reserve(static_cast<int>(tokens_.size() + 1)); !status.ok()) return status;
  Append(token);
  return absl::OkStatus();
}

void Generator::Truncate(int n_tokens) {
  const size_t n = static_cast<size_t>(std::max(n_tokens, 0));
  if (n >= tokens().size()) return;
  lookahead_.clear();
  ShrinkTo(n);
  RewindLast();
}

absl::StatusOr<GeneratedToken> Generator::Next() {
  if (!options_status_.ok()) return options_status_;
  if (tokens_.empty())
    return absl::FailedPreconditionError("generation needs at least one prompt token; prefill first");
  if (lookahead_.empty()) {
    const ModelConfig& config = model_->config();
    if (tokens_.size() >= static_cast<size_t>(config.context_length)) {
      return absl::OutOfRangeError(
          absl::StrFormat("the context of %d tokens of model '%s' is full", config.context_length, config.name));
    }
    if (absl::Status status = kv_.Reserve(static_cast<int>(tokens_.size())); !status.ok()) return status;
  }
  const StepMark mark = BeginStep();
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

void Generator::RunSegment(int segment, size_t n_wanted) {
  size_t first = rows_.size();
  while (first > 0 && rows_[first - 1].segment == segment) --first;
  const size_t n_tok = rows_.size() - first;
  if (n_tok == 0) return;

  GrowHidden();
  positions_.resize(n_tok);
  std::iota(positions_.begin(), positions_.end(), static_cast<int32_t>(first_row_ + first));
  block_tables_.assign(n_tok, kv_.blocks().data());
  Batch batch = {.tokens = std::span<const int32_t>(tokens_).subspan(first_row_ + first, n_tok),
                 .positions = positions_,
                 .block_tables = block_tables_};
  if (n_wanted < n_tok) {
    wanted_.resize(n_wanted);
    std::iota(wanted_.begin(), wanted_.end(), static_cast<int32_t>(n_tok - n_wanted));
    batch.wanted = wanted_;
  }
  Forward(*model_, batch, {.from = boundaries_[segment], .to = boundaries_[segment + 1]}, HiddenOf(first, n_tok),
          pool_->store(), scratch_);
  for (size_t i = first; i < rows_.size(); ++i) rows_[i].segment = segment + 1;
}

void Generator::RunDeep(size_t n_wanted) {
  for (int segment = 0; segment + 1 < n_segments(); ++segment) RunSegment(segment);
  RunSegment(n_segments() - 1, n_wanted);
}

bool Generator::RunToConfidentExit(int* exit_layer) {
  for (int exit = 0; exit + 1 < n_segments(); ++exit) {
    if (rows_.back().segment > exit) continue;
    RunSegment(exit);
    const float threshold = options_.exit_thresholds[exit];
    if (threshold > 1.0f) continue;  // never leaves here: the head would be computed for nothing
    if (!LogitsOfLast(exit, 1)) return false;
    if (TopProbability(LogitsRow(0)) >= threshold) {
      *exit_layer = boundaries_[exit + 1];
      return true;
    }
  }
  return false;
}

std::span<float> Generator::HiddenOf(size_t first_row, size_t n_rows) const {
  const size_t d_model = model_->config().d_model;
  return {hidden_.floats() + first_row * d_model, n_rows * d_model};
}

bool Generator::LogitsOfLast(int exit, int n_rows) {
  kernels::Ops& ops = model_->ops();
  const size_t n = static_cast<size_t>(n_rows) * model_->config().n_vocab;
  host_logits_ = {};
  if (!kernels::GrowTo(ops, n * sizeof(float), logits_)) return false;
  ComputeLogits(*model_, exit, HiddenOf(rows_.size() - n_rows, n_rows), n_rows, {logits_.floats(), n});
  host_logits_ = ops.HostView(logits_.floats(), n, staging_);
  return !host_logits_.empty();
}

std::span<float> Generator::LogitsRow(int row) {
  const size_t n_vocab = model_->config().n_vocab;
  return host_logits_.subspan(row * n_vocab, n_vocab);
}

int32_t Generator::Sample(std::span<float> logits, std::span<const int32_t> context) {
  if (!LeavesLogitsUnchanged(options_.sampling)) {
    sampled_logits_.assign(logits.begin(), logits.end());
    logits = sampled_logits_;
  }
  return SampleToken(logits, options_.sampling, static_cast<int64_t>(context.size()), context);
}

GeneratedToken Generator::Choose(std::span<float> logits, std::span<const int32_t> context, int exit_layer) {
  GeneratedToken chosen;
  chosen.token = Sample(logits, context);
  chosen.evidence = EvidenceOf(logits, chosen.token);
  chosen.evidence.exit_layer = exit_layer;
  return chosen;
}

GeneratedToken Generator::NextDeep() {
  RunDeep();
  if (!LogitsOfLast(-1, 1)) return {};  // a fault, which Next tells
  const GeneratedToken next = Choose(LogitsRow(0), tokens_, model_->config().n_layer);
  Append(next.token);
  return next;
}

GeneratedToken Generator::NextLossy() {
  const size_t n_pending = rows_.size() - 1;
  int exit_layer = 0;
  if (n_pending >= static_cast<size_t>(options_.max_pending_tokens) || !RunToConfidentExit(&exit_layer)) {
    return NextDeep();
  }
  const GeneratedToken next = Choose(LogitsRow(0), tokens_, exit_layer);
  Append(next.token);
  return next;
}

GeneratedToken Generator::NextLossless() {
  if (lookahead_.empty()) {
    if (LastRowFinished()) return NextDeep();  // right after a prompt: the deep pass is done already
    Verify(Draft());
    if (lookahead_.empty()) return {};  // a fault, which Next tells
  }
  const GeneratedToken next = lookahead_.front();
  lookahead_.pop_front();
  return next;
}

std::vector<int> Generator::Draft() {
  std::vector<int> exit_layers;
  const size_t context_length = model_->config().context_length;
  while (exit_layers.size() < static_cast<size_t>(options_.max_draft_tokens) && tokens_.size() < context_length) {
    // A full pool or an unsure exit ends the draft; the deep pass goes on from wherever the rows stand.
    if (!kv_.Reserve(static_cast<int>(tokens_.size() + 1)).ok()) break;
    int exit_layer = 0;
    if (!RunToConfidentExit(&exit_layer)) break;
    Append(Sample(LogitsRow(0), tokens_));
    exit_layers.push_back(exit_layer);
  }
  return exit_layers;
}

void Generator::Verify(const std::vector<int>& exit_layers) {
  const size_t n_drafts = exit_layers.size();
  const size_t n_before = tokens_.size() - n_drafts;
  RunDeep();
  if (!LogitsOfLast(-1, static_cast<int>(n_drafts + 1))) return;
  for (size_t i = 0; i <= n_drafts; ++i) {
    const size_t position = n_before + i;
    if (position >= static_cast<size_t>(model_->config().context_length)) return;
    const std::span<const int32_t> context = std::span<const int32_t>(tokens_).first(position);
    GeneratedToken chosen = Choose(LogitsRow(static_cast<int>(i)), context, model_->config().n_layer);
    // The draw depends on seed and position alone, so the draft is right exactly when the deep logits choose it too.
    const bool confirmed = i < n_drafts && tokens_[position] == chosen.token;
    if (confirmed) {
      chosen.evidence.exit_layer = exit_layers[i];
    } else {
      ShrinkTo(position);
      Append(chosen.token);
    }
    lookahead_.push_back(chosen);
    if (!confirmed) return;
  }
}

}  // namespace updraft
