// Handing a request over to the tier above, and coming back when that fails.
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "edge/agent/agent.h"
#include "edge/agent/job.h"

namespace updraft {

// Ties one call upstream to its request.
class UpstreamLeg final : public UpstreamListener {
 public:
  UpstreamLeg(Agent* agent, std::shared_ptr<Job> job) : agent_(agent), job_(std::move(job)) {}
  void OnResponse(const v1::GenerateResponse& response) override { agent_->OnUpstreamResponse(job_, response); }
  void OnFinished(const absl::Status& status, const UpstreamTraffic& traffic) override {
    agent_->OnUpstreamFinished(job_, status, traffic);
  }

 private:
  Agent* const agent_;
  const std::shared_ptr<Job> job_;
};

v1::GenerateRequest Agent::UpstreamRequest(Job& job) const {
  v1::GenerateRequest request = job.request;
  request.set_max_tokens(job.run_options.max_tokens);
  request.set_tier(v1::TIER_CHOICE_UNSPECIFIED);  // the caller chose among our tiers, not upstream's
  job.same_vocabulary = upstream_->Snapshot().tokenizer_fingerprint == model_->info().tokenizer_fingerprint();
  if (request.input_case() == v1::GenerateRequest::kTokens) {
    job.same_vocabulary = job.sent_tokens =
        true;  // there is nothing else to send; upstream refuses what is not its own
    return request;
  }
  // Where a vocabulary puts a space before the first word, token ids alone do not tell upstream whether the answer
  // begins a text.
  const bool ids_say_all = job.prompt.at_text_start || !model_->served().tokenizer()->adds_space_prefix();
  job.sent_tokens = job.same_vocabulary && ids_say_all && !job.text_only;
  if (!job.sent_tokens) return request;
  v1::TokenIds* tokens = request.mutable_tokens();
  tokens->set_tokenizer_fingerprint(model_->info().tokenizer_fingerprint());
  tokens->mutable_ids()->Add(job.prompt.tokens.begin(), job.prompt.tokens.end());
  // The chat format's own stop strings stay here: upstream adds them to ids itself (ServedModel::FromTokens), and
  // beside them the client's might be more than a request may have.
  return request;
}

void Agent::StartUpstream(const std::shared_ptr<Job>& job) {
  job->upstream_started = absl::Now();
  const v1::GenerateRequest request = UpstreamRequest(*job);
  int index;
  {
    std::lock_guard lock(job->call_mu);
    index = ++job->n_calls;
  }
  // From here on the request belongs to the call.
  auto call = upstream_->Generate(request, job->deadline, std::make_shared<UpstreamLeg>(this, job));
  {
    std::lock_guard lock(job->call_mu);
    if (job->n_calls == index) job->call = call;
  }
  if (job->cancelled) call->Cancel();
}

void Agent::OnUpstreamResponse(const std::shared_ptr<Job>& job, const v1::GenerateResponse& response) {
  if (response.has_chunk()) {
    v1::Chunk chunk = response.chunk();
    if (chunk.tier().empty()) chunk.set_tier("upstream");
    const int n_tokens = chunk.tokens_size();
    if (job->same_vocabulary && (n_tokens > 0 || chunk.text().empty())) {
      job->tokens.insert(job->tokens.end(), chunk.tokens().begin(), chunk.tokens().end());
    } else {
      // Ids of another vocabulary would be misread by whoever takes ours.
      job->tokens_valid = false;
      chunk.clear_tokens();
      chunk.clear_evidence();
    }
    Emit(*job, chunk, n_tokens);
    if (job->cancelled) Cancel(job);
  }
  if (response.has_done()) job->finish = response.done().finish_reason();
}

void Agent::OnUpstreamFinished(const std::shared_ptr<Job>& job, absl::Status status, const UpstreamTraffic& traffic) {
  v1::Provenance& provenance = job->provenance;
  provenance.set_bytes_up(provenance.bytes_up() + traffic.bytes_up);
  provenance.set_bytes_down(provenance.bytes_down() + traffic.bytes_down);
  provenance.set_upstream_ms(provenance.upstream_ms() +
                             absl::ToDoubleMilliseconds(absl::Now() - job->upstream_started));
  if (absl::Status interrupted = Interrupted(*job); !interrupted.ok()) return Finish(job, interrupted);
  if (status.ok() && job->finish == v1::FINISH_REASON_UNSPECIFIED) {
    status = absl::UnavailableError("the stream ended without its last message");
  }
  if (status.ok()) return Finish(job, status);
  if (absl::IsFailedPrecondition(status) && job->sent_tokens && !job->text_only && !job->sent_any &&
      job->request.input_case() != v1::GenerateRequest::kTokens) {
    upstream_->ForgetFingerprint();
    job->text_only = true;
    return StartUpstream(job);
  }
  FallBack(job, status);
}

void Agent::FallBack(const std::shared_ptr<Job>& job, const absl::Status& why) {
  v1::Provenance& provenance = job->provenance;
  const std::string cause =
      absl::StrFormat("upstream failed (%s: %s)", absl::StatusCodeToString(why.code()), std::string(why.message()));
  if (!job->fits_locally) return Finish(job, absl::Status(why.code(), cause));
  provenance.set_degraded(true);
  if (job->sent_any) {
    provenance.set_reason(absl::StrFormat("%s; %s: finished locally", provenance.reason(), cause));
  } else {
    provenance.set_decision(v1::DECISION_KIND_KEEP);
    provenance.set_reason(absl::StrFormat("%s; %s: answered locally", provenance.reason(), cause));
    const bool complete = job->draft_complete;
    EmitDraft(*job);
    job->finish = job->draft_finish;
    if (complete) return Finish(job, Interrupted(*job));
  }
  job->hold = job->may_hand_over = false;
  job->finish = v1::FINISH_REASON_UNSPECIFIED;
  if (!job->tokens_valid) {
    // Upstream wrote in another vocabulary: go on from the text.
    auto tokens = model_->EncodeAnswer(job->sent_text);
    if (!tokens.ok()) return Finish(job, tokens.status());
    job->tokens = *std::move(tokens);
  }
  if (job->prompt.tokens.size() + job->tokens.size() >= static_cast<size_t>(model_->max_sequence_tokens())) {
    return Finish(job, absl::Status(why.code(), cause + "; the answer so far is more than this tier can hold"));
  }
  Enqueue(job, /*in_front=*/true);
}

}  // namespace updraft
