// The daemon on the device: takes requests in, checks and prepares them, keeps the books of those in progress, and says
// what it is doing. How one request is answered is edge/answer's business (docs/LIFE_OF_A_REQUEST.md tells the story).
//
// Threads: every answer has a mailbox, handled by whichever thread posts to it (live_answer.h): transports' threads,
// the worker of the local model (local_worker.h), gRPC's threads for calls upstream. No lock of the agent is held while
// a sink, a call or an answer runs.
#pragma once

#include <memory>
#include <string>
#include <unordered_set>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/clock/steady.h"
#include "common/routing/policy.h"
#include "common/serving/backend.h"
#include "common/sync/mutex.h"
#include "common/telemetry/metrics.h"
#include "edge/agent/auditor.h"
#include "edge/agent/live_answer.h"
#include "edge/agent/local_model.h"
#include "edge/agent/local_worker.h"
#include "edge/agent/shared_session.h"
#include "edge/agent/upstream.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

struct AgentOptions {
  std::string tier = "edge";
  RoutingPolicy policy;                  // mode and threshold included
  int max_queued = 64;                   // requests that wait for the model; more are refused
  int answers_at_once = kAnswersAtOnce;  // that the model writes in turn
  int max_handed_over = 256;             // requests in progress beside those; more are refused too
  double audit_share = 0.0;    // of kept answers, at most: upstream is asked about them, too (auditor.h); 0: none
  double audit_level = 0.05;   // loss among kept answers above which the threshold is tightened
  int max_tokens_default = 0;  // answer tokens when a request does not say; 0: until the end, or what the context holds
};

// InvalidArgument names the option.
absl::Status CheckAudits(const AgentOptions& options);

class Agent final : public Backend {
 public:
  // upstream may be null; otherwise the session knows of it. The agent tells the session its policy. metrics must
  // outlive the agent.
  Agent(AgentOptions options, std::unique_ptr<LocalModel> model, std::shared_ptr<SharedSession> session,
        std::unique_ptr<Upstream> upstream, Metrics* metrics);
  ~Agent() override;  // Stop

  // A request with the id of one in progress that fewer tiers have passed on has come back: AlreadyExists.
  RequestHandle Submit(v1::GenerateRequest request, SteadyTime deadline, std::shared_ptr<AnswerSink> sink) override;

  v1::Load CurrentLoad() const override;
  v1::GetStatusResponse Status() const override;
  const ServedModel& served() const override { return model_->served(); }
  int max_sequence_tokens() const override { return model_->max_sequence_tokens(); }
  v1::Link CurrentLink() const;
  const LocalModel& model() const { return *model_; }
  const AgentOptions& options() const { return options_; }

  // New requests are refused with Unavailable from here on.
  void BeginDrain();
  bool draining() const override;
  // Returns when no request is left, or after `timeout`; whether none is left.
  bool WaitIdle(absl::Duration timeout);
  // Waits until no request is left, at most `grace`; then ends the rest with Unavailable and stops. Callable again.
  void Stop(absl::Duration grace = absl::ZeroDuration());

 private:
  class Host;    // what answers ask of this tier
  class Keeper;  // what hears of their ends

  // On the way in (prepare.cc). Fills `asked` from its request, as far as it is good.
  absl::Status Prepare(Asked& asked) const;
  bool MayGoUp(PolicyMode mode, int hops) const;  // now or later: nothing forbids it for good
  double ExpectedGain(const v1::GenerateRequest& request) const;
  absl::Status CheckRoomAbove(size_t n_tokens, bool may_go_up) const;
  absl::Status Admit(const std::shared_ptr<LiveAnswer>& live) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Duration PredictedWait(const LocalWorker::Load& load) const;

  // On the way out.
  void CloseBooks(LiveAnswer& live, const Answer& answer, const EndAnswer& end) ABSL_LOCKS_EXCLUDED(mu_);
  double Audit(const Answer& answer, const EndAnswer& end);  // the probability with which it is audited
  void Measure(const Answer& answer, const EndAnswer& end, double audit_propensity) const;
  void Tighten(double threshold) ABSL_LOCKS_EXCLUDED(mu_);

  const AgentOptions options_;
  const std::unique_ptr<LocalModel> model_;
  const std::shared_ptr<SharedSession> session_;
  const std::unique_ptr<Upstream> upstream_;
  Metrics* const metrics_;
  const TierFacts tier_;
  const std::unique_ptr<Host> host_;
  const std::unique_ptr<Keeper> keeper_;

  mutable Mutex mu_;
  CondVar changed_;
  std::unordered_set<std::shared_ptr<LiveAnswer>> live_ ABSL_GUARDED_BY(mu_);  // all that have not ended
  int n_ending_ ABSL_GUARDED_BY(mu_) = 0;                                      // sinks that are being told the end
  bool draining_ ABSL_GUARDED_BY(mu_) = false;
  v1::RoutingSummary summary_ ABSL_GUARDED_BY(mu_);

  std::unique_ptr<Auditor> auditor_;           // null: nothing is audited
  const std::unique_ptr<LocalWorker> worker_;  // last made, first gone
  const AnswerLegs legs_;
};

}  // namespace updraft
