#include "common/routing/session.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "common/routing/choose.h"

namespace updraft {
namespace {

constexpr double kMaxIntervalsUnlooked = 4.0;
constexpr double kRunGain = 0.2;  // of a new measurement in the smoothed ones
constexpr double kAnswerGain = 0.1;

// A sample that is no number would never leave the average again.
void Smooth(double& value, double gain, double sample) {
  if (std::isfinite(sample)) value += (value == 0.0 ? 1.0 : gain) * (sample - value);
}

double OrUnknown(double smoothed) { return smoothed == 0.0 ? kUnknown : smoothed; }

}  // namespace

Failure FailureOf(const absl::Status& status, bool has_retry_delay) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
      return has_retry_delay ? Failure::kOverloaded : Failure::kLinkDead;
    case absl::StatusCode::kResourceExhausted:
      return has_retry_delay ? Failure::kOverloaded : Failure::kRefusedThis;
    case absl::StatusCode::kDeadlineExceeded:
      return Failure::kSlow;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kUnauthenticated:
      return Failure::kRefusedThis;
    default:
      return Failure::kBroken;
  }
}

double RetryLookSeconds(int consecutive_failures) {
  return std::min(std::ldexp(0.125, std::clamp(consecutive_failures - 1, 0, 10)), 1.0);
}

RoutingSession::RoutingSession(const SessionOptions& options)
    : policy_(options.policy),
      policy_fp_(Fingerprint(options.policy)),
      model_fp_(options.model_fp),
      look_interval_s_(options.look_interval_s),
      n_upstreams_(std::clamp(options.n_upstreams, 0, kMaxUpstreams)) {
  assert(options.n_upstreams == n_upstreams_);
  if (look_interval_s_ > 0.0) return;
  for (UpstreamMemory& memory : upstreams_) memory.next_look_s = kNever;
}

// ---- What happens -------------------------------------------------------------------------------------------------

RoutingSession::UpstreamMemory& RoutingSession::At(int up) {
  assert(up >= 0 && up < n_upstreams_);
  return upstreams_[static_cast<size_t>(up)];
}

const RoutingSession::UpstreamMemory& RoutingSession::At(int up) const {
  assert(up >= 0 && up < n_upstreams_);
  return upstreams_[static_cast<size_t>(up)];
}

void RoutingSession::OnSample(int up, const LinkSample& sample) {
  UpstreamMemory& memory = At(up);
  memory.link.OnSuccess(sample);
  if (memory.next_look_s == kNever || !std::isfinite(sample.time_s)) return;
  memory.next_look_s = std::min(sample.time_s + look_interval_s_, memory.latest_look_s);
}

void RoutingSession::OnLoad(int up, const UpstreamLoad& load) { At(up).load = load; }

void RoutingSession::OnFailure(int up, Failure failure, double retry_after_s, double now_s) {
  UpstreamMemory& memory = At(up);
  switch (failure) {
    case Failure::kLinkDead:
      memory.link.OnFailure(now_s);
      memory.last_failure_s = now_s;
      return LookSoon(memory, now_s);
    case Failure::kOverloaded:
      if (!std::isnan(retry_after_s)) memory.busy_until_s = now_s + retry_after_s;
      return;
    case Failure::kRefusedThis:
    case Failure::kSlow:
    case Failure::kBroken:
      return;  // says nothing of the requests that follow
  }
}

void RoutingSession::OnReady(int up, double now_s) {
  UpstreamMemory& memory = At(up);
  memory.last_failure_s = -kNever;
  if (memory.next_look_s != kNever) memory.next_look_s = now_s;
}

void RoutingSession::OnLookStarted(int up, double now_s) {
  At(up).looking = true;
  At(up).look_started_s = now_s;
}

void RoutingSession::LookSoon(UpstreamMemory& memory, double failed_s) const {
  if (memory.next_look_s == kNever) return;
  const double retry_s = RetryLookSeconds(memory.link.Estimate(failed_s).consecutive_failures);
  memory.next_look_s = std::min(memory.next_look_s, failed_s + std::min(retry_s, look_interval_s_));
}

void RoutingSession::OnLookDone(int up, const Look& look, double now_s) {
  UpstreamMemory& memory = At(up);
  memory.looking = false;
  if (look.end == Look::End::kMeasured) memory.link.OnSuccess(look.sample);
  if (look.end == Look::End::kFailed) OnFailure(up, Failure::kLinkDead, kUnknown, now_s);
  const bool succeeded = look.end == Look::End::kMeasured || look.end == Look::End::kConnectedFirst;
  if (succeeded && look.load.known) memory.load = look.load;
  if (memory.next_look_s != kNever) {
    memory.next_look_s = now_s + look_interval_s_;
    memory.latest_look_s = now_s + kMaxIntervalsUnlooked * look_interval_s_;
  }
  if (look.end == Look::End::kConnectedFirst) OnReady(up, now_s);
  if (look.end != Look::End::kFailed) return;
  // Counted from the start of the look that failed: one that waited for the connection is repeated at once.
  LookSoon(memory, memory.look_started_s);
}

void RoutingSession::OnLocalRun(const LocalRunMeasured& run) {
  if (run.n_decoded_tokens > 0 && run.decode_s > 0.0) {
    Smooth(local_tokens_per_s_, kRunGain, run.n_decoded_tokens / run.decode_s);
  }
  if (run.n_prefill_tokens > 0 && run.run_s > run.decode_s) {
    Smooth(local_prefill_tokens_per_s_, kRunGain, run.n_prefill_tokens / (run.run_s - run.decode_s));
  }
  Smooth(local_run_s_, kRunGain, run.run_s);
}

// ---- Decisions ----------------------------------------------------------------------------------------------------

Situation RoutingSession::Complete(const Situation& situation) const {
  Situation complete;
  complete.stage = situation.stage;
  complete.now_s = situation.now_s;
  complete.request = situation.request;
  complete.evidence = situation.evidence;
  complete.local.answer_tokens = OrUnknown(answer_tokens_);
  complete.local.tokens_per_s = OrUnknown(local_tokens_per_s_);
  complete.local.prefill_tokens_per_s = OrUnknown(local_prefill_tokens_per_s_);
  complete.local.previous = previous_;
  complete.n_upstreams = static_cast<uint8_t>(n_upstreams_);
  for (int up = 0; up < n_upstreams_; ++up) {
    complete.upstreams[static_cast<size_t>(up)] = Facts(up, situation.now_s);
  }
  complete.draw = DrawOf(situation.request.key, situation.stage);
  return complete;
}

void RoutingSession::Configure(const RoutingPolicy& policy, uint64_t model_fp) {
  policy_ = policy;
  policy_fp_ = Fingerprint(policy);
  model_fp_ = model_fp;
}

Option RoutingSession::Peek(const Situation& situation) const { return Choose(Complete(situation), policy_).chosen(); }

DecisionRecord RoutingSession::Decide(const Situation& situation) {
  DecisionRecord record = Choose(Complete(situation), policy_);
  record.seq = ++seq_;
  record.model_fp = model_fp_;
  return record;
}

void RoutingSession::Outcome([[maybe_unused]] const DecisionRecord& record, const Measured& measured) {
  assert(record.seq > 0 && record.seq <= seq_);
  previous_ = measured.decision == Decision::kKeep ? Decision::kKeep : Decision::kHandOver;
  Smooth(answer_tokens_, kAnswerGain, measured.n_answer_tokens);
}

// ---- What is believed ---------------------------------------------------------------------------------------------

double RoutingSession::NextLook_s(int up, double now_s) const {
  const UpstreamMemory& memory = At(up);
  return memory.looking ? kNever : std::max(memory.next_look_s, now_s);
}

UpstreamFacts RoutingSession::Facts(int up, double now_s) const {
  const UpstreamMemory& memory = At(up);
  UpstreamFacts facts;
  facts.link = memory.link.Estimate(now_s);
  facts.load = memory.load;
  facts.since_failure_s = now_s - memory.last_failure_s;
  facts.busy_s = std::max(memory.busy_until_s - now_s, 0.0);
  return facts;
}

}  // namespace updraft
