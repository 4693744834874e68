#include "cloud/service/cloud_backend.h"

#include <utility>

#include "common/serving/request_check.h"
#include "common/status/retry_delay.h"

namespace updraft {

namespace {

// Half an answer cannot be judged, nor can one whose beginning the tier below has.
bool IsHeld(const DispositionRule& rule, const v1::GenerateRequest& request) {
  return rule.acts() && !IsRaw(request) && !HasForm(request) && !request.has_given() &&
         request.accepted_prefix().empty();
}

HeldRequest HeldRequestOf(const v1::GenerateRequest& request, const engine::Request& built,
                          const PromptFeatures& features) {
  HeldRequest held{.prompt = built.prompt,
                   .stop = built.stop,
                   .max_tokens = built.max_tokens,
                   .seed = built.sampling.seed,
                   .priority = built.priority,
                   .cache_salt = built.cache_salt,
                   .deadline = built.deadline,
                   .features = features,
                   .said_last = {},
                   .wants_evidence = request.include_evidence()};
  const auto& messages = request.conversation().messages();
  if (!messages.empty()) held.said_last = messages.rbegin()->content();
  return held;
}

}  // namespace

RequestHandle CloudBackend::Submit(v1::GenerateRequest request, SteadyTime deadline, std::shared_ptr<AnswerSink> sink) {
  if (request.request_id().empty()) request.set_request_id(NewRequestId());
  PromptFeatures features;
  const auto build = [&]() -> absl::StatusOr<engine::Request> {
    if (draining_) return WithRetryDelay(absl::UnavailableError("this tier is shutting down"), absl::Seconds(1));
    if (absl::Status status = tier_.model->CheckIntact(); !status.ok()) return status;
    return ToEngineRequest(*tier_.model, request, limits_, &features);
  };
  absl::StatusOr<engine::Request> built = build();
  // An id that was refused is not repeated in the log.
  const std::string id = CheckId("request_id", request.request_id()).ok() ? request.request_id() : "";
  if (!built.ok()) {
    AnswerFeed(&tier_, id, std::move(sink)).Refuse(built.status());
    return RequestHandle();
  }
  built->deadline = deadline;
  std::shared_ptr<AnswerFeed> feed;
  if (IsHeld(tier_.rule, request)) {
    feed = std::make_shared<HeldAnswerFeed>(&tier_, id, std::move(sink), HeldRequestOf(request, *built, features));
    built->include_evidence = true;
  } else {
    feed = std::make_shared<AnswerFeed>(&tier_, id, std::move(sink), tier_.model->CallFormatFor(request));
  }
  const absl::StatusOr<uint64_t> ticket = tier_.engine->Submit(*std::move(built), feed);
  if (!ticket.ok()) {
    feed->Refuse(ticket.status());
    return RequestHandle();
  }
  return RequestHandle([engine = tier_.engine, ticket = *ticket, feed = std::move(feed)] {
    engine->Cancel(ticket);
    feed->Cancel();
  });
}

v1::Load CloudBackend::CurrentLoad() const {
  const engine::LoadReport report = tier_.engine->load();
  v1::Load load;
  load.set_running_requests(report.running_requests);
  load.set_queued_requests(report.queued_requests);
  load.set_running_tokens(report.running_tokens);
  load.set_queued_tokens(report.queued_tokens);
  load.set_kv_used_fraction(static_cast<float>(report.kv_used_fraction));
  load.set_predicted_wait_ms(static_cast<float>(report.predicted_wait_ms));
  load.set_decode_tokens_per_s(static_cast<float>(report.decode_tokens_per_s));
  load.set_prefill_tokens_per_s(static_cast<float>(report.prefill_tokens_per_s));
  return load;
}

v1::GetStatusResponse CloudBackend::Status() const {
  v1::GetStatusResponse status;
  status.set_tier(tier_.name);
  *status.mutable_model() = tier_.model->info();
  *status.mutable_load() = CurrentLoad();
  return status;
}

void CloudBackend::RefreshMetrics(Metrics* metrics) const {
  const engine::Stats stats = tier_.engine->stats();
  metrics->SetEngine({.n_steps = stats.n_steps,
                      .n_rows = stats.n_rows,
                      .n_preemptions = stats.n_preemptions,
                      .n_started_tokens = stats.n_started_tokens,
                      .n_cached_tokens = stats.n_cached_tokens,
                      .n_blocks = stats.n_blocks,
                      .n_free_blocks = stats.n_free_blocks});
}

}  // namespace updraft
