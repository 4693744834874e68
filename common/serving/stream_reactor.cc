#include "common/serving/stream_reactor.h"

#include <new>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "common/rpc/channel.h"
#include "common/rpc/raw_message.h"
#include "common/rpc/status.h"
#include "common/serving/request_check.h"
#include "common/status/retry_delay.h"
#include "common/telemetry/log.h"

namespace updraft {

namespace {

// What waits for a slow reader is merged into messages of at most so much, so that one who takes little at a time is
// told from one who takes nothing.
constexpr size_t kMaxMergedBytes = 64 << 10;

// A request of so many bytes is parsed and tokenized in a millisecond or so.
constexpr size_t kMaxBytesHere = 4 << 10;

}  // namespace

absl::StatusOr<std::string> TenantOfCall(const ApiKeys* keys, const grpc::CallbackServerContext& context) {
  if (keys == nullptr) return "";
  const auto found = context.client_metadata().find("authorization");
  if (found == context.client_metadata().end()) return keys->TenantOf("");
  return keys->TenantOfAuthorization({found->second.data(), found->second.size()});
}

GenerateReactor* GenerateReactor::Start(StreamHost* host, grpc::CallbackServerContext* context,
                                        const grpc::ByteBuffer& bytes) {
  std::shared_ptr<GenerateReactor> reactor(new GenerateReactor(host, context));
  {
    MutexLock lock(reactor->mu_);
    reactor->self_ = reactor;
  }
  ++host->n_open;
  host->watch.Add(reactor);
  reactor->TakeIn(bytes);
  return reactor.get();
}

absl::Status GenerateReactor::CheckRoom() const {
  if (host_->n_open <= limits_.max_streams) return absl::OkStatus();
  return WithRetryDelay(
      absl::ResourceExhaustedError(absl::StrFormat("%d answers are on their way already, those to readers that take "
                                                   "nothing included; try again later, or raise --max-streams",
                                                   limits_.max_streams)),
      absl::Seconds(1));
}

void GenerateReactor::Refuse(const absl::Status& status) {
  if (host_->metrics != nullptr) {
    host_->metrics->OnRefused("grpc", absl::AsciiStrToLower(absl::StatusCodeToString(status.code())));
  }
  LogEvent(LogLevel::kInfo, "refused", {{"front", "grpc"}, {"status", status}, {"peer", context_->peer()}});
  OnEnd(status, {});
}

void GenerateReactor::TakeIn(const grpc::ByteBuffer& bytes) {
  const auto tenant = TenantOfCall(host_->keys.get(), *context_);
  if (!tenant.ok()) return Refuse(tenant.status());
  if (absl::Status status = CheckRoom(); !status.ok()) return Refuse(status);
  v1::GenerateRequest request;
  if (absl::Status status = ParseMessage(bytes, &request); !status.ok()) return Refuse(status);
  if (host_->keys != nullptr) {
    auto below = TenantBelow(*tenant, request.tenant());
    if (!below.ok()) return Refuse(below.status());
    request.set_tenant(*std::move(below));
  }
  if (request.request_id().empty()) request.set_request_id(NewRequestId());
  if (CheckId("request_id", request.request_id()).ok()) {  // others are not fit for a log; the backend refuses them
    MutexLock lock(mu_);
    request_id_ = request.request_id();
  }
  if (bytes.Length() <= kMaxBytesHere) return Submit(std::move(request));
  {
    MutexLock lock(mu_);
    waits_for_lane_ = true;
    wrote_ = received_;
  }
  auto waiting = std::make_shared<v1::GenerateRequest>(std::move(request));
  host_->lanes.Post(WorkLanes::LaneOf(bytes.Length()),
                    [self = shared_from_this(), waiting] { self->SubmitFromLane(std::move(*waiting)); });
}

void GenerateReactor::SubmitFromLane(v1::GenerateRequest request) {
  absl::Status status;
  {
    MutexLock lock(mu_);
    status = refusal_;  // whoever has left is passed over
    waits_for_lane_ = false;
  }
  if (!status.ok()) return Refuse(status);
  try {
    Submit(std::move(request));
  } catch (const std::bad_alloc&) {
    {
      MutexLock lock(mu_);
      if (answer_ != Answer::kRunning) return;  // it ends once
    }
    Refuse(
        absl::ResourceExhaustedError("request: expected memory to take it in, found that this process gets no more"));
  }
}

void GenerateReactor::Submit(v1::GenerateRequest request) {
  // Not under the lock: the backend may answer before Submit returns.
  RequestHandle handle = host_->backend->Submit(std::move(request), SteadyDeadlineOf(*context_), shared_from_this());
  const std::optional<int> place = handle.QueuePlace();
  bool refused = false;
  {
    MutexLock lock(mu_);
    // After the end there is nothing to cancel, and a handle would keep what it belongs to.
    if (answer_ == Answer::kRunning) handle_ = handle;
    refused = !refusal_.ok();
    if (answer_ == Answer::kRunning && wire_ == Wire::kUnused && !refused) WriteSign(place);
  }
  if (refused) handle.Cancel();  // OnCancel came before there was a handle
}

// ---- The backend's side -------------------------------------------------------------------------------------------

absl::Status GenerateReactor::OnChunk(const v1::Chunk& chunk) {
  MutexLock lock(mu_);
  if (!refusal_.ok()) return refusal_;
  const size_t n_bytes = chunk.ByteSizeLong();
  // One answer given at once (again) may be longer: who takes that in good time is not slow.
  const bool waits = buffered_bytes_ > 0;
  const bool too_many_bytes = waits && buffered_bytes_ + n_bytes > limits_.max_buffered_bytes;
  const bool too_many_tokens = waits && buffered_tokens_ + chunk.tokens_size() > limits_.max_buffered_tokens;
  if (too_many_bytes || too_many_tokens) {
    refusal_ = absl::ResourceExhaustedError(
        absl::StrFormat("the answer was read too slowly: more than %s waited; read faster, or ask for a shorter one",
                        too_many_bytes ? absl::StrFormat("%d bytes", limits_.max_buffered_bytes)
                                       : absl::StrFormat("%d tokens", limits_.max_buffered_tokens)));
    pending_.clear();
    return refusal_;
  }
  buffered_bytes_ += n_bytes;
  buffered_tokens_ += chunk.tokens_size();
  const bool fits = last_pending_bytes_ + n_bytes <= kMaxMergedBytes;
  if (!pending_.empty() && pending_.back().tier() == chunk.tier() && fits) {
    last_pending_bytes_ += n_bytes;
    v1::Chunk& last = pending_.back();
    last.mutable_tokens()->MergeFrom(chunk.tokens());
    last.mutable_text()->append(chunk.text());
    last.mutable_evidence()->MergeFrom(chunk.evidence());
  } else {
    pending_.push_back(chunk);
    last_pending_bytes_ = n_bytes;
  }
  MaybeWrite();
  return absl::OkStatus();
}

void GenerateReactor::OnEnd(const absl::Status& status, const v1::Done& done) {
  RequestHandle last;  // freed without the lock
  MutexLock lock(mu_);
  std::swap(last, handle_);
  answer_ = Answer::kEnded;
  status_ = status;
  done_ = done;
  MaybeWrite();
}

void GenerateReactor::OnLook(SteadyTime now) {
  RequestHandle handle;
  {
    MutexLock lock(mu_);
    if (OwesSign(now)) handle = handle_;
  }
  const std::optional<int> place = handle.QueuePlace();
  {
    MutexLock lock(mu_);
    if (OwesSign(now)) WriteSign(place);
    if (!StoppedReading(now)) return;
  }
  MutexLock lock(context_mu_);
  if (!done_with_context_) context_->TryCancel();
}

bool GenerateReactor::OwesSign(SteadyTime now) const {
  const bool may_write = wire_ == Wire::kFree || (wire_ == Wire::kUnused && waits_for_lane_);
  return answer_ == Answer::kRunning && may_write && refusal_.ok() && now - wrote_ >= limits_.sign_interval;
}

bool GenerateReactor::StoppedReading(SteadyTime now) {
  const bool writing = wire_ == Wire::kWriting || answer_ == Answer::kFinished;
  if (!writing || now - wrote_ < limits_.write_timeout) return false;
  refusal_.Update(absl::ResourceExhaustedError(
      absl::StrFormat("the reader took nothing of the answer for %s", absl::FormatDuration(limits_.write_timeout))));
  pending_.clear();
  return true;
}

// ---- gRPC's side --------------------------------------------------------------------------------------------------

void GenerateReactor::OnWriteDone(bool ok) {
  {
    MutexLock lock(mu_);
    wire_ = Wire::kFree;
    buffered_bytes_ -= std::exchange(writing_bytes_, 0);
    buffered_tokens_ -= std::exchange(writing_tokens_, 0);
    if (ok) return MaybeWrite();
  }
  ReaderIsGone();
}

void GenerateReactor::OnCancel() { ReaderIsGone(); }

void GenerateReactor::ReaderIsGone() {
  RequestHandle handle;
  {
    MutexLock lock(mu_);
    refusal_.Update(absl::CancelledError("the caller went away before it had the whole answer"));
    pending_.clear();
    handle = handle_;
    MaybeWrite();
  }
  handle.Cancel();  // without one yet, Submit sees that the reader is gone
}

void GenerateReactor::OnDone() {
  std::shared_ptr<GenerateReactor> self;
  {
    MutexLock lock(context_mu_);
    done_with_context_ = true;
  }
  --host_->n_open;
  MutexLock lock(mu_);
  self = std::move(self_);
  LogEvent(LogLevel::kDebug, "call",
           {{"id", request_id_},
            {"status", status_},
            {"sent_tokens", sent_tokens_},
            {"total_ms", absl::ToDoubleMilliseconds(SteadyNow() - received_)},
            {"peer", context_->peer()}});
}

// ---- Writing ------------------------------------------------------------------------------------------------------

void GenerateReactor::MaybeWrite() {
  if (wire_ == Wire::kWriting || answer_ == Answer::kFinished) return;
  if (!pending_.empty()) return WriteNextChunk();
  if (answer_ == Answer::kEnded) FinishCall();
}

void GenerateReactor::WriteNextChunk() {
  v1::GenerateResponse response;
  *response.mutable_chunk() = std::move(pending_.front());
  pending_.pop_front();
  writing_tokens_ = response.chunk().tokens_size();
  sent_tokens_ += writing_tokens_;
  // Merged chunks are a little smaller than their sum: with the last of them all that was counted goes.
  writing_bytes_ = pending_.empty() ? buffered_bytes_ : response.chunk().ByteSizeLong();
  Stamp(response, /*last=*/false);
  Write(response);
}

void GenerateReactor::WriteSign(std::optional<int> queue_place) {
  v1::GenerateResponse response;
  Stamp(response, /*last=*/false);
  if (!response.has_load()) *response.mutable_load() = host_->backend->CurrentLoad();
  if (queue_place) response.set_queue_place(*queue_place);
  Write(response);
}

void GenerateReactor::Write(const v1::GenerateResponse& response) {
  writing_ = SerializeMessage(response);
  wire_ = Wire::kWriting;
  wrote_ = SteadyNow();
  StartWrite(&writing_);
}

void GenerateReactor::FinishCall() {
  answer_ = Answer::kFinished;
  wrote_ = SteadyNow();
  status_.Update(refusal_);
  if (!status_.ok()) return Finish(ToGrpcStatus(status_, *context_));
  v1::GenerateResponse response;
  *response.mutable_done() = std::move(done_);
  Stamp(response, /*last=*/true);
  writing_ = SerializeMessage(response);
  StartWriteAndFinish(&writing_, grpc::WriteOptions(), grpc::Status::OK);
}

void GenerateReactor::Stamp(v1::GenerateResponse& response, bool last) const {
  const bool first = wire_ == Wire::kUnused;
  if (first) response.set_request_id(request_id_);
  if (first || last) *response.mutable_load() = host_->backend->CurrentLoad();
  response.set_server_us(static_cast<uint64_t>(absl::ToInt64Microseconds(SteadyNow() - received_)));
}

}  // namespace updraft
