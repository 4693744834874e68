// One streaming answer: the engine pushes tokens in at one side, gRPC writes messages out at the other.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cloud/engine/engine.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

struct GenerateReactorOptions {
  std::string tier;                // name in provenance
  int n_layer = 0;                 // layers that every token ran
  int max_buffered_tokens = 4096;  // tokens waiting for the reader before its request is ended
};

// One per Generate call. Lives until both gRPC (OnDone) and the engine (OnDone of its sink) have let go. All state is
// under mu_.
//
// At most one message is being written and one is being filled: a slow reader gets fewer and larger messages, up to
// max_buffered_tokens; then the engine is told that this reader is too slow. Finish is called exactly once, never while
// a write is out: by the engine's end when nothing is being written, otherwise when the last write is done.
class GenerateReactor final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  // The reactor keeps itself alive until OnDone; return the pointer to gRPC. `engine` must outlive the call.
  static std::shared_ptr<GenerateReactor> Create(grpc::CallbackServerContext* context, engine::Engine* engine,
                                                 std::string request_id, const GenerateReactorOptions& options);

  // Exactly one of the two, once. Submit refuses by itself when the engine does.
  void Submit(engine::Request request);
  void Refuse(absl::Status status);

  // Called by gRPC.
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  class Feed;  // the engine's end

  GenerateReactor(grpc::CallbackServerContext* context, engine::Engine* engine, std::string request_id,
                  const GenerateReactorOptions& options);

  bool Push(const engine::Output& output) ABSL_LOCKS_EXCLUDED(mu_);
  void Close(const absl::Status& status, const engine::Summary& summary) ABSL_LOCKS_EXCLUDED(mu_);
  void CancelInEngine() ABSL_LOCKS_EXCLUDED(mu_);

  void MaybeWrite() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void StampResponse(v1::GenerateResponse& response, bool last) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  v1::Done MakeDone() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  grpc::CallbackServerContext* const context_;
  engine::Engine* const engine_;
  const std::string request_id_;
  const GenerateReactorOptions options_;
  const std::chrono::steady_clock::time_point received_;

  std::mutex mu_;
  std::shared_ptr<GenerateReactor> self_ ABSL_GUARDED_BY(mu_);  // gRPC's reference, dropped in OnDone
  uint64_t ticket_ ABSL_GUARDED_BY(mu_) = 0;                    // 0: not with the engine
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;                 // the caller went away, or a write failed
  bool closed_ ABSL_GUARDED_BY(mu_) = false;                    // nothing more comes from the engine
  bool finished_ ABSL_GUARDED_BY(mu_) = false;                  // Finish was called: no operation after it
  bool is_writing_ ABSL_GUARDED_BY(mu_) = false;
  bool wrote_first_ ABSL_GUARDED_BY(mu_) = false;
  grpc::ByteBuffer writing_ ABSL_GUARDED_BY(mu_);  // gRPC reads it while is_writing_
  v1::Chunk filling_ ABSL_GUARDED_BY(mu_);
  bool has_filling_ ABSL_GUARDED_BY(mu_) = false;
  int n_writing_tokens_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t n_sent_tokens_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  engine::Summary summary_ ABSL_GUARDED_BY(mu_);
};

v1::Load LoadToProto(const engine::LoadReport& report);

}  // namespace updraft
