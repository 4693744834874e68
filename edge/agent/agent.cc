#include "edge/agent/agent.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "common/routing/record_json.h"
#include "common/rpc/convert.h"
#include "common/status/retry_delay.h"
#include "common/telemetry/log.h"

namespace updraft {

namespace {

TierFacts FactsOf(const AgentOptions& options, const LocalModel& model) {
  TierFacts tier;
  tier.name = options.tier;
  tier.vocab_size = model.served().tokenizer()->vocab_size();
  tier.max_sequence_tokens = model.max_sequence_tokens();
  tier.tokenizer_fingerprint = model.info().tokenizer_fingerprint();
  tier.adds_space_prefix = model.served().tokenizer()->adds_space_prefix();
  tier.acts = model.disposition_rule().acts();
  return tier;
}

// FNV-1a over what the confidence was fitted on and read by.
uint64_t FingerprintOf(const LocalModel& model) {
  std::vector<std::string> parts = {model.confidence().data_fingerprint(), model.info().tokenizer_fingerprint(),
                                    model.info().name(), std::to_string(model.info().file_bytes())};
  if (model.info().has_adapter()) parts.push_back(model.info().adapter().sha256());
  uint64_t hash = 0xcbf29ce484222325;
  for (const std::string& part : parts) {
    for (const char c : part) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    hash *= 0x100000001b3;
  }
  return hash;
}

DriftOptions DriftOf(const AgentOptions& options) {
  DriftOptions drift;
  drift.level = options.audit_level;
  drift.threshold = options.policy.confidence_threshold;
  drift.audit_share = options.audit_share;
  drift.min_share = std::min(drift.min_share, options.audit_share);
  return drift;
}

absl::Status ShuttingDown() {
  return WithRetryDelay(absl::UnavailableError("this tier is shutting down"), absl::Seconds(1));
}

}  // namespace

absl::Status CheckAudits(const AgentOptions& options) {
  return options.audit_share == 0.0 ? absl::OkStatus() : DriftOf(options).Validate();
}

class Agent::Host final : public AnswerHost {
 public:
  Host(const Agent* agent, const LocalModel* model, SharedSession* session, const Upstream* upstream)
      : agent_(agent), model_(model), session_(session), upstream_(upstream) {}

  DecisionRecord Decide(const Situation& situation) override {
    Situation known = situation;
    if (known.stage == Stage::kBefore) {
      known.request.local_wait_s = absl::ToDoubleSeconds(agent_->PredictedWait(agent_->worker_->load()));
    }
    const DecisionRecord record = session_->With([&](RoutingSession& session) { return session.Decide(known); });
    // As long as a page, so only where somebody asked for it.
    if (LogEnabled(LogLevel::kDebug)) {
      LogEvent(LogLevel::kDebug, "decision", {LogField::Json("record", RecordToJson(record))});
    }
    return record;
  }
  void OnLocalRun(const LocalRunMeasured& run) override {
    session_->With([&](RoutingSession& session) { session.OnLocalRun(run); });
  }
  double Confidence(std::string_view text, std::span<const TokenEvidence> evidence,
                    const PromptFeatures& prompt) const override {
    const AnswerShape shape = model_->disposition_rule().ShapeOf(text);
    return model_->confidence().Predict(FeaturesOf(evidence, prompt, model_->n_layer(), shape));
  }
  Verdict Judge(std::string_view text, std::span<const TokenEvidence> evidence,
                const PromptFeatures& prompt) const override {
    return model_->disposition_rule().Judge(text, evidence, prompt);
  }
  AskingBack AskBack(std::span<const std::string> candidates, std::string_view said_last) const override {
    return model_->disposition_rule().AskBack(candidates, said_last);
  }
  bool UpstreamReadsOurIds() const override {
    return upstream_->Identity().tokenizer_fingerprint == model_->info().tokenizer_fingerprint();
  }
  absl::StatusOr<std::vector<int32_t>> Encode(const std::string& text, bool begins_text) const override {
    return model_->EncodeAnswer(text, begins_text);
  }

 private:
  const Agent* const agent_;
  const LocalModel* const model_;
  SharedSession* const session_;
  const Upstream* const upstream_;
};

class Agent::Keeper final : public AnswerKeeper {
 public:
  explicit Keeper(Agent* agent) : agent_(agent) {}
  void OnEnded(LiveAnswer& live, const Answer& answer, const EndAnswer& end) override {
    const double audit_propensity = agent_->Audit(answer, end);
    agent_->Measure(answer, end, audit_propensity);
    agent_->CloseBooks(live, answer, end);
  }
  void OnTold() override {
    MutexLock lock(agent_->mu_);
    --agent_->n_ending_;
    agent_->changed_.NotifyAll();
  }

 private:
  Agent* const agent_;
};

Agent::Agent(AgentOptions options, std::unique_ptr<LocalModel> model, std::shared_ptr<SharedSession> session,
             std::unique_ptr<Upstream> upstream, Metrics* metrics)
    : options_(std::move(options)),
      model_(std::move(model)),
      session_(std::move(session)),
      upstream_(std::move(upstream)),
      metrics_(metrics),
      tier_(FactsOf(options_, *model_)),
      host_(std::make_unique<Host>(this, model_.get(), session_.get(), upstream_.get())),
      keeper_(std::make_unique<Keeper>(this)),
      worker_(std::make_unique<LocalWorker>(model_.get(), LocalWorkerOptions{.tier = options_.tier,
                                                                             .max_queued = options_.max_queued,
                                                                             .n_at_once = options_.answers_at_once})),
      legs_{.worker = worker_.get(), .upstream = upstream_.get()} {
  session_->With([&](RoutingSession& s) { s.Configure(options_.policy, FingerprintOf(*model_)); });
  if (upstream_ != nullptr && options_.audit_share > 0.0) {
    const AuditorOptions audits{.drift = DriftOf(options_), .acts = tier_.acts};
    auto auditor = Auditor::Create(audits, upstream_.get(), session_.get(), metrics_, [this](double t) { Tighten(t); });
    if (auditor.ok()) auditor_ = *std::move(auditor);  // CheckAudits says why not
  }
  MutexLock lock(mu_);
  summary_.set_threshold(options_.policy.confidence_threshold);
  summary_.set_policy(std::string(NameOf(options_.policy.mode)));
}

Agent::~Agent() { Stop(); }

// ---- In -----------------------------------------------------------------------------------------------------------

RequestHandle Agent::Submit(v1::GenerateRequest request, SteadyTime deadline, std::shared_ptr<AnswerSink> sink) {
  Asked asked;
  asked.request = std::move(request);
  asked.arrived = SteadyNow();
  asked.deadline = deadline;
  absl::Status status = Prepare(asked);
  auto live = std::make_shared<LiveAnswer>(
      &legs_, keeper_.get(), std::make_unique<Answer>(&tier_, host_.get(), std::move(asked)), std::move(sink));
  if (status.ok()) status = Admit(live);
  if (status.ok()) {
    live->Post(Admitted());
  } else {
    live->Post(Refused{status});
  }
  return RequestHandle([live] { live->Post(Interrupt{absl::CancelledError("the request was cancelled")}); },
                       [this, live] { return worker_->QueuePlace(live.get()); });
}

v1::Load Agent::CurrentLoad() const {
  const LocalWorker::Load work = worker_->load();
  v1::Load load;
  size_t n_live;
  {
    MutexLock lock(mu_);
    n_live = live_.size();
  }
  load.set_running_requests(static_cast<int32_t>(n_live - std::min(n_live, static_cast<size_t>(work.n_queued))));
  load.set_queued_requests(work.n_queued);
  load.set_running_tokens(work.n_running_tokens);
  load.set_queued_tokens(static_cast<int32_t>(work.n_queued_tokens));
  load.set_kv_used_fraction(static_cast<float>(work.n_running_tokens) / static_cast<float>(model_->kv_tokens()));
  load.set_predicted_wait_ms(static_cast<float>(absl::ToDoubleMilliseconds(PredictedWait(work))));
  session_->With([&load](const RoutingSession& session) {
    load.set_decode_tokens_per_s(static_cast<float>(session.local_tokens_per_s()));
    load.set_prefill_tokens_per_s(static_cast<float>(session.local_prefill_tokens_per_s()));
  });
  return load;
}

absl::Duration Agent::PredictedWait(const LocalWorker::Load& load) const {
  // Of those that take turns half is done, as a rule, and the rest delays whoever comes now by as much.
  const double ahead = load.n_queued + 0.5 * load.n_running;
  return absl::Seconds(ahead * session_->With([](const RoutingSession& session) { return session.local_run_s(); }));
}

absl::Status Agent::Admit(const std::shared_ptr<LiveAnswer>& live) {
  if (absl::Status status = model_->served().CheckIntact(); !status.ok()) return status;
  MutexLock lock(mu_);
  if (draining_) return ShuttingDown();
  const v1::GenerateRequest& request = live->asked().request;
  const auto is_served = [&](const std::shared_ptr<LiveAnswer>& other) {
    // What comes back has been passed on more often since; an id that its caller uses twice is no circle.
    const v1::GenerateRequest& first = other->asked().request;
    return first.request_id() == request.request_id() && first.hops() < request.hops();
  };
  if (request.hops() > 0 && std::any_of(live_.begin(), live_.end(), is_served)) {
    return absl::AlreadyExistsError(
        absl::StrFormat("request_id: '%s' was passed on to tier '%s', which is serving it already; see that no "
                        "--upstream leads back here",
                        request.request_id(), options_.tier));
  }
  const size_t most = static_cast<size_t>(options_.max_queued) + static_cast<size_t>(options_.max_handed_over);
  if (live_.size() >= most) {
    return WithRetryDelay(
        absl::ResourceExhaustedError(absl::StrFormat(
            "%d requests are in progress already, the most that this tier takes; try again later, or raise "
            "--max-handed-over",
            live_.size())),
        absl::Seconds(1));
  }
  if (!worker_->Reserve()) {
    return WithRetryDelay(absl::ResourceExhaustedError(absl::StrFormat(
                              "%d requests wait already; try again later, or raise --max-queued", options_.max_queued)),
                          std::clamp(PredictedWait(worker_->load()), absl::Milliseconds(50), absl::Seconds(30)));
  }
  live->HoldsPlace();
  live_.insert(live);
  return absl::OkStatus();
}

// ---- Out ----------------------------------------------------------------------------------------------------------

// Of what was kept because this tier was confident: other reasons to keep are not the threshold's.
double Agent::Audit(const Answer& answer, const EndAnswer& end) {
  const DecisionRecord* record = answer.record();
  if (auditor_ == nullptr || !end.status.ok() || record == nullptr || record->reason != ReasonCode::kConfident ||
      !end.confidence || DecisionFromProto(end.done.provenance().decision()) != Decision::kKeep ||
      answer.asked().mode != PolicyMode::kAuto || !MayGoUp(PolicyMode::kAuto, answer.asked().request.hops())) {
    return 0.0;
  }
  const std::string text = answer.ledger().AllText();
  return auditor_->OnKept(
      {.request = &answer.asked().request, .text = text, .confidence = *end.confidence, .seq = record->seq});
}

void Agent::Tighten(double threshold) {
  RoutingPolicy policy = options_.policy;
  policy.confidence_threshold = threshold;
  session_->With([&](RoutingSession& session) { session.Configure(policy, FingerprintOf(*model_)); });
  MutexLock lock(mu_);
  summary_.set_threshold(threshold);
}

void Agent::Measure(const Answer& answer, const EndAnswer& end, double audit_propensity) const {
  const v1::Provenance& provenance = end.done.provenance();
  const std::optional<Decision> kind = DecisionFromProto(provenance.decision());
  const std::string decision(kind ? NameOf(*kind) : "");
  const std::string outcome =
      end.status.ok() ? "ok" : absl::AsciiStrToLower(absl::StatusCodeToString(end.status.code()));
  for (const v1::Provenance::Span& span : provenance.spans()) metrics_->OnTokens(span.tier(), span.n_tokens());
  metrics_->OnRequest({.outcome = outcome,
                       .decision = decision,
                       .disposition = DispositionLabel(end.done.disposition()),
                       .degraded = provenance.degraded(),
                       .total_s = provenance.total_ms() * 1e-3,
                       .first_token_s = provenance.first_token_ms() * 1e-3,
                       .queue_s = provenance.queue_ms() * 1e-3,
                       .confidence = end.confidence.value_or(-1.0),
                       .bytes_up = provenance.bytes_up(),
                       .bytes_down = provenance.bytes_down()});
  LogEvent(end.status.ok() || absl::IsCancelled(end.status) ? LogLevel::kInfo : LogLevel::kWarn, "request",
           {{"id", answer.asked().request.request_id()},
            {"outcome", outcome},
            {"decision", decision},
            {"reason_code", answer.record() == nullptr ? "" : NameOf(answer.record()->reason)},
            {"reason", end.status.ok() ? provenance.reason() : std::string(end.status.message())},
            {"prompt_tokens", end.done.usage().prompt_tokens()},
            {"answer_tokens", end.done.usage().completion_tokens()},
            {"total_ms", provenance.total_ms()},
            {"audit_propensity", audit_propensity}});
}

// Before the client hears the end, so that it never sees itself counted as running.
void Agent::CloseBooks(LiveAnswer& live, const Answer& answer, const EndAnswer& end) {
  const v1::Provenance& provenance = end.done.provenance();
  const Decision decision = DecisionFromProto(provenance.decision()).value_or(Decision::kKeep);
  MutexLock lock(mu_);
  ++n_ending_;
  if (live_.erase(live.shared()) == 0) return;  // it was refused
  summary_.set_requests(summary_.requests() + 1);
  if (!end.status.ok()) return;
  CountDecision(decision, summary_);
  if (provenance.degraded()) summary_.set_degraded(summary_.degraded() + 1);
  if (answer.record() == nullptr) return;
  const Measured measured{.decision = decision, .n_answer_tokens = end.done.usage().completion_tokens()};
  session_->With([&](RoutingSession& session) { session.Outcome(*answer.record(), measured); });
}

// ---- What the agent says of itself --------------------------------------------------------------------------------

v1::Link Agent::CurrentLink() const {
  if (upstream_ == nullptr) return {};
  const double now_s = SteadyNow().seconds();
  const LinkEstimate estimate =
      session_->With([&](const RoutingSession& session) { return session.Facts(0, now_s).link; });
  v1::Link link = LinkToProto(estimate);
  link.set_upstream(upstream_->address());
  return link;
}

v1::GetStatusResponse Agent::Status() const {
  v1::GetStatusResponse status;
  status.set_tier(options_.tier);
  *status.mutable_model() = model_->info();
  *status.mutable_load() = CurrentLoad();
  *status.mutable_link() = CurrentLink();
  if (upstream_ != nullptr) {
    if (auto last = upstream_->LastStatus()) *status.mutable_upstream() = *std::move(last);
  }
  MutexLock lock(mu_);
  *status.mutable_routing() = summary_;
  return status;
}

// ---- Stopping -----------------------------------------------------------------------------------------------------

void Agent::BeginDrain() {
  MutexLock lock(mu_);
  draining_ = true;
}

bool Agent::draining() const {
  MutexLock lock(mu_);
  return draining_;
}

bool Agent::WaitIdle(absl::Duration timeout) {
  const SteadyTime deadline = SteadyNow() + timeout;
  MutexLock lock(mu_);
  while (!live_.empty() || n_ending_ > 0) {
    if (!changed_.WaitUntil(lock, deadline)) return live_.empty() && n_ending_ == 0;
  }
  return true;
}

void Agent::Stop(absl::Duration grace) {
  BeginDrain();
  WaitIdle(grace);
  std::vector<std::shared_ptr<LiveAnswer>> left;
  {
    MutexLock lock(mu_);
    left.assign(live_.begin(), live_.end());
  }
  for (const auto& live : left) live->Post(Interrupt{ShuttingDown()});
  WaitIdle(absl::InfiniteDuration());
  worker_->Shutdown();
  if (upstream_ != nullptr) upstream_->Stop();
}

}  // namespace updraft
