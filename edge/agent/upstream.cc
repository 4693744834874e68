#include "edge/agent/upstream.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/rpc/channel.h"
#include "common/rpc/convert.h"
#include "common/rpc/status.h"
#include "common/serving/request_check.h"
#include "common/status/retry_delay.h"
#include "common/text/utf8.h"

namespace updraft {

namespace {

double MonotonicSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

constexpr int kMaxIntervalsUnprobed = 4;
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

// One Generate call. Upstream::calls_ holds it until OnDone, so that neither the agent nor gRPC can free it under the
// other.
class Upstream::Call final : public UpstreamCall, public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  Call(Upstream* upstream, const v1::GenerateRequest& request, std::shared_ptr<UpstreamListener> listener)
      : upstream_(upstream),
        request_(request),
        listener_(std::move(listener)),
        // The watcher may see the call before Start: its patience counts from now.
        last_byte_s_(MonotonicSeconds()) {
    traffic_.bytes_up = request_.ByteSizeLong();
  }

  void Start(SteadyTime deadline) {
    SetDeadline(context_, deadline);
    was_connected_ = upstream_->Connected();
    started_s_ = MonotonicSeconds();
    last_byte_s_ = started_s_;
    upstream_->stub_->async()->Generate(&context_, &request_, this);
    StartRead(&response_);
    StartCall();
  }

  void Cancel() override {
    cancelled_ = true;
    context_.TryCancel();
  }

  // For the watcher. Returns when the call will have stalled.
  double stall_time_s(double timeout_s) const { return last_byte_s_ + timeout_s; }
  void Stall() {
    stalled_ = true;
    context_.TryCancel();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;  // OnDone follows
    const double now_s = MonotonicSeconds();
    last_byte_s_ = now_s;
    const uint64_t bytes = response_.ByteSizeLong();
    traffic_.bytes_down += bytes;
    if (!first_response_) {
      first_response_ = true;
      // A call that had to connect first says nothing of the round trip.
      if (was_connected_) {
        LinkSample sample;
        sample.time_s = now_s;
        sample.first_byte_s = now_s - started_s_;
        sample.server_s = std::min(response_.server_us() * 1e-6, sample.first_byte_s);
        sample.bytes_up = traffic_.bytes_up;
        upstream_->OnLinkSample(sample);
      }
    }
    if (response_.has_load()) upstream_->OnLoad(response_.load());
    complete_ = complete_ || response_.has_done();
    listener_->OnResponse(response_);
    StartRead(&response_);
  }

  void OnDone(const grpc::Status& grpc_status) override {
    absl::Status status = FromGrpcStatus(Presentable(grpc_status), context_);
    // The answer's last message came: how the call ended after it changes nothing.
    if (complete_) status = absl::OkStatus();
    if (stalled_ && !status.ok()) {
      status = absl::UnavailableError(
          absl::StrFormat("no answer for %d ms", absl::ToInt64Milliseconds(upstream_->options_.stall_timeout)));
    }
    if (absl::IsCancelled(status) && !cancelled_ && !stalled_) {
      status = absl::UnavailableError("the upstream ended the call");  // it is shutting down
    }
    if (absl::IsUnavailable(status)) upstream_->OnLinkFailure();
    // Without a delay it is no full queue but this request, larger than the tier takes: no reason to spare it others.
    if (const auto delay = RetryDelayOf(status); absl::IsResourceExhausted(status) && delay) {
      upstream_->OnRefused(*delay);
    }
    listener_->OnFinished(status, traffic_);
    listener_.reset();
    upstream_->OnCallEnded(this);  // both may be gone after this
  }

 private:
  Upstream* const upstream_;
  const v1::GenerateRequest request_;
  std::shared_ptr<UpstreamListener> listener_;
  grpc::ClientContext context_;
  v1::GenerateResponse response_;
  UpstreamTraffic traffic_;
  double started_s_ = 0.0;
  std::atomic<double> last_byte_s_;
  std::atomic<bool> stalled_{false};
  std::atomic<bool> cancelled_{false};  // by us
  bool was_connected_ = false;
  bool first_response_ = false;
  bool complete_ = false;
};

// One GetStatus call. Upstream::probe_ holds it until its end.
class Upstream::Probe {
 public:
  void Start(Upstream* upstream) {
    SetTimeout(context_, upstream->options_.stall_timeout);
    const bool was_connected = upstream->Connected();
    const double started_s = MonotonicSeconds();
    upstream->stub_->async()->GetStatus(
        &context_, &request_, &response_, [this, upstream, was_connected, started_s](const grpc::Status& status) {
          upstream->OnProbeEnded(FromGrpcStatus(status), MonotonicSeconds() - started_s, was_connected, response_);
        });
  }
  void Cancel() { context_.TryCancel(); }

 private:
  grpc::ClientContext context_;
  v1::GetStatusRequest request_;
  v1::GetStatusResponse response_;
};

// ---- Upstream -----------------------------------------------------------------------------------------------------

absl::StatusOr<std::unique_ptr<Upstream>> Upstream::Create(const UpstreamOptions& options) {
  auto channel = MakeChannel(options.address, "upstream");
  if (!channel.ok()) return channel.status();
  std::unique_ptr<Upstream> upstream(new Upstream(options));
  upstream->channel_ = *std::move(channel);
  upstream->stub_ = v1::Inference::NewStub(upstream->channel_);
  if (options.probe_interval <= absl::ZeroDuration()) upstream->next_probe_ = absl::InfiniteFuture();
  upstream->watcher_ = std::thread([self = upstream.get()] { self->Watch(); });
  return upstream;
}

Upstream::~Upstream() { Stop(); }

void Upstream::Stop() {
  std::vector<std::shared_ptr<Call>> calls;
  {
    std::lock_guard lock(mu_);
    stopping_ = true;
    for (const auto& [pointer, call] : calls_) calls.push_back(call);
    changed_.notify_all();
  }
  if (watcher_.joinable()) watcher_.join();  // no probe starts after this
  std::shared_ptr<Probe> probe;
  {
    std::lock_guard lock(mu_);
    probe = probe_;
  }
  // Without the lock: gRPC may call back before TryCancel returns.
  for (const auto& call : calls) call->Cancel();
  if (probe != nullptr) probe->Cancel();
  std::unique_lock lock(mu_);
  changed_.wait(lock, [this] { return calls_.empty() && probe_ == nullptr; });
  auto ended_calls = std::move(ended_calls_);
  auto ended_probes = std::move(ended_probes_);
  lock.unlock();
}

bool Upstream::Connected() const { return channel_->GetState(/*try_to_connect=*/false) == GRPC_CHANNEL_READY; }

std::shared_ptr<UpstreamCall> Upstream::Generate(const v1::GenerateRequest& request, SteadyTime deadline,
                                                 std::shared_ptr<UpstreamListener> listener) {
  auto call = std::make_shared<Call>(this, request, std::move(listener));
  bool stopping;
  {
    std::lock_guard lock(mu_);
    calls_[call.get()] = call;
    stopping = stopping_;
  }
  if (stopping) call->Cancel();
  call->Start(deadline);
  changed_.notify_all();
  return call;
}

UpstreamSnapshot Upstream::Snapshot() const {
  const double now_s = MonotonicSeconds();
  std::lock_guard lock(mu_);
  UpstreamSnapshot snapshot;
  snapshot.link = estimator_.Estimate(now_s);
  snapshot.load = load_;
  snapshot.since_failure_s = now_s - last_failure_s_;
  snapshot.tokenizer_fingerprint = fingerprint_;
  snapshot.context_length = context_length_;
  snapshot.last_status = last_status_;
  if (const absl::Duration busy = busy_until_ - absl::Now(); busy > absl::ZeroDuration()) {
    snapshot.load.known = true;
    snapshot.load.predicted_wait_s = std::max(snapshot.load.predicted_wait_s, absl::ToDoubleSeconds(busy));
  }
  return snapshot;
}

void Upstream::ForgetFingerprint() {
  std::lock_guard lock(mu_);
  fingerprint_.clear();
}

void Upstream::OnCallEnded(Call* call) {
  std::lock_guard lock(mu_);
  auto it = calls_.find(call);
  ended_calls_.push_back(std::move(it->second));
  calls_.erase(it);
  changed_.notify_all();
}

void Upstream::OnLinkSample(const LinkSample& sample) {
  std::lock_guard lock(mu_);
  estimator_.OnSuccess(sample);
  if (next_probe_ == absl::InfiniteFuture()) return;
  next_probe_ = std::min(absl::Now() + options_.probe_interval, latest_probe_);
}

void Upstream::OnLinkFailure() {
  std::lock_guard lock(mu_);
  last_failure_s_ = MonotonicSeconds();
  estimator_.OnFailure(last_failure_s_);
  last_status_.reset();
}

void Upstream::OnLoad(const v1::Load& load) {
  std::lock_guard lock(mu_);
  load_ = LoadFromProto(load);
}

void Upstream::OnRefused(absl::Duration retry_delay) {
  std::lock_guard lock(mu_);
  busy_until_ = absl::Now() + retry_delay;
}

void Upstream::OnProbeEnded(const absl::Status& status, double seconds, bool was_connected,
                            const v1::GetStatusResponse& response) {
  const double now_s = MonotonicSeconds();
  std::lock_guard lock(mu_);
  ended_probes_.push_back(std::move(probe_));
  next_probe_ = absl::Now() + options_.probe_interval;
  latest_probe_ = absl::Now() + kMaxIntervalsUnprobed * options_.probe_interval;
  if (status.ok()) {
    fingerprint_ = response.model().tokenizer_fingerprint();
    context_length_ = std::max(0, response.model().context_length());
    last_status_ = response;
    last_status_->clear_upstream();  // one tier up is enough to show
    last_status_->set_tier(text::BoundedUtf8(response.tier(), kMaxIdBytes));
    if (response.has_load()) load_ = LoadFromProto(response.load());
    if (was_connected) {
      LinkSample sample;
      sample.time_s = now_s;
      sample.first_byte_s = seconds;
      estimator_.OnSuccess(sample);
    } else {
      next_probe_ = absl::Now();  // the time went into connecting: measure again
    }
  } else if (!stopping_) {
    last_failure_s_ = now_s;
    estimator_.OnFailure(now_s);
    last_status_.reset();
  }
  changed_.notify_all();
}

absl::Time Upstream::NextEvent() const {
  absl::Time next = probe_ != nullptr ? absl::InfiniteFuture() : next_probe_;
  const double timeout_s = absl::ToDoubleSeconds(options_.stall_timeout);
  const double now_s = MonotonicSeconds();
  for (const auto& [call, owner] : calls_) {
    next = std::min(next, absl::Now() + absl::Seconds(call->stall_time_s(timeout_s) - now_s));
  }
  return next;
}

void Upstream::Watch() {
  const double timeout_s = absl::ToDoubleSeconds(options_.stall_timeout);
  std::unique_lock lock(mu_);
  while (!stopping_) {
    if (!ended_calls_.empty() || !ended_probes_.empty()) {
      auto ended_calls = std::exchange(ended_calls_, {});
      auto ended_probes = std::exchange(ended_probes_, {});
      lock.unlock();
      ended_calls.clear();
      ended_probes.clear();
      lock.lock();
      continue;
    }
    const absl::Time now = absl::Now();
    if (probe_ == nullptr && next_probe_ <= now) {
      const auto probe = probe_ = std::make_shared<Probe>();
      lock.unlock();  // gRPC may call back before it returns
      probe->Start(this);
      lock.lock();
      continue;
    }
    std::vector<std::shared_ptr<Call>> stalled;
    const double now_s = MonotonicSeconds();
    for (const auto& [pointer, call] : calls_) {
      if (call->stall_time_s(timeout_s) <= now_s) stalled.push_back(call);
    }
    if (!stalled.empty()) {
      lock.unlock();
      for (const auto& call : stalled) call->Stall();
      stalled.clear();
      lock.lock();
      if (stopping_) break;
    }
    // A call that was just given up stays listed until gRPC has let go of it; do not spin on it.
    const absl::Duration sleep = std::clamp(NextEvent() - now, absl::Milliseconds(5), absl::Minutes(1));
    changed_.wait_for(lock, absl::ToChronoMilliseconds(sleep));
  }
}

}  // namespace updraft
