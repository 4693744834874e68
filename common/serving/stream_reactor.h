// One streaming answer over gRPC: a backend pushes chunks in at one side, gRPC takes messages out at the other.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "common/clock/steady.h"
#include "common/serving/backend.h"
#include "common/sync/mutex.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

// What may wait for a slow reader, the message that is being written included. Beyond either its request ends with
// RESOURCE_EXHAUSTED; nobody else notices.
struct StreamLimits {
  size_t max_buffered_bytes = 1 << 20;
  int64_t max_buffered_tokens = std::numeric_limits<int64_t>::max();
};

// One per Generate call. Held by gRPC until OnDone and by the backend, as its sink, until OnEnd. All state that changes
// is under mu_.
//
// One message is being written at a time; what comes meanwhile is merged, chunks of different tiers apart, since each
// names its writer: a slow reader gets fewer and larger messages. Finish is called exactly once, never while a write is
// out. The first response carries the request's id and the load, the last one the load, every one server_us.
class GenerateReactor final : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                              public AnswerSink,
                              public std::enable_shared_from_this<GenerateReactor> {
 public:
  // Parses the request and submits it; one that does not parse is logged and counted here. The pointer is for gRPC; the
  // reactor keeps itself alive until OnDone. `backend` must outlive the call.
  static GenerateReactor* Start(Backend* backend, grpc::CallbackServerContext* context, const grpc::ByteBuffer& bytes,
                                const StreamLimits& limits, Metrics* metrics = nullptr);

  // Called by the backend.
  absl::Status OnChunk(const v1::Chunk& chunk) override ABSL_LOCKS_EXCLUDED(mu_);
  void OnEnd(const absl::Status& status, const v1::Done& done) override ABSL_LOCKS_EXCLUDED(mu_);

  // Called by gRPC.
  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu_);
  void OnCancel() override ABSL_LOCKS_EXCLUDED(mu_);
  void OnDone() override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  enum class Answer { kRunning, kEnded, kFinished };  // the backend's end came; Finish was called
  enum class Wire { kUnused, kWriting, kFree };       // kUnused: no response was written yet

  GenerateReactor(Backend* backend, grpc::CallbackServerContext* context, const StreamLimits& limits)
      : backend_(backend), context_(context), limits_(limits) {}

  void Submit(const grpc::ByteBuffer& bytes, Metrics* metrics);
  void ReaderIsGone() ABSL_LOCKS_EXCLUDED(mu_);
  void MaybeWrite() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void WriteNextChunk() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FinishCall() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Stamp(v1::GenerateResponse& response, bool last) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Backend* const backend_;
  grpc::CallbackServerContext* const context_;
  const StreamLimits limits_;
  const SteadyTime received_ = SteadyNow();

  Mutex mu_;
  std::shared_ptr<GenerateReactor> self_ ABSL_GUARDED_BY(mu_);  // gRPC's hold, dropped in OnDone
  std::string request_id_ ABSL_GUARDED_BY(mu_);
  RequestHandle handle_ ABSL_GUARDED_BY(mu_);
  Answer answer_ ABSL_GUARDED_BY(mu_) = Answer::kRunning;
  absl::Status refusal_ ABSL_GUARDED_BY(mu_);  // why the reader takes no more: too slow, or gone; OK: it does
  Wire wire_ ABSL_GUARDED_BY(mu_) = Wire::kUnused;
  grpc::ByteBuffer writing_ ABSL_GUARDED_BY(mu_);       // gRPC reads it while kWriting
  std::deque<v1::Chunk> pending_ ABSL_GUARDED_BY(mu_);  // neighbours are of different tiers
  size_t buffered_bytes_ ABSL_GUARDED_BY(mu_) = 0;      // of what is being written and what is pending
  int64_t buffered_tokens_ ABSL_GUARDED_BY(mu_) = 0;
  size_t writing_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t writing_tokens_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t sent_tokens_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mu_);  // of the end
  v1::Done done_ ABSL_GUARDED_BY(mu_);
};

}  // namespace updraft
