#include "cloud/service/cloud_backend.h"

#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "common/answer/assembler.h"
#include "common/routing/names.h"
#include "common/rpc/convert.h"
#include "common/serving/request_check.h"
#include "common/status/retry_delay.h"
#include "common/telemetry/log.h"

namespace updraft {

// From the engine to the answer's sink. Every request has one, those that are refused too, so that all are counted and
// logged alike.
class CloudBackend::Feed final : public engine::Sink {
 public:
  Feed(const CloudBackend* backend, std::string request_id, std::shared_ptr<AnswerSink> sink)
      : backend_(backend), request_id_(std::move(request_id)), sink_(std::move(sink)) {}

  bool OnTokens(const engine::Output& output) override {
    v1::Chunk chunk;
    chunk.mutable_tokens()->Add(output.tokens.begin(), output.tokens.end());
    chunk.set_text(output.text);
    for (size_t i = 0; i < output.evidence.size(); ++i) {
      *chunk.add_evidence() = EvidenceToProto(output.evidence[i], output.text_offsets[i]);
    }
    chunk.set_tier(backend_->options_.tier);
    refused_.Update(sink_->OnChunk(chunk));
    return refused_.ok();
  }

  void OnDone(const absl::Status& engine_status, const engine::Summary& summary) override {
    // Why a sink takes no more only the front knows.
    const absl::Status& status = refused_.ok() ? engine_status : refused_;
    const v1::Done done = MakeDone(summary);
    Account(status, NameOf(Decision::kKeep), done, summary.n_preemptions);
    sink_->OnEnd(status, done);
  }

  // Instead of the engine's end.
  void Refuse(const absl::Status& status) {
    Account(status, "", {}, 0);
    sink_->OnEnd(status, {});
  }

 private:
  v1::Done MakeDone(const engine::Summary& summary) const;
  void Account(const absl::Status& status, std::string_view decision, const v1::Done& done, int n_preemptions) const;

  const CloudBackend* const backend_;
  const std::string request_id_;
  const std::shared_ptr<AnswerSink> sink_;
  absl::Status refused_;  // by the sink
};

v1::Done CloudBackend::Feed::MakeDone(const engine::Summary& summary) const {
  v1::Done done;
  if (summary.end != AnswerEnd::kOpen) {
    done.set_finish_reason(summary.end == AnswerEnd::kStop ? v1::FINISH_REASON_STOP : v1::FINISH_REASON_LENGTH);
  }
  done.mutable_usage()->set_prompt_tokens(summary.n_prompt_tokens);
  done.mutable_usage()->set_completion_tokens(summary.n_answer_tokens);
  v1::Provenance& provenance = *done.mutable_provenance();
  v1::Provenance::Span& span = *provenance.add_spans();
  span.set_tier(backend_->options_.tier);
  span.set_n_tokens(summary.n_answer_tokens);
  provenance.set_decision(v1::DECISION_KIND_KEEP);
  provenance.set_reason("the last tier answers everything itself");
  provenance.set_queue_ms(absl::ToDoubleMilliseconds(summary.queued));
  provenance.set_local_ms(absl::ToDoubleMilliseconds(summary.total - summary.queued));
  provenance.set_total_ms(absl::ToDoubleMilliseconds(summary.total));
  provenance.set_first_token_ms(absl::ToDoubleMilliseconds(summary.first_token));
  if (summary.n_answer_tokens > 0) provenance.set_mean_exit_layer(backend_->model_->info().n_layer());
  return done;
}

void CloudBackend::Feed::Account(const absl::Status& status, std::string_view decision, const v1::Done& done,
                                 int n_preemptions) const {
  const v1::Provenance& provenance = done.provenance();
  const std::string outcome = status.ok() ? "ok" : absl::AsciiStrToLower(absl::StatusCodeToString(status.code()));
  Metrics& metrics = *backend_->metrics_;
  metrics.OnTokens(backend_->options_.tier, done.usage().completion_tokens());
  metrics.OnRequest({.outcome = outcome,
                     .decision = decision,
                     .total_s = provenance.total_ms() * 1e-3,
                     .first_token_s = provenance.first_token_ms() * 1e-3,
                     .queue_s = provenance.queue_ms() * 1e-3});
  LogEvent(LogLevel::kInfo, "request",
           {{"id", request_id_},
            {"outcome", outcome},
            {"reason", std::string(status.message())},
            {"prompt_tokens", done.usage().prompt_tokens()},
            {"answer_tokens", done.usage().completion_tokens()},
            {"queue_ms", provenance.queue_ms()},
            {"first_token_ms", provenance.first_token_ms()},
            {"total_ms", provenance.total_ms()},
            {"preemptions", n_preemptions}});
}

RequestHandle CloudBackend::Submit(v1::GenerateRequest request, SteadyTime deadline, std::shared_ptr<AnswerSink> sink) {
  if (request.request_id().empty()) request.set_request_id(NewRequestId());
  const auto build = [&]() -> absl::StatusOr<engine::Request> {
    if (draining_) return WithRetryDelay(absl::UnavailableError("this tier is shutting down"), absl::Seconds(1));
    if (absl::Status status = model_->CheckIntact(); !status.ok()) return status;
    return ToEngineRequest(*model_, request, options_.limits);
  };
  absl::StatusOr<engine::Request> built = build();
  // An id that was refused is not repeated in the log.
  const bool id_is_fit = CheckId("request_id", request.request_id()).ok();
  auto feed = std::make_shared<Feed>(this, id_is_fit ? request.request_id() : "", std::move(sink));
  if (!built.ok()) {
    feed->Refuse(built.status());
    return RequestHandle();
  }
  built->deadline = deadline;
  const absl::StatusOr<uint64_t> ticket = engine_->Submit(*std::move(built), feed);
  if (!ticket.ok()) {
    feed->Refuse(ticket.status());
    return RequestHandle();
  }
  return RequestHandle([engine = engine_, ticket = *ticket] { engine->Cancel(ticket); });
}

v1::Load CloudBackend::CurrentLoad() const {
  const engine::LoadReport report = engine_->load();
  v1::Load load;
  load.set_running_requests(report.running_requests);
  load.set_queued_requests(report.queued_requests);
  load.set_running_tokens(report.running_tokens);
  load.set_queued_tokens(report.queued_tokens);
  load.set_kv_used_fraction(static_cast<float>(report.kv_used_fraction));
  load.set_predicted_wait_ms(static_cast<float>(report.predicted_wait_ms));
  load.set_decode_tokens_per_s(static_cast<float>(report.decode_tokens_per_s));
  return load;
}

v1::GetStatusResponse CloudBackend::Status() const {
  v1::GetStatusResponse status;
  status.set_tier(options_.tier);
  *status.mutable_model() = model_->info();
  *status.mutable_load() = CurrentLoad();
  return status;
}

void CloudBackend::RefreshMetrics(Metrics* metrics) const {
  const engine::Stats stats = engine_->stats();
  metrics->SetEngine({.n_steps = stats.n_steps,
                      .n_rows = stats.n_rows,
                      .n_preemptions = stats.n_preemptions,
                      .n_blocks = stats.n_blocks,
                      .n_free_blocks = stats.n_free_blocks});
}

}  // namespace updraft
