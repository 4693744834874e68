// The next tier up, as the agent sees it: calls to it, what is believed about the link, and what it says of itself.
#pragma once

#include <grpcpp/channel.h>

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/clock/steady.h"
#include "common/routing/link.h"
#include "common/routing/policy.h"
#include "updraft/v1/inference.grpc.pb.h"

namespace updraft {

struct UpstreamOptions {
  std::string address;                              // HOST:PORT
  absl::Duration stall_timeout = absl::Seconds(5);  // a call without a byte for so long is given up
  // GetStatus while nothing else tells of the link; 0 or less: never. Calls tell of the link but not of the model that
  // upstream serves: at most 4 intervals pass between probes, however many calls there are.
  absl::Duration probe_interval = absl::Seconds(5);
};

// Payload of one call, message bytes without HTTP/2 framing.
struct UpstreamTraffic {
  uint64_t bytes_up = 0;
  uint64_t bytes_down = 0;
};

// What a call tells. Called on gRPC's threads, one at a time; must not block.
class UpstreamListener {
 public:
  virtual ~UpstreamListener() = default;
  virtual void OnResponse(const v1::GenerateResponse& response) = 0;
  // Exactly once, last. Unavailable: the link or the tier is gone, or it stalled. The message is one line of UTF-8.
  virtual void OnFinished(const absl::Status& status, const UpstreamTraffic& traffic) = 0;
};

// Any thread; may be held longer than the call lives.
class UpstreamCall {
 public:
  virtual ~UpstreamCall() = default;
  virtual void Cancel() = 0;  // OnFinished follows
};

struct UpstreamSnapshot {
  LinkEstimate link;
  UpstreamLoad load;
  double since_failure_s = 1e9;
  std::string tokenizer_fingerprint;                 // empty: not known yet
  int context_length = 0;                            // tokens; 0: not known yet
  std::optional<v1::GetStatusResponse> last_status;  // of the newest probe, when it succeeded
};

// Thread-safe. One thread of its own watches for stalls and probes while idle; it sleeps when there is nothing to
// watch.
class Upstream {
 public:
  // InvalidArgument for an address that cannot be. Does not wait for a connection: a tier that is away now may come
  // back.
  static absl::StatusOr<std::unique_ptr<Upstream>> Create(const UpstreamOptions& options);
  // Stops if still running.
  ~Upstream();

  // The call keeps the listener until OnFinished. deadline: InfiniteFuture for none.
  std::shared_ptr<UpstreamCall> Generate(const v1::GenerateRequest& request, SteadyTime deadline,
                                         std::shared_ptr<UpstreamListener> listener);
  UpstreamSnapshot Snapshot() const;
  // Upstream refused our token ids: from now on it gets text, until a probe tells otherwise.
  void ForgetFingerprint();
  const std::string& address() const { return options_.address; }

  // Cancels all calls and returns when their listeners have heard the end.
  void Stop();

 private:
  class Call;
  class Probe;
  explicit Upstream(UpstreamOptions options) : options_(std::move(options)) {}

  void Watch();                  // the thread
  absl::Time NextEvent() const;  // mu_ held
  void OnCallEnded(Call* call);
  void OnProbeEnded(const absl::Status& status, double seconds, bool was_connected,
                    const v1::GetStatusResponse& response);
  void OnLinkSample(const LinkSample& sample);
  void OnLinkFailure();
  void OnLoad(const v1::Load& load);
  void OnRefused(absl::Duration retry_delay);
  bool Connected() const;

  const UpstreamOptions options_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> stub_;

  mutable std::mutex mu_;
  std::condition_variable changed_;
  std::unordered_map<Call*, std::shared_ptr<Call>> calls_;  // in progress
  std::shared_ptr<Probe> probe_;                            // in progress; null: none
  // Over, to be freed by the watcher or Stop: a call's context holds the channel, and gRPC does not survive its last
  // channel going away on one of its own callback threads (grpc/grpc#37858).
  std::vector<std::shared_ptr<Call>> ended_calls_;
  std::vector<std::shared_ptr<Probe>> ended_probes_;
  bool stopping_ = false;
  absl::Time next_probe_ = absl::InfinitePast();
  absl::Time latest_probe_ = absl::InfinitePast();  // calls put the next probe off until then, not longer
  LinkEstimator estimator_;
  UpstreamLoad load_;
  double last_failure_s_ = -1e9;  // monotonic
  absl::Time busy_until_ = absl::InfinitePast();
  std::string fingerprint_;
  int context_length_ = 0;
  std::optional<v1::GetStatusResponse> last_status_;
  std::thread watcher_;
};

}  // namespace updraft
