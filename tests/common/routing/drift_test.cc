#include "common/routing/drift.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace updraft {
namespace {

using ::testing::HasSubstr;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

DriftMonitor Monitor(const DriftOptions& options) {
  auto monitor = DriftMonitor::Create(options);
  EXPECT_TRUE(monitor.ok()) << monitor.status();
  return *std::move(monitor);
}

double Uniform(std::mt19937_64& rng) { return static_cast<double>(rng() >> 11) * 0x1p-53; }

// ---- The draw -----------------------------------------------------------------------------------------------------

TEST(AuditPlanTest, IsAFunctionOfSeedAndNumberWithTheStatedProbability) {
  constexpr int kRequests = 200000;
  for (const uint64_t seed : {0ull, 1ull, 0xffffffffffffffffull}) {
    const DriftMonitor monitor = Monitor({.seed = seed}), twin = Monitor({.seed = seed}),
                       other = Monitor({.seed = seed + 1});
    for (const double share : {0.02, 0.05, 0.1}) {
      int audits = 0, both = 0, in_a_row = 0;
      bool before = false;
      for (uint64_t seq = 0; seq < kRequests; ++seq) {
        const AuditPlan plan = monitor.Plan(seq, share);
        EXPECT_EQ(plan.propensity, share);
        EXPECT_EQ(plan.audit, twin.Plan(seq, share).audit);
        audits += plan.audit ? 1 : 0;
        both += plan.audit && other.Plan(seq, share).audit ? 1 : 0;
        in_a_row += plan.audit && before ? 1 : 0;
        before = plan.audit;
      }
      const auto near = [&](double count, double p) {  // within 4.5 deviations: one of 18 checks fails once in 8,000
        EXPECT_NEAR(count, p * kRequests, 4.5 * std::sqrt(p * kRequests)) << "seed " << seed << ", share " << share;
      };
      near(audits, share);
      near(both, share * share);
      near(in_a_row, share * share);
    }
  }
}

TEST(AuditPlanTest, TheShareHasALimitAndAFloor) {
  const DriftMonitor monitor = Monitor({.audit_share = 0.08, .min_share = 0.02});
  EXPECT_EQ(monitor.Plan(1, 0.5).propensity, 0.08);
  EXPECT_EQ(monitor.Plan(1, kInfinity).propensity, 0.08);
  for (const double share : {0.0, 0.019, -1.0, kNaN, -kInfinity}) {
    for (uint64_t seq = 0; seq < 200; ++seq) {
      EXPECT_FALSE(monitor.Plan(seq, share).audit);
      EXPECT_EQ(monitor.Plan(seq, share).propensity, 0.0);
    }
  }
}

// ---- Kept answers as they come ------------------------------------------------------------------------------------

// One run: `n` kept answers, each audited by plan. wrong(i): P(loss) of the i-th. Returns the number at whose audit the
// alarm came; -1: none.
template <typename Wrong>
int RunKept(DriftMonitor& monitor, int n, std::mt19937_64& rng, const Wrong& wrong) {
  for (int i = 0; i < n; ++i) {
    const double loss = Uniform(rng) < wrong(i) ? 1.0 : 0.0, confidence = 0.8 + 0.2 * Uniform(rng);
    const AuditPlan plan = monitor.Plan(static_cast<uint64_t>(i), 1.0);
    if (!plan.audit) continue;
    EXPECT_TRUE(monitor
                    .OnAudit({.seq = static_cast<uint64_t>(i),
                              .at_s = 0.5 * i,
                              .confidence = confidence,
                              .propensity = plan.propensity,
                              .loss = loss})
                    .ok());
    if (monitor.alarmed()) {
      EXPECT_EQ(monitor.alarm_seq(), static_cast<uint64_t>(i));
      EXPECT_EQ(monitor.alarm_s(), 0.5 * i);
      return i;
    }
  }
  return -1;
}

TEST(DriftMonitorTest, ARiseIsNoticedSoonHoweverLateItComes) {
  constexpr int kRuns = 300;
  for (const int before : {0, 2000, 10000, 50000}) {
    std::vector<int> delays;
    int early = 0;
    for (int run = 0; run < kRuns; ++run) {
      std::mt19937_64 rng(1000 + run);
      DriftMonitor monitor = Monitor({.level = 0.03, .seed = static_cast<uint64_t>(run)});
      const int at = RunKept(monitor, before + 1500, rng, [&](int i) { return i < before ? 0.03 : 0.15; });
      if (at >= before) delays.push_back(at - before);
      early += at >= 0 && at < before ? 1 : 0;
    }
    std::sort(delays.begin(), delays.end());
    const double flagged = static_cast<double>(delays.size()) / (kRuns - early);
    std::printf(
        "3 to 15 %% after %5d kept: flagged within 1,500 in %.1f %% of runs, median after %d; %d false before\n",
        before, 100 * flagged, delays.empty() ? -1 : delays[delays.size() / 2], early);
    EXPECT_GE(flagged, 0.9) << before;
    EXPECT_LE(early, 0.05 * kRuns) << before;
  }
}

TEST(DriftMonitorTest, WithoutARiseNothingIsRaised) {
  constexpr int kRuns = 400;
  for (const double level : {0.03, 0.1, 0.3}) {
    for (const int n : {10000, 60000}) {
      if (n > 10000 && level != 0.03) continue;
      int alarms = 0;
      for (int run = 0; run < kRuns; ++run) {
        std::mt19937_64 rng(5000 + run);
        DriftMonitor monitor = Monitor({.level = level, .seed = static_cast<uint64_t>(run)});
        alarms += RunKept(monitor, n, rng, [&](int) { return level; }) >= 0 ? 1 : 0;
      }
      std::printf("%4.0f %% as calibrated, %d kept: false alarm in %.2f %% of runs\n", 100 * level, n,
                  100.0 * alarms / kRuns);
      EXPECT_LE(alarms, 0.05 * kRuns) << level << ", " << n;
    }
  }
}

// What Ville's inequality rests on: at the level, the next capital is the present one in the mean, whatever has been
// seen.
TEST(DriftMonitorTest, CapitalIsAMartingaleAtTheLevel) {
  std::mt19937_64 rng(6);
  for (const double level : {0.002, 0.03, 0.2, 0.5}) {
    DriftMonitor monitor = Monitor({.level = level, .min_share = 0.01});
    for (int i = 0; i < 400; ++i) {
      // Over the draw of an audit and over a loss of 0 or 1; each propensity alone must come out even.
      const double propensity = 0.01 + 0.09 * Uniform(rng), now = monitor.e_value();
      double after[2];
      for (const int loss : {0, 1}) {
        DriftMonitor next = monitor;
        ASSERT_TRUE(next.OnAudit({.confidence = 0.9, .propensity = propensity, .loss = 1.0 * loss}).ok());
        after[loss] = next.e_value();
        EXPECT_GT(after[loss], 0.0);
      }
      // Rounding of a few operations, and of starts, which come from another formula than what waits.
      EXPECT_NEAR((1.0 - level) * after[0] + level * after[1], now, 1e-12 * std::max(1.0, now))
          << "level " << level << ", audit " << i;
      // The gain of a loss above the level and the price of one below are in proportion to 1 / propensity: that is what
      // makes answers count alike that are audited with different probabilities.
      DriftMonitor largest = monitor;
      ASSERT_TRUE(largest.OnAudit({.confidence = 0.9, .propensity = 0.1, .loss = 1.0}).ok());
      EXPECT_NEAR((largest.e_value() - now) * 0.1, (after[1] - now) * propensity, 1e-12 * std::max(1.0, now));
      ASSERT_TRUE(monitor
                      .OnAudit({.confidence = 0.9,
                                .propensity = propensity,
                                .loss = Uniform(rng) < 1.5 * level ? 1.0 : Uniform(rng) * level})
                      .ok());
    }
  }
}

// ---- The estimate ---------------------------------------------------------------------------------------------------

struct Coverage {
  int covered = 0;
  double mean = 0.0, width = 0.0;
};

// Kept answers whose risk falls with their confidence, from 2 * risk to 0; share(c): the share audited.
template <typename Share>
Coverage CoverageOf(int runs, int n, double risk, bool soft, const Share& share) {
  Coverage coverage;
  for (int run = 0; run < runs; ++run) {
    std::mt19937_64 rng(7000 + run);
    DriftMonitor monitor = Monitor({.level = 0.5, .min_share = 0.02, .seed = static_cast<uint64_t>(run)});
    for (int i = 0; i < n; ++i) {
      const double confidence = Uniform(rng);
      const bool wrong = Uniform(rng) < 2.0 * risk * (1.0 - confidence);
      const double loss = !wrong ? 0.0 : soft ? Uniform(rng) : 1.0;
      const AuditPlan plan = monitor.Plan(static_cast<uint64_t>(i), share(confidence));
      if (!plan.audit) continue;
      EXPECT_TRUE(monitor.OnAudit({.confidence = confidence, .propensity = plan.propensity, .loss = loss}).ok());
    }
    const KeptRisk kept = monitor.Risk();
    const double truth = soft ? 0.5 * risk : risk;
    EXPECT_LE(kept.low, kept.risk);
    EXPECT_GE(kept.high, kept.risk);
    coverage.covered += kept.low <= truth && truth <= kept.high ? 1 : 0;
    coverage.mean += kept.risk / runs;
    coverage.width += (kept.high - kept.low) / runs;
  }
  return coverage;
}

TEST(DriftMonitorTest, TheIntervalCoversTheTruth) {
  constexpr int kRuns = 200;
  const auto even = [](double) { return 0.1; };
  const auto doubtful_first = [](double confidence) { return confidence < 0.5 ? 0.1 : 0.03; };
  const auto sure_first = [](double confidence) { return 0.02 + 0.08 * confidence; };
  const auto check = [&](const char* what, const Coverage& coverage, double truth) {
    std::printf("%-22s covered in %d of %d runs, mean %.4f of %.4f, width %.4f\n", what, coverage.covered, kRuns,
                coverage.mean, truth, coverage.width);
    EXPECT_GE(coverage.covered, 0.93 * kRuns) << what;
    // The mean of the runs is known to a quarter of the half width over sqrt(200): four deviations and a bias of a
    // ratio.
    EXPECT_NEAR(coverage.mean, truth, coverage.width / std::sqrt(1.0 * kRuns) + 0.02 * truth) << what;
  };
  for (const double risk : {0.03, 0.15}) {
    check("even shares", CoverageOf(kRuns, 10000, risk, false, even), risk);
    check("doubtful ones first", CoverageOf(kRuns, 10000, risk, false, doubtful_first), risk);
    check("sure ones first", CoverageOf(kRuns, 10000, risk, false, sure_first), risk);
    check("losses in between", CoverageOf(kRuns, 10000, risk, true, doubtful_first), 0.5 * risk);
  }
}

TEST(DriftMonitorTest, TheEstimateOfFewAudits) {
  DriftMonitor monitor = Monitor({});
  KeptRisk kept = monitor.Risk();
  EXPECT_EQ(kept.n_audits, 0);
  EXPECT_TRUE(std::isnan(kept.risk));
  EXPECT_EQ(kept.low, 0.0);
  EXPECT_EQ(kept.high, 1.0);
  EXPECT_EQ(monitor.e_value(), 1.0);
  // Wilson's interval of 0 of n is [0, z^2 / (n + z^2)]; of n of n its mirror image.
  constexpr double kZ2 = 1.959963984540054 * 1.959963984540054;
  DriftMonitor right = monitor, wrong = monitor;
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(right.OnAudit({.confidence = 0.9, .propensity = 0.1, .loss = 0.0}).ok());
    ASSERT_TRUE(wrong.OnAudit({.confidence = 0.9, .propensity = 0.1, .loss = 1.0}).ok());
  }
  EXPECT_EQ(right.Risk().risk, 0.0);
  EXPECT_NEAR(right.Risk().low, 0.0, 1e-12);
  EXPECT_NEAR(right.Risk().high, kZ2 / (10 + kZ2), 1e-12);
  EXPECT_EQ(wrong.Risk().risk, 1.0);
  EXPECT_NEAR(wrong.Risk().low, 10 / (10 + kZ2), 1e-12);
  EXPECT_NEAR(wrong.Risk().high, 1.0, 1e-12);
  // Weights: one of propensity 0.05 stands for twice as many as one of 0.1.
  ASSERT_TRUE(monitor.OnAudit({.confidence = 0.9, .propensity = 0.05, .loss = 1.0}).ok());
  ASSERT_TRUE(monitor.OnAudit({.confidence = 0.9, .propensity = 0.1, .loss = 0.25}).ok());
  EXPECT_NEAR(monitor.Risk().risk, (2 * 1.0 + 0.25) / 3, 1e-12);
}

// ---- After the alarm ------------------------------------------------------------------------------------------------

// The risk rises for the less sure half of what is kept: keeping the other half is the cure.
TEST(DriftMonitorTest, ATighterThresholdBringsTheRiskBack) {
  constexpr int kRuns = 100;
  int close = 0, again = 0;
  for (int run = 0; run < kRuns; ++run) {
    std::mt19937_64 rng(9000 + run);
    DriftMonitor monitor = Monitor({.level = 0.03, .threshold = 0.6, .seed = static_cast<uint64_t>(run)});
    const auto wrong = [](double confidence) { return confidence < 0.8 ? 0.25 : 0.01; };
    EXPECT_EQ(monitor.ProposedThreshold(), 0.6) << "without an alarm nothing changes";
    uint64_t seq = 0;
    const auto run_until_alarm = [&](int n, bool shifted) {
      for (int i = 0; i < n && !monitor.alarmed(); ++i) {
        const double confidence = 0.6 + 0.4 * Uniform(rng);
        const double loss = Uniform(rng) < (shifted ? wrong(confidence) : 0.02) ? 1.0 : 0.0;
        if (confidence < monitor.options().threshold) continue;
        const AuditPlan plan = monitor.Plan(++seq, 0.1);
        if (plan.audit) {
          EXPECT_TRUE(monitor.OnAudit({seq, 0.0, confidence, plan.propensity, loss}).ok());
        }
      }
    };
    run_until_alarm(5000, false);
    if (monitor.alarmed()) continue;  // false, counted elsewhere
    run_until_alarm(5000, true);
    ASSERT_TRUE(monitor.alarmed()) << "run " << run;
    const double proposed = monitor.ProposedThreshold();
    EXPECT_GE(proposed, 0.6);
    close += proposed > 0.72 && proposed <= 0.9 ? 1 : 0;
    monitor.Restart(proposed);
    EXPECT_FALSE(monitor.alarmed());
    EXPECT_EQ(monitor.e_value(), 1.0);
    EXPECT_EQ(monitor.Risk().n_audits, 0);
    EXPECT_EQ(monitor.options().threshold, proposed);
    run_until_alarm(20000, true);
    if (monitor.alarmed()) {
      ++again;
      EXPECT_GE(monitor.ProposedThreshold(), proposed);
    }
  }
  std::printf("tightened to near the edge of what went wrong in %d of %d runs; alarmed again in %d\n", close, kRuns,
              again);
  EXPECT_GE(close, 0.7 * kRuns);
}

TEST(DriftMonitorTest, TheProposalIsTheSmallestThatHolds) {
  DriftMonitor monitor = Monitor({.level = 0.1, .threshold = 0.5});
  // Ten right ones at 0.9; five right and five wrong at 0.8, one of them of double weight; all wrong at 0.6.
  const auto audit = [&](double confidence, double loss, double propensity) {
    EXPECT_TRUE(monitor.OnAudit({.confidence = confidence, .propensity = propensity, .loss = loss}).ok());
  };
  for (int i = 0; i < 10; ++i) audit(0.9, 0.0, 0.1);
  for (int i = 0; i < 10; ++i) audit(0.8, i % 2, i == 1 ? 0.05 : 0.1);
  for (int i = 0; i < 60; ++i) audit(0.6, 1.0, 0.1);
  ASSERT_TRUE(monitor.alarmed());
  // The change is dated to the losses, after the ten right ones, of which the proposal knows nothing then: of the rest
  // no confidence is within the level.
  EXPECT_EQ(monitor.ProposedThreshold(), 1.0);
  for (int i = 0; i < 70; ++i) audit(0.9, i == 3, 0.1);
  // 1 of 70 at 0.9; with 0.8: at least 6 of 80 and fewer than 8 of 81 in weight, within a tenth; with 0.6: far above.
  EXPECT_EQ(monitor.ProposedThreshold(), 0.8);
}

TEST(DriftMonitorTest, TheWindowIsAsLongAsItSays) {
  DriftMonitor monitor = Monitor({.level = 0.1, .threshold = 0.2});
  const auto audit = [&](double confidence, double loss) {
    EXPECT_TRUE(monitor.OnAudit({.confidence = confidence, .propensity = 0.1, .loss = loss}).ok());
  };
  for (int i = 0; i < 200; ++i) audit(0.5, 1.0);
  ASSERT_TRUE(monitor.alarmed());
  EXPECT_EQ(monitor.ProposedThreshold(), 1.0);
  // As long as a loss of theirs is in the window, and as far as the risk is above the level with it.
  for (int i = 0; i < DriftMonitor::kWindow; ++i) audit(0.7, i % 20 == 0);
  EXPECT_EQ(monitor.ProposedThreshold(), 0.2) << "what went wrong has left the window";
}

// ---- Hostile values and replay --------------------------------------------------------------------------------------

TEST(DriftMonitorTest, RefusesWhatCannotBe) {
  const auto refused = [](DriftOptions options, const char* field) {
    EXPECT_THAT(std::string(DriftMonitor::Create(options).status().message()), HasSubstr(field));
  };
  for (const double bad : {kNaN, 0.0, -0.1, 0.51, kInfinity}) refused({.level = bad}, "level");
  for (const double bad : {kNaN, -0.1, 1.1}) refused({.threshold = bad}, "threshold");
  for (const double bad : {kNaN, 0.0, -0.1, 0.1001}) refused({.audit_share = bad}, "audit_share");
  for (const double bad : {kNaN, 0.0, -0.1, 0.06}) refused({.audit_share = 0.05, .min_share = bad}, "min_share");
  for (const double bad : {kNaN, 0.0, 1.0}) refused({.alpha = bad}, "alpha");

  DriftMonitor monitor = Monitor({.min_share = 0.05});
  const Audit good{.seq = 1, .at_s = 2.0, .confidence = 0.9, .propensity = 0.1, .loss = 0.5};
  ASSERT_TRUE(monitor.OnAudit(good).ok());
  const double before = monitor.e_value();
  const auto bad = [&](double Audit::*field, double value, const char* name) {
    Audit audit = good;
    audit.*field = value;
    const absl::Status status = monitor.OnAudit(audit);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(name));
  };
  for (const double value : {kNaN, 0.0, 0.049, 0.11, -0.1, kInfinity}) bad(&Audit::propensity, value, "propensity");
  for (const double value : {kNaN, -0.01, 1.01, kInfinity}) bad(&Audit::loss, value, "loss");
  for (const double value : {kNaN, -0.01, 1.01}) bad(&Audit::confidence, value, "confidence");
  for (const double value : {kNaN, kInfinity}) bad(&Audit::at_s, value, "time");
  EXPECT_EQ(monitor.e_value(), before);
  EXPECT_EQ(monitor.Risk().n_audits, 1);
  monitor.Restart(kNaN);
  EXPECT_EQ(monitor.options().threshold, 1.0) << "of an unknown threshold the most cautious";
}

TEST(DriftMonitorTest, CapitalStaysFiniteAndCopiesAgree) {
  DriftMonitor monitor = Monitor({.level = 1e-6});
  for (int i = 0; i < 100000; ++i)
    ASSERT_TRUE(monitor.OnAudit({.confidence = 0.9, .propensity = 0.1, .loss = 1.0}).ok());
  EXPECT_TRUE(std::isfinite(monitor.e_value()));
  EXPECT_EQ(monitor.e_value(), 1e100);
  DriftMonitor copy = monitor;
  for (int i = 0; i < 1000; ++i) {
    for (DriftMonitor* m : {&monitor, &copy}) {
      ASSERT_TRUE(m->OnAudit({.seq = 1, .confidence = 0.9, .propensity = 0.1, .loss = i % 3 * 0.5}).ok());
    }
    EXPECT_EQ(monitor.e_value(), copy.e_value());
    EXPECT_EQ(monitor.Risk().low, copy.Risk().low);
    EXPECT_EQ(monitor.ProposedThreshold(), copy.ProposedThreshold());
  }
  monitor = Monitor({.level = 0.5});
  for (int i = 0; i < 100000; ++i)
    ASSERT_TRUE(monitor.OnAudit({.confidence = 0.9, .propensity = 0.1, .loss = 0.0}).ok());
  EXPECT_GT(monitor.e_value(), 0.0) << "who has not started yet has lost nothing";
}

}  // namespace
}  // namespace updraft
