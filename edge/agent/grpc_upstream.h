// The next tier up over gRPC: calls to it, the watch over them, and looks at it while nothing else tells of the link.
#pragma once

#include <grpcpp/channel.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/clock/steady.h"
#include "common/sync/mutex.h"
#include "edge/agent/shared_session.h"
#include "edge/agent/upstream.h"
#include "updraft/v1/inference.grpc.pb.h"

namespace updraft {

struct GrpcUpstreamOptions {
  std::string address;                              // HOST:PORT
  std::string proxy = {};                           // ChannelOptions::proxy
  std::string key = {};                             // by which upstream knows this tier; empty: none is sent
  absl::Duration stall_timeout = absl::Seconds(5);  // a call without a byte for so long is given up: the link is dead
  // A call of which upstream says that it is at it, but of whose answer nothing has come for so long, is given up, too:
  // it is slow, which says nothing of the link.
  absl::Duration progress_timeout = absl::Seconds(20);
  int index = 0;  // of this upstream in the session
};

// One thread of its own watches for stalls and looks at upstream when the session says so (GetStatus); it sleeps when
// there is nothing to do. While the link is dead a look waits for the connection, so that the first that the network
// allows is known of at once.
class GrpcUpstream final : public Upstream {
 public:
  // InvalidArgument for an address that cannot be. Does not wait for a connection: a tier that is away now may come
  // back. The session is told what calls and looks find, and must know of upstream `index`.
  static absl::StatusOr<std::unique_ptr<GrpcUpstream>> Create(const GrpcUpstreamOptions& options,
                                                              std::shared_ptr<SharedSession> session);
  // Stops if still running.
  ~GrpcUpstream() override;

  std::shared_ptr<UpstreamCall> Generate(const v1::GenerateRequest& request, SteadyTime deadline,
                                         std::shared_ptr<UpstreamListener> listener) override;
  UpstreamIdentity Identity() const override;
  std::optional<v1::GetStatusResponse> LastStatus() const override;
  void ForgetFingerprint() override;
  const std::string& address() const override { return options_.address; }
  void Stop() override;

 private:
  class Call;
  class Probe;
  GrpcUpstream(GrpcUpstreamOptions options, std::shared_ptr<SharedSession> session)
      : options_(std::move(options)), session_(std::move(session)) {}

  void Watch();  // the thread
  SteadyTime NextEvent(SteadyTime now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::vector<std::shared_ptr<Call>> OverdueCalls(SteadyTime now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnCallEnded(Call* call);
  void OnCallFailed(const absl::Status& status);
  void OnProbeEnded(const absl::Status& status, absl::Duration took, bool was_connected,
                    const v1::GetStatusResponse& response);
  void TakeIdentity(const v1::GetStatusResponse& response) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool Connected() const;

  const GrpcUpstreamOptions options_;
  const std::shared_ptr<SharedSession> session_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> stub_;

  mutable Mutex mu_;
  CondVar changed_;
  std::unordered_map<Call*, std::shared_ptr<Call>> calls_ ABSL_GUARDED_BY(mu_);  // in progress
  bool key_is_unknown_ ABSL_GUARDED_BY(mu_) = false;                             // as the last look said
  std::shared_ptr<Probe> probe_ ABSL_GUARDED_BY(mu_);                            // in progress; null: none
  // Over, to be freed by the watcher or Stop: a call's context holds the channel, and gRPC does not survive its last
  // channel going away on one of its own callback threads (grpc/grpc#37858).
  std::vector<std::shared_ptr<Call>> ended_calls_ ABSL_GUARDED_BY(mu_);
  std::vector<std::shared_ptr<Probe>> ended_probes_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  UpstreamIdentity identity_ ABSL_GUARDED_BY(mu_);
  std::optional<v1::GetStatusResponse> last_status_ ABSL_GUARDED_BY(mu_);
  std::thread watcher_;
};

}  // namespace updraft
