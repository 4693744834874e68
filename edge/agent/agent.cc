#include "edge/agent/agent.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/rpc/convert.h"
#include "common/serving/request_check.h"
#include "common/status/retry_delay.h"
#include "common/telemetry/log.h"
#include "edge/agent/job.h"

namespace updraft {

namespace {

v1::DecisionKind ToProto(Decision decision) {
  switch (decision) {
    case Decision::kKeep:
      return v1::DECISION_KIND_KEEP;
    case Decision::kHandOver:
      return v1::DECISION_KIND_HAND_OVER;
    case Decision::kVerify:
      return v1::DECISION_KIND_VERIFY;
    case Decision::kStreamUpstream:
      return v1::DECISION_KIND_STREAM_UPSTREAM;
    case Decision::kDefer:
      return v1::DECISION_KIND_DEFER;
  }
  return v1::DECISION_KIND_UNSPECIFIED;
}

std::string DecisionLabel(v1::DecisionKind kind) {
  switch (kind) {
    case v1::DECISION_KIND_KEEP:
      return DecisionName(Decision::kKeep);
    case v1::DECISION_KIND_HAND_OVER:
      return DecisionName(Decision::kHandOver);
    case v1::DECISION_KIND_STREAM_UPSTREAM:
      return DecisionName(Decision::kStreamUpstream);
    default:
      return "";
  }
}

const char* PolicyName(PolicyMode mode) {
  switch (mode) {
    case PolicyMode::kAuto:
      return "auto";
    case PolicyMode::kLocal:
      return "local";
    case PolicyMode::kUpstream:
      return "upstream";
  }
  return "auto";
}

// What the caller asks for, within what this tier is allowed: privacy by configuration is not the caller's to lift.
PolicyMode ModeOf(PolicyMode configured, v1::TierChoice asked) {
  if (configured == PolicyMode::kLocal || asked == v1::TIER_CHOICE_LOCAL_ONLY) return PolicyMode::kLocal;
  if (asked == v1::TIER_CHOICE_UPSTREAM_ONLY) return PolicyMode::kUpstream;
  return configured;
}

}  // namespace

Agent::Agent(AgentOptions options, std::unique_ptr<LocalModel> model, std::unique_ptr<Upstream> upstream,
             Metrics* metrics)
    : options_(std::move(options)), model_(std::move(model)), upstream_(std::move(upstream)), metrics_(metrics) {
  summary_.set_threshold(options_.policy.confidence_threshold);
  summary_.set_policy(PolicyName(options_.policy.mode));
  worker_ = std::thread([this] { WorkerLoop(); });
}

Agent::~Agent() { Stop(); }

// ---- In -----------------------------------------------------------------------------------------------------------

RequestHandle Agent::Submit(v1::GenerateRequest request, SteadyTime deadline, std::shared_ptr<AnswerSink> sink) {
  auto job = std::make_shared<Job>();
  job->request = std::move(request);
  job->deadline = deadline;
  job->sink = std::move(sink);
  job->arrived = absl::Now();
  absl::Status status = Prepare(*job);
  if (status.ok()) status = Admit(job);
  if (status.ok()) {
    Begin(job);
  } else {
    Finish(job, status);
  }
  return RequestHandle([this, job] { Cancel(job); });
}

absl::Status Agent::Prepare(Job& job) const {
  v1::GenerateRequest& request = job.request;
  if (absl::Status status = CheckRequest(request); !status.ok()) {
    if (!CheckId("", request.request_id()).ok()) request.clear_request_id();  // not fit for the log
    return status;
  }
  if (request.request_id().empty()) request.set_request_id(NewRequestId());
  auto sampling = SamplingFromProto(request.sampling());
  if (!sampling.ok()) return sampling.status();
  job.mode = ModeOf(options_.policy.mode, request.tier());
  auto prompt = model_->served().MakePrompt(request, MostTokens(job) - 1);
  if (!prompt.ok()) return prompt.status();
  job.prompt = *std::move(prompt);
  job.tokens.assign(request.accepted_prefix().begin(), request.accepted_prefix().end());

  job.run_options.sampling = *sampling;
  job.run_options.max_tokens = request.max_tokens() > 0 ? request.max_tokens() : options_.max_tokens_default;
  job.run_options.stops.assign(request.stop().begin(), request.stop().end());
  job.run_options.stops.insert(job.run_options.stops.end(), job.prompt.stops.begin(), job.prompt.stops.end());
  return CheckRoom(job);
}

bool Agent::MayGoUp(const Job& job) const {
  return upstream_ != nullptr && job.mode != PolicyMode::kLocal && job.request.hops() < options_.policy.max_hops;
}

int Agent::ContextAbove(const Job& job) const { return MayGoUp(job) ? upstream_->Snapshot().context_length : 0; }

size_t Agent::MostTokens(const Job& job) const {
  return static_cast<size_t>(std::max(model_->max_sequence_tokens(), ContextAbove(job)));
}

absl::Status Agent::CheckRoom(Job& job) const {
  const size_t n_tokens = job.prompt.tokens.size() + job.tokens.size();
  job.fits_locally = n_tokens < static_cast<size_t>(model_->max_sequence_tokens());
  if (job.fits_locally) return absl::OkStatus();
  if (!MayGoUp(job)) {
    return absl::OutOfRangeError(absl::StrFormat(
        "prompt: %d tokens do not leave room for an answer in the %d tokens that this tier holds; shorten the "
        "conversation, or raise --kv-tokens if the model's context of %d allows",
        n_tokens, model_->max_sequence_tokens(), model_->info().context_length()));
  }
  // Refused here what the tier above would refuse after it had been sent.
  const int above = ContextAbove(job);
  if (above == 0 || n_tokens < static_cast<size_t>(above)) return absl::OkStatus();
  return absl::OutOfRangeError(
      absl::StrFormat("prompt: %d tokens do not leave room for an answer, neither in the %d tokens that this tier "
                      "holds nor in the %d of the tier above; shorten the conversation",
                      n_tokens, model_->max_sequence_tokens(), above));
}

absl::Status Agent::Admit(const std::shared_ptr<Job>& job) {
  std::lock_guard lock(mu_);
  if (draining_) return WithRetryDelay(absl::UnavailableError("this tier is shutting down"), absl::Seconds(1));
  const size_t most = static_cast<size_t>(options_.max_queued) + static_cast<size_t>(options_.max_handed_over);
  if (queue_.size() >= static_cast<size_t>(options_.max_queued) || jobs_.size() >= most) {
    return WithRetryDelay(absl::ResourceExhaustedError(absl::StrFormat(
                              "%d requests wait already; try again later, or raise --max-queued", queue_.size())),
                          std::clamp(PredictedWait(), absl::Milliseconds(50), absl::Seconds(30)));
  }
  const std::string& id = job->request.request_id();
  if (job->request.hops() > 0 && std::any_of(jobs_.begin(), jobs_.end(), [&id](const std::shared_ptr<Job>& other) {
        return other->request.request_id() == id;
      })) {
    return absl::AlreadyExistsError(
        absl::StrFormat("request_id: '%s' was passed on to tier '%s', which is serving it already; see that no "
                        "--upstream leads back here",
                        id, options_.tier));
  }
  jobs_.insert(job);
  return absl::OkStatus();
}

void Agent::Begin(const std::shared_ptr<Job>& job) {
  const RoutingDecision decision = DecideNow(*job, Stage::kBefore);
  v1::Provenance& provenance = job->provenance;
  provenance.set_decision(ToProto(decision.decision));
  provenance.set_reason(decision.reason);
  provenance.set_degraded(decision.degraded);
  switch (decision.decision) {
    case Decision::kStreamUpstream:
      return StartUpstream(job);
    case Decision::kDefer:
      return Finish(job, absl::UnavailableError(decision.reason));
    default:
      // Text that went out cannot be replaced: while the answer may still be handed over, it is held back. Where not
      // even an answer without any confidence would be (upstream is away, or too slow), nothing speaks against
      // streaming it.
      job->may_hand_over = upstream_ != nullptr && job->mode == PolicyMode::kAuto && !decision.degraded;
      job->hold = job->may_hand_over && DecideNow(*job, Stage::kAfter).decision == Decision::kHandOver;
      Enqueue(job, /*in_front=*/false);
  }
}

RoutingDecision Agent::DecideNow(const Job& job, Stage stage) const {
  RoutingPolicy policy = options_.policy;
  policy.mode = job.mode;
  RoutingState state;
  state.stage = stage;
  state.has_upstream = upstream_ != nullptr;
  state.fits_locally = job.fits_locally;
  state.hops = job.request.hops();
  state.confidence = job.provenance.confidence();
  state.n_prompt_tokens = static_cast<int>(job.prompt.tokens.size());
  state.n_draft_tokens = job.provenance.draft_tokens();
  if (job.deadline != SteadyTime::InfiniteFuture()) {
    state.deadline_s = absl::ToDoubleSeconds(job.deadline - SteadyNow());
  }
  if (upstream_ != nullptr) {
    const UpstreamSnapshot snapshot = upstream_->Snapshot();
    state.link = snapshot.link;
    state.load = snapshot.load;
    state.since_failure_s = snapshot.since_failure_s;
  }
  {
    std::lock_guard lock(mu_);
    state.expected_answer_tokens = std::min(static_cast<int>(answer_tokens_ + 0.5), job.run_options.max_tokens);
    state.local_tokens_per_s = local_tokens_per_s_;
    state.previous = previous_;
  }
  return Decide(state, policy);
}

void Agent::Enqueue(const std::shared_ptr<Job>& job, bool in_front) {
  job->enqueued = absl::Now();
  std::lock_guard lock(mu_);
  in_front ? queue_.push_front(job) : queue_.push_back(job);
  changed_.notify_all();
}

void Agent::Cancel(const std::shared_ptr<Job>& job) {
  job->cancelled = true;
  bool was_queued = false;
  {
    std::lock_guard lock(mu_);
    auto it = std::find(queue_.begin(), queue_.end(), job);
    was_queued = it != queue_.end();
    if (was_queued) queue_.erase(it);
  }
  if (was_queued) return Finish(job, Interrupted(*job));
  CancelCall(*job);  // the worker, if it has the request, looks between tokens
}

void Agent::CancelCall(Job& job) {
  std::shared_ptr<UpstreamCall> call;
  {
    std::lock_guard lock(job.call_mu);
    call = job.call;
  }
  if (call != nullptr) call->Cancel();
}

absl::Status Agent::Interrupted(const Job& job) const {
  if (job.cancelled && shut_down_) {
    return WithRetryDelay(absl::UnavailableError("this tier is shutting down"), absl::Seconds(1));
  }
  if (job.cancelled) return absl::CancelledError("the request was cancelled");
  if (SteadyNow() >= job.deadline) return absl::DeadlineExceededError("the deadline is over");
  return absl::OkStatus();
}

// ---- Out ----------------------------------------------------------------------------------------------------------

void Agent::Emit(Job& job, const v1::Chunk& chunk, int n_tokens) {
  if (n_tokens == 0 && chunk.text().empty()) return;
  v1::Provenance& provenance = job.provenance;
  if (!job.sent_any) provenance.set_first_token_ms(absl::ToDoubleMilliseconds(absl::Now() - job.arrived));
  job.sent_any = true;
  job.sent_text += chunk.text();
  job.n_completion_tokens += n_tokens;
  if (provenance.spans_size() == 0 || provenance.spans(provenance.spans_size() - 1).tier() != chunk.tier()) {
    provenance.add_spans()->set_tier(chunk.tier());
  }
  auto* span = provenance.mutable_spans(provenance.spans_size() - 1);
  span->set_n_tokens(span->n_tokens() + n_tokens);
  if (!job.sink->OnChunk(chunk)) job.cancelled = true;
}

void Agent::EmitDraft(Job& job) {
  job.hold = false;
  for (const v1::Chunk& chunk : job.draft) {
    job.tokens.insert(job.tokens.end(), chunk.tokens().begin(), chunk.tokens().end());
    Emit(job, chunk, chunk.tokens_size());
  }
  job.draft.clear();
}

void Agent::Finish(const std::shared_ptr<Job>& job, const absl::Status& status) {
  v1::Done done;
  v1::Provenance& provenance = job->provenance;
  provenance.set_total_ms(absl::ToDoubleMilliseconds(absl::Now() - job->arrived));
  done.set_finish_reason(job->finish);
  done.mutable_usage()->set_prompt_tokens(static_cast<int32_t>(job->prompt.tokens.size()));
  done.mutable_usage()->set_completion_tokens(job->n_completion_tokens);
  *done.mutable_provenance() = provenance;

  const std::string decision = DecisionLabel(provenance.decision());
  const std::string outcome = status.ok() ? "ok" : absl::AsciiStrToLower(absl::StatusCodeToString(status.code()));
  for (const v1::Provenance::Span& span : provenance.spans()) metrics_->OnTokens(span.tier(), span.n_tokens());
  metrics_->OnRequest({.outcome = outcome,
                       .decision = decision,
                       .degraded = provenance.degraded(),
                       .total_s = provenance.total_ms() * 1e-3,
                       .first_token_s = provenance.first_token_ms() * 1e-3,
                       .queue_s = provenance.queue_ms() * 1e-3,
                       .confidence = job->evidence.empty() ? -1.0 : provenance.confidence(),
                       .bytes_up = provenance.bytes_up(),
                       .bytes_down = provenance.bytes_down()});
  LogEvent(status.ok() || absl::IsCancelled(status) ? LogLevel::kInfo : LogLevel::kWarn, "request",
           {{"id", job->request.request_id()},
            {"outcome", outcome},
            {"decision", decision},
            {"reason", status.ok() ? provenance.reason() : std::string(status.message())},
            {"prompt_tokens", job->prompt.tokens.size()},
            {"answer_tokens", job->n_completion_tokens},
            {"total_ms", provenance.total_ms()}});
  // The books are closed before the client hears the end, so that it never sees itself counted as running.
  {
    std::lock_guard lock(mu_);
    ++n_ending_;
    if (jobs_.erase(job) > 0) Account(*job, status);
  }
  job->Release();
  // The sink holds the request's handle, so keeping it would keep both for ever.
  std::shared_ptr<AnswerSink> sink = std::move(job->sink);
  sink->OnEnd(status, done);
  sink.reset();
  std::lock_guard lock(mu_);
  --n_ending_;
  changed_.notify_all();
}

void Agent::Account(const Job& job, const absl::Status& status) {
  const v1::Provenance& provenance = job.provenance;
  summary_.set_requests(summary_.requests() + 1);
  if (!status.ok()) return;
  switch (provenance.decision()) {
    case v1::DECISION_KIND_HAND_OVER:
      summary_.set_handed_over(summary_.handed_over() + 1);
      break;
    case v1::DECISION_KIND_STREAM_UPSTREAM:
      summary_.set_streamed_upstream(summary_.streamed_upstream() + 1);
      break;
    default:
      summary_.set_kept(summary_.kept() + 1);
  }
  if (provenance.degraded()) summary_.set_degraded(summary_.degraded() + 1);
  previous_ = provenance.decision() == v1::DECISION_KIND_KEEP ? Decision::kKeep : Decision::kHandOver;
  const double gain = answer_tokens_ == 0.0 ? 1.0 : 0.1;
  answer_tokens_ += gain * (job.n_completion_tokens - answer_tokens_);
}

// ---- What the agent says of itself --------------------------------------------------------------------------------

absl::Duration Agent::PredictedWait() const {
  const double ahead = static_cast<double>(queue_.size()) + (running_ != nullptr ? 0.5 : 0.0);
  return absl::Seconds(ahead * local_run_s_);
}

v1::Load Agent::CurrentLoad() const {
  v1::Load load;
  std::lock_guard lock(mu_);
  const int n_tokens = running_tokens_;
  load.set_running_requests(static_cast<int32_t>(jobs_.size() - std::min(jobs_.size(), queue_.size())));
  load.set_queued_requests(static_cast<int32_t>(queue_.size()));
  load.set_running_tokens(n_tokens);
  int64_t queued_tokens = 0;
  for (const auto& job : queue_) queued_tokens += static_cast<int64_t>(job->prompt.tokens.size());
  load.set_queued_tokens(static_cast<int32_t>(queued_tokens));
  load.set_kv_used_fraction(static_cast<float>(n_tokens) / static_cast<float>(model_->max_sequence_tokens()));
  load.set_predicted_wait_ms(static_cast<float>(absl::ToDoubleMilliseconds(PredictedWait())));
  load.set_decode_tokens_per_s(static_cast<float>(local_tokens_per_s_));
  return load;
}

v1::Link Agent::CurrentLink() const {
  v1::Link link;
  if (upstream_ == nullptr) return link;
  const LinkEstimate estimate = upstream_->Snapshot().link;
  link.set_upstream(upstream_->address());
  link.set_reachable(estimate.reachable);
  link.set_rtt_ms(estimate.rtt_s * 1e3);
  link.set_rtt_jitter_ms(estimate.rtt_jitter_s * 1e3);
  link.set_goodput_up_bytes_per_s(estimate.goodput_up_bytes_per_s);
  link.set_goodput_down_bytes_per_s(estimate.goodput_down_bytes_per_s);
  link.set_samples(estimate.samples);
  link.set_age_s(estimate.age_s);
  return link;
}

v1::GetStatusResponse Agent::Status() const {
  v1::GetStatusResponse status;
  status.set_tier(options_.tier);
  *status.mutable_model() = model_->info();
  *status.mutable_load() = CurrentLoad();
  *status.mutable_link() = CurrentLink();
  if (upstream_ != nullptr) {
    if (auto last = upstream_->Snapshot().last_status) *status.mutable_upstream() = *std::move(last);
  }
  std::lock_guard lock(mu_);
  *status.mutable_routing() = summary_;
  return status;
}

// ---- Stopping -----------------------------------------------------------------------------------------------------

void Agent::BeginDrain() {
  std::lock_guard lock(mu_);
  draining_ = true;
}

bool Agent::draining() const {
  std::lock_guard lock(mu_);
  return draining_;
}

bool Agent::WaitIdle(absl::Duration timeout) {
  std::unique_lock lock(mu_);
  return changed_.wait_for(lock, absl::ToChronoMilliseconds(timeout),
                           [this] { return jobs_.empty() && n_ending_ == 0; });
}

void Agent::Stop(absl::Duration grace) {
  BeginDrain();
  std::vector<std::shared_ptr<Job>> left;
  WaitIdle(grace);
  {
    std::lock_guard lock(mu_);
    left.assign(jobs_.begin(), jobs_.end());
  }
  shut_down_ = true;
  for (const auto& job : left) Cancel(job);
  {
    std::unique_lock lock(mu_);
    changed_.wait(lock, [this] { return jobs_.empty() && n_ending_ == 0; });
    stopping_ = true;
    changed_.notify_all();
  }
  if (worker_.joinable()) worker_.join();
  if (upstream_ != nullptr) upstream_->Stop();
}

}  // namespace updraft
