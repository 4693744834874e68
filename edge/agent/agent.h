// The life of a request on the edge: validate, render, decide, generate locally with evidence, decide again, keep or
// hand over, and go on locally when upstream fails. Transports (grpc_service.h, http_front.h) submit requests and take
// answers; docs/LIFE_OF_A_REQUEST.md tells the story.
//
// Threads: one worker owns the model's generation. Calls upstream run on gRPC's threads, one per call at a time. A
// request belongs to exactly one of queue, worker and upstream call at any moment, and passes between them under the
// agent's mutex.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_set>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/clock/steady.h"
#include "common/routing/policy.h"
#include "common/serving/backend.h"
#include "common/telemetry/metrics.h"
#include "edge/agent/local_model.h"
#include "edge/agent/upstream.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

struct AgentOptions {
  std::string tier = "edge";
  RoutingPolicy policy;          // mode and threshold included
  int max_queued = 64;           // requests that wait for the model; more are refused
  int max_handed_over = 256;     // requests in progress beside those; more are refused too
  int max_tokens_default = 256;  // answer tokens when a request does not say
};

class Job;

class Agent final : public Backend {
 public:
  // upstream may be null. metrics must outlive the agent.
  Agent(AgentOptions options, std::unique_ptr<LocalModel> model, std::unique_ptr<Upstream> upstream, Metrics* metrics);
  ~Agent() override;  // Stop

  // A second request with the id of one in progress is refused with AlreadyExists when another tier passed it on.
  RequestHandle Submit(v1::GenerateRequest request, SteadyTime deadline, std::shared_ptr<AnswerSink> sink) override;

  v1::Load CurrentLoad() const override;
  v1::GetStatusResponse Status() const override;
  const ServedModel& served() const override { return model_->served(); }
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
  friend class UpstreamLeg;

  // agent.cc: the way in and out.
  absl::Status Prepare(Job& job) const;
  bool MayGoUp(const Job& job) const;       // now or later: nothing forbids it for good
  int ContextAbove(const Job& job) const;   // tokens, prompt and answer; 0: none that the request may use, or not known
  size_t MostTokens(const Job& job) const;  // prompt and answer, at the roomiest tier that the request may use
  absl::Status CheckRoom(Job& job) const;
  absl::Status Admit(const std::shared_ptr<Job>& job);
  void Begin(const std::shared_ptr<Job>& job);
  RoutingDecision DecideNow(const Job& job, Stage stage) const;
  void Enqueue(const std::shared_ptr<Job>& job, bool in_front);
  void Cancel(const std::shared_ptr<Job>& job);    // any thread, also after the end
  void CancelCall(Job& job);                       // upstream, if there is one
  absl::Status Interrupted(const Job& job) const;  // cancelled, or the deadline is over
  void Emit(Job& job, const v1::Chunk& chunk, int n_tokens);
  void EmitDraft(Job& job);
  void Finish(const std::shared_ptr<Job>& job, const absl::Status& status);
  void Account(const Job& job, const absl::Status& status);  // mu_ held
  absl::Duration PredictedWait() const;                      // mu_ held

  // agent_local.cc: on the worker.
  void WorkerLoop();
  void RunLocally(const std::shared_ptr<Job>& job);
  absl::StatusOr<bool> Generate(Job& job, LocalRun& run);
  bool DraftIsHopeless(Job& job) const;
  double ConfidenceOf(const Job& job) const;
  void ExplainKeeping(Job& job) const;
  void DecideAfterDraft(const std::shared_ptr<Job>& job);

  // agent_upstream.cc: handing over and coming back.
  void StartUpstream(const std::shared_ptr<Job>& job);
  v1::GenerateRequest UpstreamRequest(Job& job) const;
  void OnUpstreamResponse(const std::shared_ptr<Job>& job, const v1::GenerateResponse& response);
  void TakeUpstreamChunk(Job& job, v1::Chunk chunk);
  void OnUpstreamFinished(const std::shared_ptr<Job>& job, absl::Status status, const UpstreamTraffic& traffic);
  void FallBack(const std::shared_ptr<Job>& job, const absl::Status& why);

  const AgentOptions options_;
  const std::unique_ptr<LocalModel> model_;
  const std::unique_ptr<Upstream> upstream_;
  Metrics* const metrics_;

  mutable std::mutex mu_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Job>> queue_;         // waiting for the worker
  std::unordered_set<std::shared_ptr<Job>> jobs_;  // all that are not finished
  std::shared_ptr<Job> running_;                   // on the worker
  int n_ending_ = 0;                               // sinks that are being told the end
  bool draining_ = false;
  bool stopping_ = false;
  Decision previous_ = Decision::kKeep;
  v1::RoutingSummary summary_;
  // Smoothed over finished local runs; 0: none yet.
  double local_tokens_per_s_ = 0.0;
  double local_run_s_ = 0.0;
  double answer_tokens_ = 0.0;
  std::atomic<int> running_tokens_{0};  // of the sequence on the worker
  std::atomic<bool> shut_down_{false};  // what is cancelled from here on is so because of Stop
  std::thread worker_;
};

}  // namespace updraft
