// Handing a request over to the tier above, and coming back when that fails.
#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/serving/request_check.h"
#include "common/text/utf8.h"
#include "edge/agent/agent.h"
#include "edge/agent/job.h"

namespace updraft {

namespace {

// What an upstream may send, whatever it is. An honest one comes near none of these.
constexpr int kMaxAnswerTokens = 1 << 20;
constexpr size_t kMaxAnswerBytes = 16 << 20;
constexpr size_t kMaxTokenBytes = 512;  // of text, so that an upstream that sends text alone has to end as well

// Cuts the chunk to what the answer may still have; false when there was more.
bool Bound(const Job& job, v1::Chunk& chunk) {
  const int most = std::min(job.run_options.max_tokens, kMaxAnswerTokens);
  const int room = std::max(0, most - job.request.accepted_prefix_size() - job.n_completion_tokens);
  // One token more than that: text of the accepted prefix that the tier below could not finish.
  const size_t most_bytes = std::min(kMaxAnswerBytes, (static_cast<size_t>(most) + 1) * kMaxTokenBytes);
  const size_t room_bytes = most_bytes - std::min(most_bytes, job.sent_text.size());
  const bool fits = chunk.tokens_size() <= room && chunk.text().size() <= room_bytes;
  if (!job.request.include_evidence() || chunk.evidence_size() != chunk.tokens_size()) chunk.clear_evidence();
  if (chunk.tokens_size() > room) chunk.mutable_tokens()->Truncate(room);
  if (chunk.evidence_size() > room) chunk.mutable_evidence()->DeleteSubrange(room, chunk.evidence_size() - room);
  if (chunk.text().size() > room_bytes) chunk.set_text(text::BoundedUtf8(chunk.text(), room_bytes));
  return fits;
}

}  // namespace

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
  request.set_hops(request.hops() + 1);
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
  job->upstream_over = false;
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
  if (job->cancelled || job->upstream_over) call->Cancel();
}

void Agent::OnUpstreamResponse(const std::shared_ptr<Job>& job, const v1::GenerateResponse& response) {
  // An upstream that goes on after its last message would otherwise keep the request for as long as it likes.
  if (job->upstream_over) return CancelCall(*job);
  if (response.has_chunk()) {
    TakeUpstreamChunk(*job, response.chunk());
    if (job->cancelled) Cancel(job);
    if (job->upstream_over) CancelCall(*job);
  }
  if (response.has_done()) {
    job->finish = response.done().finish_reason();
    job->upstream_over = true;
  }
}

void Agent::TakeUpstreamChunk(Job& job, v1::Chunk chunk) {
  chunk.set_tier(chunk.tier().empty() ? "upstream" : text::BoundedUtf8(chunk.tier(), kMaxIdBytes));
  if (!Bound(job, chunk)) {
    job.finish = v1::FINISH_REASON_LENGTH;
    job.upstream_over = true;
  }
  const int n_tokens = chunk.tokens_size();
  const bool ids_known = std::all_of(chunk.tokens().begin(), chunk.tokens().end(), [this](int32_t id) {
    return id >= 0 && id < model_->served().tokenizer()->vocab_size();
  });
  if (!ids_known) job.same_vocabulary = false;
  if (job.same_vocabulary && (n_tokens > 0 || chunk.text().empty())) {
    job.tokens.insert(job.tokens.end(), chunk.tokens().begin(), chunk.tokens().end());
  } else {
    // Ids of another vocabulary would be misread by whoever takes ours.
    job.tokens_valid = false;
    chunk.clear_tokens();
    chunk.clear_evidence();
  }
  Emit(job, chunk, n_tokens);
}

void Agent::OnUpstreamFinished(const std::shared_ptr<Job>& job, absl::Status status, const UpstreamTraffic& traffic) {
  v1::Provenance& provenance = job->provenance;
  provenance.set_bytes_up(provenance.bytes_up() + traffic.bytes_up);
  provenance.set_bytes_down(provenance.bytes_down() + traffic.bytes_down);
  provenance.set_upstream_ms(provenance.upstream_ms() +
                             absl::ToDoubleMilliseconds(absl::Now() - job->upstream_started));
  if (absl::Status interrupted = Interrupted(*job); !interrupted.ok()) return Finish(job, interrupted);
  if (job->finish != v1::FINISH_REASON_UNSPECIFIED) {
    status = absl::OkStatus();  // the answer is whole, however the call ended after it
  } else if (status.ok()) {
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
    const auto& prefix = job->request.accepted_prefix();
    job->tokens.assign(prefix.begin(), prefix.end());
    job->tokens.insert(job->tokens.end(), tokens->begin(), tokens->end());
  }
  if (job->prompt.tokens.size() + job->tokens.size() >= static_cast<size_t>(model_->max_sequence_tokens())) {
    return Finish(job, absl::Status(why.code(), cause + "; the answer so far is more than this tier can hold"));
  }
  Enqueue(job, /*in_front=*/true);
}

}  // namespace updraft
