#include "edge/agent/auditor.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/cockpit/answer.h"
#include "common/rpc/convert.h"
#include "common/serving/request_check.h"
#include "common/telemetry/log.h"

namespace updraft {
namespace {

constexpr std::string_view kIdEnding = ".audit";
constexpr double kCalmAfterFailure_s = 10.0;
constexpr size_t kMaxAnswerBytes = 1 << 20;  // of an upstream that does not stop

std::string InOneSpacing(std::string_view text) {
  std::string out(text);
  absl::RemoveExtraAsciiWhitespace(&out);
  return out;
}

// A request of its own: the same id with the same content would be told the answer of before.
v1::GenerateRequest RequestOf(const v1::GenerateRequest& asked) {
  v1::GenerateRequest request = asked;
  request.set_request_id(
      absl::StrCat(asked.request_id().substr(0, kMaxIdBytes - kIdEnding.size()), std::string(kIdEnding)));
  request.set_hops(asked.hops() + 1);
  request.set_tier(v1::TIER_CHOICE_UNSPECIFIED);
  request.clear_include_evidence();
  request.clear_top_logprobs();
  request.set_priority(-kMaxPriority);
  return request;
}

}  // namespace

double AuditLoss(std::string_view ours, std::string_view theirs, const v1::Done& done, bool acts) {
  if (done.disposition() == v1::DISPOSITION_CLARIFY) return 0.0;  // it would not have done better
  const bool same = acts ? cockpit::ExactMatch(ours, theirs) : InOneSpacing(ours) == InOneSpacing(theirs);
  if (same) return 0.0;
  if (!done.provenance().has_p_right() || std::isnan(done.provenance().p_right())) return 1.0;
  return std::clamp<double>(done.provenance().p_right(), 0.0, 1.0);
}

class Auditor::Listener final : public UpstreamListener {
 public:
  Listener(Auditor* auditor, const KeptAnswer& kept, double propensity, int64_t epoch)
      : auditor_(auditor), epoch_(epoch), id_(kept.request->request_id()), ours_(kept.text) {
    audit_.seq = kept.seq;
    audit_.confidence = kept.confidence;
    audit_.propensity = propensity;
  }

  void OnResponse(const v1::GenerateResponse& response) override {
    if (response.has_done()) done_ = response.done(), has_done_ = true;
    if (response.has_chunk() && theirs_.size() < kMaxAnswerBytes) theirs_ += response.chunk().text();
  }

  void OnFinished(const absl::Status& status, const UpstreamTraffic&) override {
    const bool whole = status.ok() && has_done_;
    if (whole) audit_.loss = AuditLoss(ours_, theirs_, done_, auditor_->options_.acts);
    auditor_->OnResult(audit_, id_, epoch_, !whole);
  }

 private:
  Auditor* const auditor_;
  const int64_t epoch_;
  const std::string id_, ours_;
  Audit audit_;
  std::string theirs_;
  v1::Done done_;
  bool has_done_ = false;
};

absl::StatusOr<std::unique_ptr<Auditor>> Auditor::Create(const AuditorOptions& options, Upstream* upstream,
                                                         const SharedSession* session, Metrics* metrics,
                                                         std::function<void(double threshold)> tighten) {
  absl::StatusOr<DriftMonitor> monitor = DriftMonitor::Create(options.drift);
  if (!monitor.ok()) return monitor.status();
  return std::unique_ptr<Auditor>(new Auditor(options, *monitor, upstream, session, metrics, std::move(tighten)));
}

Auditor::Auditor(const AuditorOptions& options, DriftMonitor monitor, Upstream* upstream, const SharedSession* session,
                 Metrics* metrics, std::function<void(double)> tighten)
    : options_(options),
      upstream_(upstream),
      session_(session),
      metrics_(metrics),
      tighten_(std::move(tighten)),
      monitor_(monitor) {
  metrics_->SetDrift({.threshold = options.drift.threshold});
}

// Nothing that is read here depends on the answer.
double Auditor::ShareNow(const v1::GenerateRequest& request) const {
  const bool sampled = request.sampling().temperature() > 0;
  const bool foreign_ids = request.input_case() == v1::GenerateRequest::kTokens &&
                           upstream_->Identity().tokenizer_fingerprint != request.tokens().tokenizer_fingerprint();
  if (sampled || foreign_ids || request.accepted_prefix_size() > 0 || request.sampling().has_logit_bias()) return 0.0;
  const double now_s = SteadyNow().seconds();
  const UpstreamFacts facts = session_->With([&](const RoutingSession& session) { return session.Facts(0, now_s); });
  const bool calm = facts.link.reachable && facts.since_failure_s >= kCalmAfterFailure_s && facts.busy_s <= 0;
  const bool queued = facts.load.known && facts.load.queued_requests > 0;
  return calm && !queued ? options_.drift.audit_share : 0.0;
}

double Auditor::OnKept(const KeptAnswer& kept) {
  const double share = ShareNow(*kept.request);
  AuditPlan plan;
  int64_t epoch = 0;
  {
    MutexLock lock(mu_);
    if (n_in_flight_ >= options_.max_in_flight) return 0.0;
    plan = monitor_.Plan(kept.seq, share);
    if (!plan.audit) return plan.propensity;
    ++n_in_flight_;
    epoch = epoch_;
  }
  upstream_->Generate(RequestOf(*kept.request), SteadyNow() + options_.timeout,
                      std::make_shared<Listener>(this, kept, plan.propensity, epoch));
  return plan.propensity;
}

void Auditor::OnResult(const Audit& result, const std::string& request_id, int64_t epoch, bool lost) {
  Audit audit = result;
  audit.at_s = SteadyNow().seconds();
  DriftGauges gauges;
  bool alarmed = false;
  double e_value = 0;
  {
    MutexLock lock(mu_);
    --n_in_flight_;
    if (!lost) lost = epoch != epoch_ || !monitor_.OnAudit(audit).ok();
    const KeptRisk risk = monitor_.Risk();
    e_value = monitor_.e_value();
    alarmed = monitor_.alarmed();
    if (alarmed) {
      monitor_.Restart(monitor_.ProposedThreshold());
      ++epoch_;
    }
    gauges = {.threshold = monitor_.options().threshold, .risk = risk.risk};
    if (alarmed) {
      LogEvent(
          LogLevel::kWarn, "drift",
          {{"level", options_.drift.level},
           {"risk_among_kept", risk.risk},
           {"low", risk.low},
           {"high", risk.high},
           {"audits", risk.n_audits},
           {"threshold", gauges.threshold},
           {"hint", "kept answers are worse than calibrated for; calibrate anew on requests like the present ones"}});
    }
  }
  metrics_->OnAudit(lost ? "lost" : (audit.loss > 0 ? "other" : "same"));
  metrics_->SetDrift(gauges);
  LogEvent(LogLevel::kInfo, "audit",
           {{"id", request_id},
            {"seq", audit.seq},
            {"confidence", audit.confidence},
            {"propensity", audit.propensity},
            {"loss", lost ? std::nan("") : audit.loss},
            {"e_value", e_value}});
  if (!alarmed) return;
  metrics_->OnDrift();
  tighten_(gauges.threshold);
}

KeptRisk Auditor::Risk() const {
  MutexLock lock(mu_);
  return monitor_.Risk();
}

double Auditor::threshold() const {
  MutexLock lock(mu_);
  return monitor_.options().threshold;
}

}  // namespace updraft
