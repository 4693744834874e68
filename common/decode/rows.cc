#include "common/decode/rows.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "common/model/step_status.h"

namespace updraft {
namespace {

constexpr size_t kRowsKept = 32;  // of hidden states: more than are ever drafted or pending beside a few

}  // namespace

void SequenceRows::Append(int32_t token) {
  if (LastRowFinished()) rows_.clear();  // segments never increase, so all rows are finished
  if (rows_.empty()) first_row_ = tokens_.size();
  tokens_.push_back(token);
  rows_.push_back({});
}

void SequenceRows::ShrinkTo(size_t n_tokens) {
  tokens_.resize(n_tokens);
  kv_.Truncate(static_cast<int>(n_tokens));
  first_row_ = std::min(first_row_, n_tokens);
  rows_.resize(std::min(rows_.size(), n_tokens - first_row_));
  if (n_tokens == 0) hidden_ = {};
}

void SequenceRows::RewindLast() {
  if (tokens_.empty()) return;
  if (rows_.empty()) {
    first_row_ = tokens_.size() - 1;
    rows_.resize(1);
  }
  rows_.back().segment = 0;
}

void SequenceRows::RunSegment(int segment, size_t n_wanted) {
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
          pool_->store(), workspace_->scratch);
  for (size_t i = first; i < rows_.size(); ++i) rows_[i].segment = segment + 1;
}

void SequenceRows::RunDeep(size_t n_wanted) {
  for (int segment = 0; segment + 1 < n_segments(); ++segment) RunSegment(segment);
  RunSegment(n_segments() - 1, n_wanted);
}

std::span<float> SequenceRows::LogitsOfLast(int exit, int n_rows) {
  kernels::Ops& ops = model_->ops();
  const size_t n = static_cast<size_t>(n_rows) * model_->config().n_vocab;
  kernels::Buffer& logits = workspace_->logits;
  if (!kernels::GrowTo(ops, n * sizeof(float), logits)) return {};
  ComputeLogits(*model_, exit, HiddenOf(rows_.size() - n_rows, n_rows), n_rows, {logits.floats(), n});
  return ops.HostView(logits.floats(), n, workspace_->staging);
}

SequenceRows::Mark SequenceRows::BeginStep(size_t n_tokens) const {
  size_t first = first_row_;
  // Of finished rows the last one alone is still wanted.
  if (n_tokens > 0 && (LastRowFinished() || first >= n_tokens)) first = n_tokens - 1;
  return {.n_tokens = n_tokens, .first_row = first, .is_deep = n_tokens == tokens_.size() && LastRowIsDeep()};
}

absl::Status SequenceRows::EndStep(const Mark& mark) {
  absl::Status status = TakeStepStatus(*model_);
  if (status.ok()) {
    KeepLast();
    return status;
  }
  tokens_.resize(mark.n_tokens);
  kv_.Truncate(static_cast<int>(mark.n_tokens));
  first_row_ = mark.first_row;
  rows_.assign(mark.n_tokens - mark.first_row, {});
  if (!rows_.empty()) rows_.back().again = mark.is_deep;
  return status;
}

// What a prompt's rows took is not kept while the answer is written, or while others have their turn: of finished rows
// the last one alone is still wanted.
void SequenceRows::KeepLast() {
  const size_t d_model = model_->config().d_model, n = rows_.size();
  if (!LastRowFinished() || n < 2 || hidden_.bytes() <= kRowsKept * d_model * sizeof(float)) return;
  kernels::Ops& ops = model_->ops();
  kernels::Buffer last = ops.Allocate(d_model * sizeof(float), kernels::MemoryUse::kActivations);
  if (!last) return;
  ops.Copy(hidden_.floats() + (n - 1) * d_model, last.bytes(), last.data());
  hidden_ = std::move(last);
  rows_.erase(rows_.begin(), rows_.end() - 1);
  first_row_ += n - 1;
}

void SequenceRows::GrowHidden() {
  const size_t bytes = rows_.size() * model_->config().d_model * sizeof(float);
  if (bytes <= hidden_.bytes()) return;
  kernels::Ops& ops = model_->ops();
  kernels::Buffer grown = ops.Allocate(std::max(bytes, 2 * hidden_.bytes()), kernels::MemoryUse::kActivations);
  if (grown) ops.Copy(hidden_.data(), hidden_.bytes(), grown.data());
  hidden_ = std::move(grown);  // none: a fault, after which the rows are run again; the old one has no room for them
}

std::span<float> SequenceRows::HiddenOf(size_t first, size_t n) const {
  if (!hidden_) return {};  // there was no memory for it: a fault
  const size_t d_model = model_->config().d_model;
  return {hidden_.floats() + first * d_model, n * d_model};
}

}  // namespace updraft
