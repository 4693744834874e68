// A second look at what this tier kept: a small share of kept answers is asked of upstream too, behind the client's
// back, and a monitor (common/routing/drift.h) watches whether keeping is still as safe as its calibration said. When
// it is not, the threshold is tightened, logged and counted.
//
// What an audit finds is a loss in [0, 1]: 0 where upstream answers the same (settings, where answers act; else text up
// to white space), or asks back; otherwise the probability that upstream is right, as it states it, and 1 where it
// states none. That is at least the probability that upstream was right and this tier wrong, and no more is watched: an
// error that upstream makes, too, is not made by keeping, and is not seen.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/clock/steady.h"
#include "common/routing/drift.h"
#include "common/sync/mutex.h"
#include "common/telemetry/metrics.h"
#include "edge/agent/shared_session.h"
#include "edge/agent/upstream.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

struct AuditorOptions {
  DriftOptions drift;                          // threshold: the one in force at first
  bool acts = false;                           // answers are settings of a car, not prose
  int max_in_flight = 2;                       // audits at a time; no more are drawn meanwhile
  absl::Duration timeout = absl::Seconds(30);  // of one audit
};

// An answer that was kept because this tier was confident, and that its client has.
struct KeptAnswer {
  const v1::GenerateRequest* request = nullptr;
  std::string_view text;
  double confidence = 0.0;  // in [0, 1]
  uint64_t seq = 0;         // of the decision to keep it
};

// Thread-safe.
class Auditor {
 public:
  // tighten: hears of each threshold that an alarm calls for, higher than those before; by the thread of a call
  // upstream, without a lock of the auditor. Whatever is pointed to must outlive it; upstream is stopped before it
  // goes.
  static absl::StatusOr<std::unique_ptr<Auditor>> Create(const AuditorOptions& options, Upstream* upstream,
                                                         const SharedSession* session, Metrics* metrics,
                                                         std::function<void(double threshold)> tighten);

  // Draws whether `kept` is audited and, if so, asks upstream; returns before an answer comes. The probability with
  // which it was drawn: 0 where it cannot be audited (upstream is away, busy or has just failed; enough audits are
  // under way; the request is sampled, goes on from a draft, or has ids that upstream does not read).
  double OnKept(const KeptAnswer& kept);

  KeptRisk Risk() const;
  double threshold() const;

 private:
  class Listener;

  Auditor(const AuditorOptions& options, DriftMonitor monitor, Upstream* upstream, const SharedSession* session,
          Metrics* metrics, std::function<void(double)> tighten);
  double ShareNow(const v1::GenerateRequest& request) const;
  // Of a call: what it came to, or none where the answer did not come.
  void OnResult(const Audit& audit, const std::string& request_id, int64_t epoch, bool lost);

  const AuditorOptions options_;
  Upstream* const upstream_;
  const SharedSession* const session_;
  Metrics* const metrics_;
  const std::function<void(double)> tighten_;

  mutable Mutex mu_;
  DriftMonitor monitor_ ABSL_GUARDED_BY(mu_);
  int64_t epoch_ ABSL_GUARDED_BY(mu_) = 0;  // thresholds so far: audits of one say nothing of the next
  int n_in_flight_ ABSL_GUARDED_BY(mu_) = 0;
};

// What keeping `ours` cost where upstream said `theirs` with the disposition and, perhaps, p_right of `done`.
double AuditLoss(std::string_view ours, std::string_view theirs, const v1::Done& done, bool acts);

}  // namespace updraft
