// One streaming answer over gRPC: a backend pushes chunks in at one side, gRPC takes messages out at the other.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/clock/steady.h"
#include "common/serving/api_keys.h"
#include "common/serving/backend.h"
#include "common/serving/stream_watch.h"
#include "common/sync/mutex.h"
#include "common/sync/work_lanes.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

// What may wait for a slow reader, the message that is being written included. Beyond either its request ends with
// RESOURCE_EXHAUSTED; nobody else notices.
struct StreamLimits {
  size_t max_buffered_bytes = 1 << 20;
  int64_t max_buffered_tokens = std::numeric_limits<int64_t>::max();
  // A caller that waits, in a queue or for an answer that is held, hears so often that its request is there still: what
  // is silent for seconds is a dead link to it.
  absl::Duration sign_interval = absl::Seconds(1);
  // A reader that takes none of what is being written (64 KiB at most) for so long has stopped for good: its call is
  // cancelled, and all that it held is free.
  absl::Duration write_timeout = absl::Seconds(30);
  int max_streams = 1024;  // calls at once; more are refused

  absl::Duration look_interval() const {
    return std::clamp(std::min(sign_interval, write_timeout) / 4, absl::Milliseconds(2), absl::Seconds(1));
  }
};

// What the streams of one service share. Must outlive them.
struct StreamHost {
  // metrics: counts what is refused before the backend sees it; null: nothing. keys: of who may ask; null: anybody.
  StreamHost(Backend* b, const StreamLimits& l, Metrics* m, std::shared_ptr<const ApiKeys> k)
      : backend(b), limits(l), metrics(m), keys(std::move(k)), watch(l.look_interval()) {
    lanes.Start();
  }

  Backend* const backend;
  const StreamLimits limits;
  Metrics* const metrics;
  const std::shared_ptr<const ApiKeys> keys;
  std::atomic<int> n_open{0};  // calls that have begun and are not done
  StreamWatch watch;
  // gRPC has a thread or two for the callbacks of all streams, those of the tier above included.
  WorkLanes lanes;
};

// Whose key came with a call: nobody's where anybody may ask. Unauthenticated.
absl::StatusOr<std::string> TenantOfCall(const ApiKeys* keys, const grpc::CallbackServerContext& context);

// One per Generate call. Held by gRPC until OnDone and by the backend, as its sink, until OnEnd. All state that changes
// is under mu_.
//
// One message is being written at a time; what comes meanwhile is merged, chunks of different tiers apart, since each
// names its writer: a slow reader gets fewer and larger messages. Finish is called exactly once, never while a write is
// out. A request that was taken in and has no answer yet is told so at once by a response without an event, and again
// after each sign_interval without another. The first response carries the request's id and the load, those without an
// event and the last one the load, every one server_us.
class GenerateReactor final : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                              public AnswerSink,
                              public WatchedStream,
                              public std::enable_shared_from_this<GenerateReactor> {
 public:
  // Parses the request and submits it, here where that is soon done, else on a lane; one that does not parse is logged
  // and counted. The pointer is for gRPC; the reactor keeps itself alive until OnDone.
  static GenerateReactor* Start(StreamHost* host, grpc::CallbackServerContext* context, const grpc::ByteBuffer& bytes);

  // Called by the backend.
  absl::Status OnChunk(const v1::Chunk& chunk) override ABSL_LOCKS_EXCLUDED(mu_);
  void OnEnd(const absl::Status& status, const v1::Done& done) override ABSL_LOCKS_EXCLUDED(mu_);

  void OnLook(SteadyTime now) override ABSL_LOCKS_EXCLUDED(mu_);

  // Called by gRPC.
  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu_);
  void OnCancel() override ABSL_LOCKS_EXCLUDED(mu_);
  void OnDone() override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  enum class Answer { kRunning, kEnded, kFinished };  // the backend's end came; Finish was called
  enum class Wire { kUnused, kWriting, kFree };       // kUnused: no response was written yet

  GenerateReactor(StreamHost* host, grpc::CallbackServerContext* context)
      : host_(host), limits_(host->limits), context_(context) {}

  void TakeIn(const grpc::ByteBuffer& bytes);
  void SubmitFromLane(v1::GenerateRequest request);
  void Submit(v1::GenerateRequest request);
  absl::Status CheckRoom() const;
  void Refuse(const absl::Status& status);
  bool StoppedReading(SteadyTime now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ReaderIsGone() ABSL_LOCKS_EXCLUDED(mu_);
  void MaybeWrite() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void WriteNextChunk() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool OwesSign(SteadyTime now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void WriteSign(std::optional<int> queue_place) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Write(const v1::GenerateResponse& response) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FinishCall() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Stamp(v1::GenerateResponse& response, bool last) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  StreamHost* const host_;
  const StreamLimits& limits_;
  grpc::CallbackServerContext* const context_;
  const SteadyTime received_ = SteadyNow();

  // gRPC frees the context when OnDone returns: a cancel from the watch's thread is over by then. Not mu_, which gRPC's
  // own callbacks take.
  Mutex context_mu_;
  bool done_with_context_ ABSL_GUARDED_BY(context_mu_) = false;

  Mutex mu_;
  std::shared_ptr<GenerateReactor> self_ ABSL_GUARDED_BY(mu_);  // gRPC's hold, dropped in OnDone
  std::string request_id_ ABSL_GUARDED_BY(mu_);
  RequestHandle handle_ ABSL_GUARDED_BY(mu_);
  Answer answer_ ABSL_GUARDED_BY(mu_) = Answer::kRunning;
  absl::Status refusal_ ABSL_GUARDED_BY(mu_);  // why the reader takes no more: too slow, or gone; OK: it does
  Wire wire_ ABSL_GUARDED_BY(mu_) = Wire::kUnused;
  bool waits_for_lane_ ABSL_GUARDED_BY(mu_) = false;    // nobody has seen the request yet
  SteadyTime wrote_ ABSL_GUARDED_BY(mu_);               // when the last write began, or the waiting
  grpc::ByteBuffer writing_ ABSL_GUARDED_BY(mu_);       // gRPC reads it while kWriting
  std::deque<v1::Chunk> pending_ ABSL_GUARDED_BY(mu_);  // neighbours are of different tiers, or large
  size_t last_pending_bytes_ ABSL_GUARDED_BY(mu_) = 0;  // of pending_.back()
  size_t buffered_bytes_ ABSL_GUARDED_BY(mu_) = 0;      // of what is being written and what is pending
  int64_t buffered_tokens_ ABSL_GUARDED_BY(mu_) = 0;
  size_t writing_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t writing_tokens_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t sent_tokens_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mu_);  // of the end
  v1::Done done_ ABSL_GUARDED_BY(mu_);
};

}  // namespace updraft
