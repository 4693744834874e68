#include "edge/answer/context.h"

#include <algorithm>

#include "absl/time/time.h"
#include "common/rpc/convert.h"

namespace updraft {
namespace {

// Of alternatives that come from upstream, whatever it is.
constexpr size_t kMaxAlternatives = 3;
constexpr size_t kMaxAlternativesBytes = 64 << 10;

}  // namespace

AnswerContext::AnswerContext(const TierFacts* tier, AnswerHost* host, Asked asked)
    : tier_(tier),
      host_(host),
      asked_(std::move(asked)),
      ledger_({asked_.request.accepted_prefix().begin(), asked_.request.accepted_prefix().end()}),
      now_(asked_.arrived) {}

// ---- Decisions ----------------------------------------------------------------------------------------------------

Situation AnswerContext::SituationOf(Stage stage) const {
  Situation situation;
  situation.stage = stage;
  situation.now_s = now_.seconds();
  RequestFacts& request = situation.request;
  request.key = RequestKey(asked_.request.request_id());
  request.asked = asked_.mode;
  request.fits_locally = asked_.fits_locally;
  request.hops = asked_.request.hops();
  request.n_prompt_tokens = static_cast<int>(asked_.prompt.tokens.size());
  request.n_draft_tokens = provenance_.draft_tokens();
  request.max_tokens = asked_.max_tokens;
  if (asked_.deadline != SteadyTime::InfiniteFuture()) {
    request.deadline_s = absl::ToDoubleSeconds(asked_.deadline - now_);
  }
  situation.evidence.confidence = confidence_.value_or(kUnknown);
  if (stage == Stage::kBefore) situation.evidence.gain = asked_.gain;
  return situation;
}

DecisionRecord AnswerContext::Decide(Stage stage) {
  record_ = host_->Decide(SituationOf(stage));
  return *record_;
}

absl::Status AnswerContext::Interrupted() const {
  if (!interruption_.ok()) return interruption_;
  if (now_ >= asked_.deadline) return absl::DeadlineExceededError("the deadline is over");
  return absl::OkStatus();
}

// ---- The local run ------------------------------------------------------------------------------------------------

void AnswerContext::TakeEvidence(const LocalStep& step) {
  if (step.evidence) evidence_.push_back(*step.evidence);
  provenance_.set_draft_tokens(provenance_.draft_tokens() + step.chunk.tokens_size());
}

void AnswerContext::AccountQueue(absl::Duration queued) {
  provenance_.set_queue_ms(provenance_.queue_ms() + absl::ToDoubleMilliseconds(queued));
  n_drafted_before_run_ = provenance_.draft_tokens();
}

void AnswerContext::AccountLocal(const LocalStopped& stopped, RunEnd end) {
  provenance_.set_local_ms(provenance_.local_ms() + absl::ToDoubleMilliseconds(stopped.ran));
  if (end == RunEnd::kBroken || !stopped.status.ok()) return;
  provenance_.set_mean_exit_layer(stopped.mean_exit_layer);
  LocalRunMeasured measured;
  measured.run_s = absl::ToDoubleSeconds(stopped.ran);
  if (end == RunEnd::kComplete) {
    measured.decode_s = absl::ToDoubleSeconds(stopped.decoded);
    measured.n_decoded_tokens = provenance_.draft_tokens() - n_drafted_before_run_;
    measured.n_prefill_tokens = stopped.n_prefill_tokens;
  }
  host_->OnLocalRun(measured);
}

void AnswerContext::Judge() {
  if (evidence_.empty()) return;
  confidence_ = host_->Confidence(ledger_.AllText(), evidence_, asked_.prompt.features);
  provenance_.set_confidence(*confidence_);
}

// ---- An answer that acts --------------------------------------------------------------------------------------------

void AnswerContext::Conclude(LastTier last) {
  if (Holds()) {
    const std::string text = ledger_.AllText();
    const Verdict verdict = host_->Judge(text, evidence_, asked_.prompt.features);
    disposition_ = DispositionToProto(verdict.disposition);
    if (verdict.p_right) provenance_.set_p_right(*verdict.p_right);
    if (verdict.doubtful && last == LastTier::kYes) {
      const auto& messages = asked_.request.conversation().messages();
      AskingBack asking = host_->AskBack({&text, 1}, messages.empty() ? "" : messages.rbegin()->content());
      disposition_ = DispositionToProto(asking.disposition);
      alternatives_ = std::move(asking.alternatives);
      ledger_.Withdraw();
      v1::Chunk question;
      question.set_tier(tier_->name);
      question.set_text(std::move(asking.text));
      ledger_.Draft(std::move(question), 0, IdSpace::kForeign);
    }
  }
  ledger_.Decide(tier_->name);
  Give();
}

void AnswerContext::TakeVerdict(const UpstreamDone& done) {
  disposition_ = done.disposition;
  if (done.p_right && *done.p_right >= 0 && *done.p_right <= 1) provenance_.set_p_right(*done.p_right);
  size_t n_bytes = 0;
  for (const std::string& alternative : done.alternatives) {
    n_bytes += alternative.size();
    if (alternatives_.size() == kMaxAlternatives || n_bytes > kMaxAlternativesBytes) break;
    alternatives_.push_back(alternative);
  }
}

// ---- Out ----------------------------------------------------------------------------------------------------------

void AnswerContext::Write(v1::Chunk chunk, int n_tokens, IdSpace ids) {
  const std::string writer = chunk.tier();
  ledger_.Draft(std::move(chunk), n_tokens, ids);
  ledger_.Decide(writer);
  Give();
}

void AnswerContext::Give() {
  const bool first = !ledger_.given_any();
  std::vector<v1::Chunk> chunks = ledger_.Give();
  if (chunks.empty()) return;
  if (first) provenance_.set_first_token_ms(absl::ToDoubleMilliseconds(now_ - asked_.arrived));
  for (v1::Chunk& chunk : chunks) Do(GiveChunk{std::move(chunk)});
}

void AnswerContext::End(const absl::Status& status) {
  ended_ = true;
  EndAnswer end{.status = status, .done = {}, .confidence = confidence_};
  end.done.set_finish_reason(finish_);
  end.done.mutable_usage()->set_prompt_tokens(static_cast<int32_t>(asked_.prompt.tokens.size()));
  end.done.mutable_usage()->set_completion_tokens(ledger_.given_tokens());
  provenance_.set_total_ms(absl::ToDoubleMilliseconds(now_ - asked_.arrived));
  for (v1::Provenance::Span& span : ledger_.Spans()) *provenance_.add_spans() = std::move(span);
  *end.done.mutable_provenance() = provenance_;
  if (status.ok()) {
    end.done.set_disposition(disposition_);
    for (std::string& alternative : alternatives_) end.done.add_alternatives(std::move(alternative));
  }
  Do(std::move(end));
}

void AnswerContext::EndInterrupted() {
  const absl::Status status = Interrupted();
  End(status.ok() ? absl::InternalError("the answer was given up without a reason") : status);
}

v1::FinishReason FinishReasonOf(AnswerEnd end) {
  switch (end) {
    case AnswerEnd::kOpen:
      return v1::FINISH_REASON_UNSPECIFIED;
    case AnswerEnd::kStop:
      return v1::FINISH_REASON_STOP;
    case AnswerEnd::kLength:
      return v1::FINISH_REASON_LENGTH;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

}  // namespace updraft
