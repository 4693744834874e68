// The next tier up, as the agent sees it. GrpcUpstream (grpc_upstream.h) is the real one; tests have fakes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "common/clock/steady.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

// Payload of one call, message bytes without HTTP/2 framing.
struct UpstreamTraffic {
  uint64_t bytes_up = 0;
  uint64_t bytes_down = 0;
};

// What a call tells. Called by one thread at a time, possibly before Generate has returned; must not block.
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

// What upstream said of itself when it was last asked.
struct UpstreamIdentity {
  std::string tokenizer_fingerprint;  // empty: not known yet
  int context_length = 0;             // tokens; 0: not known yet
};

// Thread-safe. What calls tell of the link and the load goes to the routing session.
class Upstream {
 public:
  virtual ~Upstream() = default;
  // The call keeps the listener until OnFinished.
  virtual std::shared_ptr<UpstreamCall> Generate(const v1::GenerateRequest& request, SteadyTime deadline,
                                                 std::shared_ptr<UpstreamListener> listener) = 0;
  virtual UpstreamIdentity Identity() const = 0;
  // Of the newest probe, when it succeeded.
  virtual std::optional<v1::GetStatusResponse> LastStatus() const = 0;
  // Upstream refused our token ids: from now on it gets text, until it says otherwise.
  virtual void ForgetFingerprint() = 0;
  virtual const std::string& address() const = 0;
  // Cancels all calls and returns when their listeners have heard the end.
  virtual void Stop() = 0;
};

}  // namespace updraft
