#include "edge/agent/grpc_upstream.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/rpc/channel.h"
#include "common/rpc/convert.h"
#include "common/rpc/status.h"
#include "common/serving/request_check.h"
#include "common/status/retry_delay.h"
#include "common/status/this_request.h"
#include "common/telemetry/log.h"
#include "common/text/utf8.h"

namespace updraft {

namespace {

constexpr char kUnknownKey[] = "upstream does not know this tier's key (--upstream-key)";

// A key that upstream does not know is this tier's, and of no request of a client's: nobody is served from above.
absl::Status OfThisTier(const absl::Status& status) {
  if (!absl::IsUnauthenticated(status)) return status;
  return absl::UnavailableError(absl::StrCat(kUnknownKey, ": ", std::string(status.message())));
}

constexpr size_t kMaxMessageBytes = 1024;

// An error's text is whatever bytes the peer put there; it becomes part of provenance, which is one line of UTF-8.
grpc::Status Presentable(const grpc::Status& status) {
  if (status.ok()) return status;
  std::string message = text::BoundedUtf8(status.error_message(), kMaxMessageBytes);
  std::replace_if(
      message.begin(), message.end(), [](char c) { return absl::ascii_iscntrl(static_cast<unsigned char>(c)); }, ' ');
  return grpc::Status(status.error_code(), message);
}

}  // namespace

// ---- Call ---------------------------------------------------------------------------------------------------------

// One Generate call. GrpcUpstream::calls_ holds it until OnDone, so that neither the agent nor gRPC can free it under
// the other.
class GrpcUpstream::Call final : public UpstreamCall, public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  Call(GrpcUpstream* upstream, const v1::GenerateRequest& request, std::shared_ptr<UpstreamListener> listener)
      : upstream_(upstream),
        request_(request),
        listener_(std::move(listener)),
        // The watcher may see the call before Start: its patience counts from now.
        last_byte_s_(SteadyNow().seconds()) {
    traffic_.bytes_up = request_.ByteSizeLong();
  }

  void Start(SteadyTime deadline) {
    SetDeadline(context_, deadline);
    SendKey(context_, upstream_->options_.key);
    was_connected_ = upstream_->Connected();
    started_s_ = SteadyNow().seconds();
    last_byte_s_ = started_s_;
    upstream_->stub_->async()->Generate(&context_, &request_, this);
    StartRead(&response_);
    StartCall();
  }

  void Cancel() override {
    ended_by_us_ = EndedByUs::kCancelled;
    context_.TryCancel();
  }

  // For the watcher. When the call is to be given up unless more comes, in seconds.
  double overdue_s() const { return std::min(stalled_s(), slow_s()); }
  void GiveUp() {
    EndedByUs not_yet = EndedByUs::kNo;
    ended_by_us_.compare_exchange_strong(not_yet, stalled_s() <= slow_s() ? EndedByUs::kStalled : EndedByUs::kSlow);
    context_.TryCancel();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;  // OnDone follows
    const double now_s = SteadyNow().seconds();
    last_byte_s_ = now_s;
    // Responses without an event say that the request is there; the first of them, that it was taken in.
    const bool has_event = response_.event_case() != v1::GenerateResponse::EVENT_NOT_SET;
    if (has_event || answer_ == Answer::kAwaited) progress_s_ = now_s;
    traffic_.bytes_down += response_.ByteSizeLong();
    if (answer_ == Answer::kAwaited) TakeSample(now_s);
    if (response_.has_load()) {
      const UpstreamLoad load = LoadFromProto(response_.load());
      upstream_->session_->With([&](RoutingSession& session) { session.OnLoad(upstream_->options_.index, load); });
    }
    if (answer_ != Answer::kWhole) answer_ = response_.has_done() ? Answer::kWhole : Answer::kBegun;
    listener_->OnResponse(response_);
    StartRead(&response_);
  }

  void OnDone(const grpc::Status& grpc_status) override {
    const absl::Status status = StatusOf(grpc_status);
    if (!status.ok() && !absl::IsCancelled(status)) upstream_->OnCallFailed(status);
    listener_->OnFinished(status, traffic_);
    listener_.reset();
    upstream_->OnCallEnded(this);  // both may be gone after this
  }

 private:
  enum class EndedByUs : uint8_t { kNo, kCancelled, kStalled, kSlow };
  enum class Answer { kAwaited, kBegun, kWhole };

  void TakeSample(double now_s) {
    // A call that had to connect first says nothing of the round trip, but that there is a connection.
    if (!was_connected_) {
      upstream_->session_->With([&](RoutingSession& session) { session.OnReady(upstream_->options_.index, now_s); });
      return upstream_->changed_.NotifyAll();
    }
    LinkSample sample;
    sample.time_s = now_s;
    sample.first_byte_s = now_s - started_s_;
    sample.server_s = std::min(response_.server_us() * 1e-6, sample.first_byte_s);
    sample.bytes_up = traffic_.bytes_up;
    upstream_->session_->With([&](RoutingSession& session) { session.OnSample(upstream_->options_.index, sample); });
    upstream_->changed_.NotifyAll();  // the next look is put off
  }

  absl::Status StatusOf(const grpc::Status& grpc_status) const {
    // The answer's last message came: how the call ended after it changes nothing.
    if (answer_ == Answer::kWhole) return absl::OkStatus();
    const absl::Status status = OfThisTier(FromGrpcStatus(Presentable(grpc_status), context_));
    const EndedByUs by_us = ended_by_us_;
    if (by_us == EndedByUs::kStalled && !status.ok()) {
      return absl::UnavailableError(
          absl::StrFormat("no answer for %d ms", absl::ToInt64Milliseconds(upstream_->options_.stall_timeout)));
    }
    if (by_us == EndedByUs::kSlow && !status.ok()) {
      return absl::DeadlineExceededError(
          absl::StrFormat("it has the request, and gave nothing of the answer for %d ms",
                          absl::ToInt64Milliseconds(upstream_->options_.progress_timeout)));
    }
    if (absl::IsCancelled(status) && by_us == EndedByUs::kNo) {
      return absl::UnavailableError("the upstream ended the call");  // it is shutting down
    }
    return status;
  }

  double stalled_s() const { return last_byte_s_ + absl::ToDoubleSeconds(upstream_->options_.stall_timeout); }
  double slow_s() const { return progress_s_ + absl::ToDoubleSeconds(upstream_->options_.progress_timeout); }

  GrpcUpstream* const upstream_;
  const v1::GenerateRequest request_;
  std::shared_ptr<UpstreamListener> listener_;
  grpc::ClientContext context_;
  v1::GenerateResponse response_;
  UpstreamTraffic traffic_;
  double started_s_ = 0.0;
  std::atomic<double> last_byte_s_;
  std::atomic<double> progress_s_{kNever};  // when something of the answer came, or upstream had taken the request in
  std::atomic<EndedByUs> ended_by_us_{EndedByUs::kNo};
  bool was_connected_ = false;
  Answer answer_ = Answer::kAwaited;
};

// One GetStatus call. GrpcUpstream::probe_ holds it until its end.
class GrpcUpstream::Probe {
 public:
  enum class WaitsForConnection : bool { kNo, kYes };

  void Start(GrpcUpstream* upstream, WaitsForConnection waits) {
    SetTimeout(context_, upstream->options_.stall_timeout);
    SendKey(context_, upstream->options_.key);
    context_.set_wait_for_ready(waits == WaitsForConnection::kYes);
    const bool was_connected = upstream->Connected();
    const SteadyTime started = SteadyNow();
    upstream->stub_->async()->GetStatus(
        &context_, &request_, &response_, [this, upstream, was_connected, started](const grpc::Status& status) {
          upstream->OnProbeEnded(OfThisTier(FromGrpcStatus(status)), SteadyNow() - started, was_connected, response_);
        });
  }
  void Cancel() { context_.TryCancel(); }

 private:
  grpc::ClientContext context_;
  v1::GetStatusRequest request_;
  v1::GetStatusResponse response_;
};

// ---- GrpcUpstream -------------------------------------------------------------------------------------------------

absl::StatusOr<std::unique_ptr<GrpcUpstream>> GrpcUpstream::Create(const GrpcUpstreamOptions& options,
                                                                   std::shared_ptr<SharedSession> session) {
  if (absl::Status status = CheckProxy(options.proxy, "upstream_proxy"); !status.ok()) return status;
  auto channel = MakeChannel(options.address, "upstream", {.proxy = options.proxy});
  if (!channel.ok()) return channel.status();
  std::unique_ptr<GrpcUpstream> upstream(new GrpcUpstream(options, std::move(session)));
  upstream->channel_ = *std::move(channel);
  upstream->stub_ = v1::Inference::NewStub(upstream->channel_);
  upstream->watcher_ = std::thread([self = upstream.get()] { self->Watch(); });
  return upstream;
}

GrpcUpstream::~GrpcUpstream() { Stop(); }

void GrpcUpstream::Stop() {
  std::vector<std::shared_ptr<Call>> calls;
  {
    MutexLock lock(mu_);
    stopping_ = true;
    for (const auto& [pointer, call] : calls_) calls.push_back(call);
    changed_.NotifyAll();
  }
  if (watcher_.joinable()) watcher_.join();  // no probe starts after this
  std::shared_ptr<Probe> probe;
  {
    MutexLock lock(mu_);
    probe = probe_;
  }
  // Without the lock: gRPC may call back before TryCancel returns.
  for (const auto& call : calls) call->Cancel();
  if (probe != nullptr) probe->Cancel();
  std::vector<std::shared_ptr<Call>> ended_calls;  // freed without the lock
  std::vector<std::shared_ptr<Probe>> ended_probes;
  MutexLock lock(mu_);
  while (!calls_.empty() || probe_ != nullptr) changed_.Wait(lock);
  ended_calls.swap(ended_calls_);
  ended_probes.swap(ended_probes_);
}

bool GrpcUpstream::Connected() const { return channel_->GetState(/*try_to_connect=*/false) == GRPC_CHANNEL_READY; }

std::shared_ptr<UpstreamCall> GrpcUpstream::Generate(const v1::GenerateRequest& request, SteadyTime deadline,
                                                     std::shared_ptr<UpstreamListener> listener) {
  auto call = std::make_shared<Call>(this, request, std::move(listener));
  bool stopping;
  {
    MutexLock lock(mu_);
    calls_[call.get()] = call;
    stopping = stopping_;
  }
  if (stopping) call->Cancel();
  call->Start(deadline);
  changed_.NotifyAll();
  return call;
}

UpstreamIdentity GrpcUpstream::Identity() const {
  MutexLock lock(mu_);
  return identity_;
}

std::optional<v1::GetStatusResponse> GrpcUpstream::LastStatus() const {
  MutexLock lock(mu_);
  return last_status_;
}

void GrpcUpstream::ForgetFingerprint() {
  MutexLock lock(mu_);
  identity_.tokenizer_fingerprint.clear();
}

void GrpcUpstream::OnCallEnded(Call* call) {
  MutexLock lock(mu_);
  auto it = calls_.find(call);
  ended_calls_.push_back(std::move(it->second));
  calls_.erase(it);
  changed_.NotifyAll();
}

void GrpcUpstream::OnCallFailed(const absl::Status& status) {
  const std::optional<absl::Duration> delay = RetryDelayOf(status);
  const Failure failure = IsOfThisRequestAlone(status) ? Failure::kRefusedThis : FailureOf(status, delay.has_value());
  const double retry_after_s = delay ? absl::ToDoubleSeconds(*delay) : std::numeric_limits<double>::quiet_NaN();
  session_->With([&](RoutingSession& session) {
    session.OnFailure(options_.index, failure, retry_after_s, SteadyNow().seconds());
  });
  if (failure != Failure::kLinkDead) return;
  MutexLock lock(mu_);
  last_status_.reset();
}

void GrpcUpstream::TakeIdentity(const v1::GetStatusResponse& response) {
  identity_.tokenizer_fingerprint = response.model().tokenizer_fingerprint();
  identity_.context_length = std::max(0, response.model().context_length());
  last_status_ = response;
  last_status_->clear_upstream();  // one tier up is enough to show
  last_status_->set_tier(text::BoundedUtf8(response.tier(), kMaxIdBytes));
}

void GrpcUpstream::OnProbeEnded(const absl::Status& status, absl::Duration took, bool was_connected,
                                const v1::GetStatusResponse& response) {
  const double now_s = SteadyNow().seconds();
  Look look;
  if (status.ok()) {
    look.end = was_connected ? Look::End::kMeasured : Look::End::kConnectedFirst;
    look.sample.time_s = now_s;
    look.sample.first_byte_s = absl::ToDoubleSeconds(took);
    if (response.has_load()) look.load = LoadFromProto(response.load());
  } else {
    look.end = Look::End::kFailed;
  }
  MutexLock lock(mu_);
  if (!status.ok() && stopping_) look.end = Look::End::kAbandoned;
  // Once, however often upstream is looked at until that is mended.
  const bool key_is_unknown = absl::StartsWith(status.message(), kUnknownKey);
  if (key_is_unknown && !key_is_unknown_) {
    LogEvent(LogLevel::kError, "upstream-key",
             {{"upstream", options_.address}, {"problem", std::string(status.message())}});
  }
  key_is_unknown_ = key_is_unknown;
  session_->With([&](RoutingSession& session) { session.OnLookDone(options_.index, look, now_s); });
  ended_probes_.push_back(std::move(probe_));
  probe_ = nullptr;
  if (status.ok()) {
    TakeIdentity(response);
  } else if (!stopping_) {
    last_status_.reset();
  }
  changed_.NotifyAll();
}

SteadyTime GrpcUpstream::NextEvent(SteadyTime now) const {
  SteadyTime next = SteadyTime::InfiniteFuture();
  if (probe_ == nullptr) {
    const double look_s = session_->With(
        [&](const RoutingSession& session) { return session.NextLook_s(options_.index, now.seconds()); });
    if (look_s != kNever) next = now + absl::Seconds(look_s - now.seconds());
  }
  for (const auto& [call, owner] : calls_) {
    next = std::min(next, now + absl::Seconds(call->overdue_s() - now.seconds()));
  }
  return next;
}

std::vector<std::shared_ptr<GrpcUpstream::Call>> GrpcUpstream::OverdueCalls(SteadyTime now) const {
  std::vector<std::shared_ptr<Call>> overdue;
  for (const auto& [pointer, call] : calls_) {
    if (call->overdue_s() <= now.seconds()) overdue.push_back(call);
  }
  return overdue;
}

void GrpcUpstream::Watch() {
  MutexLock lock(mu_);
  while (!stopping_) {
    if (!ended_calls_.empty() || !ended_probes_.empty()) {
      auto ended_calls = std::exchange(ended_calls_, {});
      auto ended_probes = std::exchange(ended_probes_, {});
      lock.Unlock();
      ended_calls.clear();
      ended_probes.clear();
      lock.Lock();
      continue;
    }
    const SteadyTime now = SteadyNow();
    auto waits = Probe::WaitsForConnection::kNo;
    const bool look = probe_ == nullptr && session_->With([&](RoutingSession& session) {
      if (session.NextLook_s(options_.index, now.seconds()) > now.seconds()) return false;
      session.OnLookStarted(options_.index, now.seconds());
      const LinkEstimate link = session.Facts(options_.index, now.seconds()).link;
      if (link.consecutive_failures > 0) waits = Probe::WaitsForConnection::kYes;
      return true;
    });
    if (look) {
      const auto probe = probe_ = std::make_shared<Probe>();
      lock.Unlock();  // gRPC may call back before it returns
      probe->Start(this, waits);
      lock.Lock();
      continue;
    }
    std::vector<std::shared_ptr<Call>> overdue = OverdueCalls(now);
    if (!overdue.empty()) {
      lock.Unlock();
      for (const auto& call : overdue) call->GiveUp();
      overdue.clear();
      lock.Lock();
      if (stopping_) break;
    }
    // A call that was just given up stays listed until gRPC has let go of it; do not spin on it.
    changed_.WaitUntil(lock, now + std::clamp(NextEvent(now) - now, absl::Milliseconds(5), absl::Minutes(1)));
  }
}

}  // namespace updraft
