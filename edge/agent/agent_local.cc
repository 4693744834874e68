// The worker's side of the agent: local generation and the decisions that rest on its evidence.
#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/rpc/convert.h"
#include "edge/agent/agent.h"
#include "edge/agent/job.h"

namespace updraft {

namespace {

constexpr int kFirstLook = 8;  // tokens of a draft before it is judged; fewer say little
constexpr int kLookEvery = 4;
constexpr double kGain = 0.2;  // of a new measurement in the smoothed ones

void Smooth(double& value, double sample) { value += (value == 0.0 ? 1.0 : kGain) * (sample - value); }

}  // namespace

void Agent::WorkerLoop() {
  for (;;) {
    std::shared_ptr<Job> job;
    {
      std::unique_lock lock(mu_);
      changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      job = running_ = std::move(queue_.front());
      queue_.pop_front();
    }
    RunLocally(job);
    running_tokens_ = 0;
    std::lock_guard lock(mu_);
    running_.reset();
  }
}

void Agent::RunLocally(const std::shared_ptr<Job>& job) {
  const absl::Time start = absl::Now();
  v1::Provenance& provenance = job->provenance;
  provenance.set_queue_ms(provenance.queue_ms() + absl::ToDoubleMilliseconds(start - job->enqueued));
  AnswerSoFar so_far;
  so_far.tokens = job->tokens;
  so_far.n_prefix_tokens = job->request.accepted_prefix_size();
  // Text lags behind tokens (half a character, the start of a stop string), so what was sent is counted, not guessed,
  // where the tokens are the ones that were sent.
  if (job->tokens_valid) so_far.sent_text_bytes = job->sent_text.size();

  absl::StatusOr<bool> complete = false;
  {
    LocalRun run(model_.get(), job->prompt, job->run_options, std::move(so_far));
    complete = Generate(*job, run);
  }
  const absl::Duration took = absl::Now() - start;
  provenance.set_local_ms(provenance.local_ms() + absl::ToDoubleMilliseconds(took));
  if (!complete.ok()) return Finish(job, complete.status());
  {
    std::lock_guard lock(mu_);
    Smooth(local_run_s_, absl::ToDoubleSeconds(took));
  }
  // An answer that this tier wrote from its first token has a confidence, asked for or not.
  if (job->request.accepted_prefix_size() == 0 && provenance.spans_size() <= 1 && provenance.bytes_up() == 0) {
    provenance.set_confidence(ConfidenceOf(*job));
  }
  if (!job->hold) {
    if (std::exchange(job->may_hand_over, false)) ExplainKeeping(*job);
    return Finish(job, absl::OkStatus());
  }
  job->draft_complete = *complete;
  DecideAfterDraft(job);
}

// True: the answer is complete. False: it was given up as hopeless (only while it is held back).
absl::StatusOr<bool> Agent::Generate(Job& job, LocalRun& run) {
  for (;;) {
    if (absl::Status status = Interrupted(job); !status.ok()) return status;
    auto filled = run.Prefill();
    if (!filled.ok()) return filled.status();
    running_tokens_ = run.n_tokens();
    if (*filled) break;
  }
  const absl::Time start = absl::Now();
  const int first = job.provenance.draft_tokens();
  for (;;) {
    if (absl::Status status = Interrupted(job); !status.ok()) return status;
    auto step = run.Next();
    if (!step.ok()) return step.status();
    running_tokens_ = run.n_tokens();
    v1::Chunk chunk;
    chunk.set_tier(options_.tier);
    chunk.set_text(std::move(step->text));
    if (step->evidence) job.evidence.push_back(*step->evidence);
    if (step->token) {
      chunk.add_tokens(*step->token);
      if (job.request.include_evidence()) *chunk.add_evidence() = EvidenceToProto(*step->evidence);
      job.provenance.set_draft_tokens(job.provenance.draft_tokens() + 1);
    }
    if (job.hold) {
      job.draft.push_back(std::move(chunk));
    } else {
      if (step->token) job.tokens.push_back(*step->token);
      Emit(job, chunk, chunk.tokens_size());
    }
    if (step->finish != v1::FINISH_REASON_UNSPECIFIED) {
      job.finish = step->finish;
      break;
    }
    if (job.hold && DraftIsHopeless(job)) {
      job.provenance.set_mean_exit_layer(run.mean_exit_layer());
      return false;
    }
  }
  job.provenance.set_mean_exit_layer(run.mean_exit_layer());
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  const int n = job.provenance.draft_tokens() - first;
  if (n > 0 && seconds > 0.0) {
    std::lock_guard lock(mu_);
    Smooth(local_tokens_per_s_, n / seconds);
  }
  return true;
}

double Agent::ConfidenceOf(const Job& job) const {
  return model_->confidence().Predict(FeaturesOf(job.evidence, job.prompt.features, model_->n_layer()));
}

bool Agent::DraftIsHopeless(Job& job) const {
  const int n = static_cast<int>(job.evidence.size());
  if (n < kFirstLook || n % kLookEvery != 0) return false;
  job.provenance.set_confidence(ConfidenceOf(job));
  const RoutingDecision decision = DecideNow(job, Stage::kDuring);
  if (decision.decision != Decision::kHandOver) return false;
  job.provenance.set_reason(absl::StrFormat("after %d tokens: %s", n, decision.reason));
  return true;
}

// For an answer that was streamed because upstream could not be used when it began: whether it would have been wanted.
void Agent::ExplainKeeping(Job& job) const {
  const RoutingDecision decision = DecideNow(job, Stage::kAfter);
  const bool came_back = decision.decision == Decision::kHandOver;
  job.provenance.set_degraded(decision.degraded || came_back);
  job.provenance.set_reason(came_back ? decision.reason + ", but not when the answer began" : decision.reason);
}

void Agent::DecideAfterDraft(const std::shared_ptr<Job>& job) {
  v1::Provenance& provenance = job->provenance;
  bool hand_over = !job->draft_complete;  // decided during generation
  if (job->draft_complete) {
    const RoutingDecision decision = DecideNow(*job, Stage::kAfter);
    hand_over = decision.decision == Decision::kHandOver;
    provenance.set_reason(decision.reason);
    provenance.set_degraded(decision.degraded);
  }
  if (hand_over) {
    provenance.set_decision(v1::DECISION_KIND_HAND_OVER);
    job->draft_finish = std::exchange(job->finish, v1::FINISH_REASON_UNSPECIFIED);
    return StartUpstream(job);
  }
  provenance.set_decision(v1::DECISION_KIND_KEEP);
  EmitDraft(*job);
  Finish(job, Interrupted(*job));
}

}  // namespace updraft
