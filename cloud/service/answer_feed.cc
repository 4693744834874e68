#include "cloud/service/answer_feed.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/answer/assembler.h"
#include "common/routing/names.h"
#include "common/rpc/convert.h"
#include "common/telemetry/log.h"

namespace updraft {

bool AnswerFeed::OnTokens(const engine::Output& output) { return Give(ChunkOf(output)); }

void AnswerFeed::OnDone(const absl::Status& status, const engine::Summary& summary) {
  End(status, summary, DoneWithEvidence(summary));
}

v1::Done AnswerFeed::DoneWithEvidence(const engine::Summary& summary) {
  v1::Done done;
  if (!summary.end_evidence) return done;
  *done.mutable_end_evidence() = EvidenceToProto(*summary.end_evidence, 0);
  done.mutable_end_evidence()->clear_text_offset();  // it has no text
  return done;
}

void AnswerFeed::Refuse(const absl::Status& status) {
  Account(status, "", {}, 0);
  sink_->OnEnd(status, {});
}

v1::Chunk AnswerFeed::ChunkOf(const engine::Output& output) const {
  v1::Chunk chunk;
  chunk.mutable_tokens()->Add(output.tokens.begin(), output.tokens.end());
  chunk.set_text(output.text);
  for (size_t i = 0; i < output.evidence.size(); ++i) {
    *chunk.add_evidence() = EvidenceToProto(output.evidence[i], output.text_offsets[i]);
  }
  chunk.set_tier(tier_.name);
  chunk.set_call_format(call_format_);
  return chunk;
}

bool AnswerFeed::Give(const v1::Chunk& chunk) {
  refused_.Update(sink_->OnChunk(chunk));
  return refused_.ok();
}

void AnswerFeed::End(const absl::Status& engine_status, const engine::Summary& summary, v1::Done done) {
  // Why a sink takes no more only the front knows.
  const absl::Status& status = refused_.ok() ? engine_status : refused_;
  FillDone(summary, done);
  Account(status, NameOf(Decision::kKeep), done, summary.n_preemptions);
  sink_->OnEnd(status, done);
}

void AnswerFeed::FillDone(const engine::Summary& summary, v1::Done& done) const {
  if (summary.end != AnswerEnd::kOpen) {
    done.set_finish_reason(summary.end == AnswerEnd::kStop ? v1::FINISH_REASON_STOP : v1::FINISH_REASON_LENGTH);
  }
  done.mutable_usage()->set_prompt_tokens(summary.n_prompt_tokens);
  done.mutable_usage()->set_completion_tokens(summary.n_answer_tokens);
  done.mutable_usage()->set_cached_tokens(summary.n_cached_tokens);
  v1::Provenance& provenance = *done.mutable_provenance();
  v1::Provenance::Span& span = *provenance.add_spans();
  span.set_tier(tier_.name);
  span.set_n_tokens(summary.n_answer_tokens);
  provenance.set_decision(v1::DECISION_KIND_KEEP);
  provenance.set_reason("the last tier answers everything itself");
  provenance.set_queue_ms(absl::ToDoubleMilliseconds(summary.queued));
  provenance.set_local_ms(absl::ToDoubleMilliseconds(summary.total - summary.queued));
  provenance.set_total_ms(absl::ToDoubleMilliseconds(summary.total));
  provenance.set_first_token_ms(absl::ToDoubleMilliseconds(summary.first_token));
  if (summary.n_answer_tokens > 0) provenance.set_mean_exit_layer(tier_.model->info().n_layer());
}

void AnswerFeed::Account(const absl::Status& status, std::string_view decision, const v1::Done& done,
                         int n_preemptions) const {
  const v1::Provenance& provenance = done.provenance();
  const std::string outcome = status.ok() ? "ok" : absl::AsciiStrToLower(absl::StatusCodeToString(status.code()));
  Metrics& metrics = *tier_.metrics;
  metrics.OnTokens(tier_.name, done.usage().completion_tokens());
  metrics.OnRequest({.outcome = outcome,
                     .decision = decision,
                     .disposition = DispositionLabel(done.disposition()),
                     .total_s = provenance.total_ms() * 1e-3,
                     .first_token_s = provenance.first_token_ms() * 1e-3,
                     .queue_s = provenance.queue_ms() * 1e-3});
  LogEvent(LogLevel::kInfo, "request",
           {{"id", request_id_},
            {"outcome", outcome},
            {"reason", std::string(status.message())},
            {"prompt_tokens", done.usage().prompt_tokens()},
            {"answer_tokens", done.usage().completion_tokens()},
            {"cached_tokens", done.usage().cached_tokens()},
            {"queue_ms", provenance.queue_ms()},
            {"first_token_ms", provenance.first_token_ms()},
            {"total_ms", provenance.total_ms()},
            {"preemptions", n_preemptions},
            {"disposition", std::string(NameOf(DispositionFromProto(done.disposition())))},
            LogField::Json("p_right", provenance.has_p_right() ? absl::StrCat(provenance.p_right()) : "null")});
}

}  // namespace updraft
