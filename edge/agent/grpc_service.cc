#include "edge/agent/grpc_service.h"

#include <mutex>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/rpc/channel.h"
#include "common/rpc/process.h"
#include "common/rpc/raw_message.h"
#include "common/rpc/status.h"
#include "common/serving/request_check.h"

namespace updraft {

namespace {

// Of an answer, waiting for a slow reader. Beyond it the request is cancelled; nobody else notices.
constexpr size_t kMaxPendingBytes = 1 << 20;

// One Generate call. The agent (as its sink) and gRPC (until OnDone) hold it together. One write is out at a time; what
// comes meanwhile is merged into one chunk, so a slow reader gets fewer, larger messages.
class GenerateReactor final : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                              public AnswerSink,
                              public std::enable_shared_from_this<GenerateReactor> {
 public:
  GenerateReactor(Agent* agent, grpc::CallbackServerContext* context) : agent_(agent), context_(context) {}

  void Start(const grpc::ByteBuffer& bytes) {
    self_ = shared_from_this();
    v1::GenerateRequest request;
    if (absl::Status status = ParseMessage(bytes, &request); !status.ok()) return OnEnd(status, {});
    if (request.request_id().empty()) request.set_request_id(NewRequestId());
    request_id_ = request.request_id();
    const RequestHandle handle = agent_->Submit(std::move(request), SteadyDeadlineOf(*context_), self_);
    bool cancelled;
    {
      std::lock_guard lock(mu_);
      handle_ = handle;
      cancelled = cancelled_;
    }
    if (cancelled) handle.Cancel();  // OnCancel came before there was a handle
  }

  // ---- AnswerSink: the agent's threads ----
  bool OnChunk(const v1::Chunk& chunk) override {
    std::lock_guard lock(mu_);
    if (cancelled_) return false;
    // Chunks of different tiers stay apart: each names its writer.
    if (!pending_.empty() && pending_.back().tier() == chunk.tier()) {
      v1::Chunk& last = pending_.back();
      last.mutable_tokens()->MergeFrom(chunk.tokens());
      last.mutable_text()->append(chunk.text());
      last.mutable_evidence()->MergeFrom(chunk.evidence());
    } else {
      pending_.push_back(chunk);
    }
    pending_bytes_ += chunk.ByteSizeLong();
    if (pending_bytes_ > kMaxPendingBytes) {
      too_slow_ = true;
      return false;
    }
    MaybeWrite();
    return true;
  }

  void OnEnd(const absl::Status& status, const v1::Done& done) override {
    std::lock_guard lock(mu_);
    ended_ = true;
    end_status_ = status;
    if (too_slow_) {
      end_status_ = absl::ResourceExhaustedError(
          absl::StrFormat("the answer was read too slowly: more than %d bytes waited", kMaxPendingBytes));
    }
    done_ = done;
    MaybeWrite();
  }

  // ---- ServerWriteReactor: gRPC's threads ----
  void OnWriteDone(bool ok) override {
    RequestHandle handle;
    {
      std::lock_guard lock(mu_);
      writing_ = false;
      if (!ok) {
        cancelled_ = true;
        handle = handle_;
      }
      MaybeWrite();
    }
    handle.Cancel();
  }

  void OnCancel() override {
    RequestHandle handle;
    {
      std::lock_guard lock(mu_);
      cancelled_ = true;
      handle = handle_;
    }
    handle.Cancel();
  }

  void OnDone() override {
    const std::shared_ptr<GenerateReactor> last = std::move(self_);
    std::lock_guard lock(mu_);
    handle_ = RequestHandle();
  }

 private:
  void Stamp(v1::GenerateResponse& response, bool with_load) {  // mu_ held
    if (std::exchange(first_, false)) response.set_request_id(request_id_);
    response.set_server_us(static_cast<uint64_t>(absl::ToInt64Microseconds(absl::Now() - arrived_)));
    if (with_load) *response.mutable_load() = agent_->CurrentLoad();
  }

  void MaybeWrite() {  // mu_ held
    if (writing_ || finished_) return;
    if (!cancelled_ && !too_slow_ && !pending_.empty()) {
      v1::GenerateResponse response;
      *response.mutable_chunk() = std::move(pending_.front());
      pending_.erase(pending_.begin());
      if (pending_.empty()) pending_bytes_ = 0;
      Stamp(response, first_);
      writing_bytes_ = SerializeMessage(response);
      writing_ = true;
      return StartWrite(&writing_bytes_);
    }
    if (!ended_) return;
    finished_ = true;
    if (!end_status_.ok()) return Finish(ToGrpcStatus(end_status_, *context_));
    v1::GenerateResponse response;
    *response.mutable_done() = done_;
    Stamp(response, true);
    writing_bytes_ = SerializeMessage(response);
    StartWriteAndFinish(&writing_bytes_, grpc::WriteOptions(), grpc::Status::OK);
  }

  Agent* const agent_;
  grpc::CallbackServerContext* const context_;
  const absl::Time arrived_ = absl::Now();
  std::string request_id_;
  std::shared_ptr<GenerateReactor> self_;  // gRPC's hold

  std::mutex mu_;
  RequestHandle handle_;
  std::vector<v1::Chunk> pending_;
  size_t pending_bytes_ = 0;
  grpc::ByteBuffer writing_bytes_;  // gRPC reads it while writing_
  absl::Status end_status_;
  v1::Done done_;
  bool first_ = true;
  bool writing_ = false;
  bool ended_ = false;
  bool finished_ = false;
  bool cancelled_ = false;
  bool too_slow_ = false;
};

}  // namespace

EdgeService::EdgeService(Agent* agent, absl::Time process_start, std::string version)
    : agent_(agent), process_start_(process_start), version_(std::move(version)) {}

grpc::ServerWriteReactor<grpc::ByteBuffer>* EdgeService::Generate(grpc::CallbackServerContext* context,
                                                                  const grpc::ByteBuffer* bytes) {
  auto reactor = std::make_shared<GenerateReactor>(agent_, context);
  GenerateReactor* raw = reactor.get();
  raw->Start(*bytes);
  return raw;
}

grpc::ServerUnaryReactor* EdgeService::GetStatus(grpc::CallbackServerContext* context, const v1::GetStatusRequest*,
                                                 v1::GetStatusResponse* response) {
  *response = agent_->Status();
  response->set_version(version_);
  response->set_uptime_s(absl::ToDoubleSeconds(absl::Now() - process_start_));
  response->set_resident_bytes(ResidentBytes());
  response->set_ready_after_ms(absl::ToDoubleMilliseconds(ready_ - process_start_));
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace updraft
