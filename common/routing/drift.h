// Whether the answers that are kept are still as good as the calibration said, on requests that really come.
//
// A small share of kept answers is audited: upstream answers too, behind the client's back, and what keeping cost is a
// loss in [0, 1] (risk_control.h). From the audits come
//  * an estimate of the risk among kept answers, weighted by the inverse of the probability with which each was audited
//    (Hajek's ratio), with an interval;
//  * a test of "the risk among kept is at most `level`" that may be looked at after every audit, for ever: an
//  e-process,
//    the capital of gamblers who bet on losses above the level. If the level is kept to, capital reaches 1 / alpha with
//    probability at most alpha over any horizon (Ville's inequality), whatever the losses are distributed like.
//    Reaching it is the alarm. Gamblers start at every audit with a share of the first capital that shrinks as 1 /
//    audits^2, so that a change is noticed however late it comes (a mixture over change points, as in Shin, Ramdas &
//    Rinaldo, "E-detectors", 2023, but with weights that sum to 1, which keeps the probability rather than a rate of
//    false alarms); each bets for three sizes of change (Waudby-Smith & Ramdas, JRSS B 2024, for bets on bounded
//    losses);
//  * after an alarm, a tighter threshold.
//
// What it assumes: results come back, or get lost, regardless of their loss; a share that varies (a busy link) varies
// by what is known before the draw, never by the answer's outcome. Of kept answers alone: what is handed over is not
// seen.
//
// The life of a monitor:
//
//   AuditPlan plan = monitor.Plan(seq, share);  // of each kept answer; plan.propensity goes into its record
//   monitor.OnAudit({seq, now_s, confidence, plan.propensity, loss});  // of each that was audited, once
//   if (monitor.alarmed()) { log, count; monitor.Restart(monitor.ProposedThreshold()); }
//
// A copyable value without heap, I/O, clock or generator: time and the number of the request are arguments, the draw is
// a function of seed and number, so that a recorded run replays to the same bits. Not thread-safe.
#pragma once

#include <array>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace updraft {

inline constexpr double kMaxAuditShare = 0.1;

struct DriftOptions {
  // Risk among KEPT answers that the calibration promises, in (0, 0.5]: max_risk / coverage of risk_control.h, whose
  // risk is over all requests.
  double level = 0.05;
  double threshold = 0.5;               // answers are kept at or above it now; in [0, 1]
  double audit_share = kMaxAuditShare;  // of kept answers, at most: in (0, kMaxAuditShare]
  double min_share = 0.02;              // a smaller share is none: in (0, audit_share]; bounds what one audit weighs
  double alpha = 0.05;                  // probability of a false alarm between two restarts, in (0, 1)
  uint64_t seed = 0;                    // of the draws

  absl::Status Validate() const;
};

struct AuditPlan {
  bool audit = false;
  double propensity = 0.0;  // probability of `audit`; 0: it was never going to be
};

// A kept answer that upstream answered too.
struct Audit {
  uint64_t seq = 0;         // of the request
  double at_s = 0.0;        // when its result came, steady
  double confidence = 0.0;  // in [0, 1]
  double propensity = 0.0;  // of the plan
  double loss = 0.0;        // in [0, 1]
};

struct KeptRisk {
  int64_t n_audits = 0;
  double risk = 0.0;  // among kept; NaN without audits
  // 95 %, for one look at a time that the audits did not choose: Wilson's interval at the effective sample size.
  double low = 0.0, high = 1.0;
};

class DriftMonitor {
 public:
  static constexpr int kWindow = 512;  // audits that a tighter threshold may rest on

  static absl::StatusOr<DriftMonitor> Create(const DriftOptions& options);

  // Of the kept answer to request `seq`. share: how much may be audited just now; more than audit_share counts as that,
  // less than min_share (and NaN) as none.
  AuditPlan Plan(uint64_t seq, double share) const;
  // InvalidArgument: a value outside its range, a propensity outside [min_share, audit_share]; nothing changes then.
  absl::Status OnAudit(const Audit& audit);

  // ---- What is believed, since the start or the last restart ----
  KeptRisk Risk() const;
  double e_value() const;                    // of the test; 1 at the start, capped at 1e100
  bool alarmed() const { return alarmed_; }  // stays so until Restart
  // Of the audit that raised it, first; 0 and NaN without an alarm.
  uint64_t alarm_seq() const { return alarm_seq_; }
  double alarm_s() const { return alarm_s_; }
  // The smallest confidence, not below the present threshold, from which the weighted risk of audited answers is at
  // most the level: of those since the change, as far as the gamblers can tell when it was, at most kWindow. An
  // estimate, not a guarantee: the restarted monitor watches over it, until a new calibration replaces it. 1 where no
  // such confidence is known, the present threshold without an alarm.
  double ProposedThreshold() const;

  // Another threshold is in force: audits and capital begin anew, the level stays.
  void Restart(double threshold);
  const DriftOptions& options() const { return options_; }

 private:
  static constexpr int kChanges = 3;  // sizes of change that are bet on

  struct Seen {
    double confidence = 0.0, weight = 0.0, loss = 0.0;
  };
  struct Gamblers {          // for one size of change
    double stake = 0.0;      // of their capital, per unit of loss above the level, on an audit of the largest share
    double capital = 0.0;    // of all who have started
    double log_best = 0.0;   // of the start that would have done best so far, with a capital of 1
    int64_t best_start = 0;  // the audit before which that was
  };

  explicit DriftMonitor(const DriftOptions& options);
  void Bet(double weight, double loss);  // weight: audit_share / propensity

  DriftOptions options_;
  std::array<Gamblers, kChanges> gamblers_;
  int64_t n_audits_ = 0;
  double waiting_ = 1.0;  // capital of the gamblers who have not started
  // Sums over audits of weight w and loss l: w, w l, w^2, w^2 l, w^2 l^2.
  double w_ = 0.0, wl_ = 0.0, ww_ = 0.0, wwl_ = 0.0, wwll_ = 0.0;
  std::array<Seen, kWindow> seen_;  // ring, by number of the audit
  bool alarmed_ = false;
  uint64_t alarm_seq_ = 0;
  double alarm_s_;
};

static_assert(sizeof(DriftMonitor) <= 16384);

}  // namespace updraft
