#include "common/routing/policy.h"

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace updraft {
namespace {

using ::testing::HasSubstr;

RoutingState Healthy(Stage stage, double confidence) {
  RoutingState state;
  state.stage = stage;
  state.has_upstream = true;
  state.confidence = confidence;
  state.n_prompt_tokens = 100;
  state.n_draft_tokens = stage == Stage::kBefore ? 0 : 20;
  state.expected_answer_tokens = 50;
  state.link.reachable = true;
  state.link.measured = true;
  state.link.rtt_s = 0.05;
  state.link.rtt_jitter_s = 0.01;
  state.link.samples = 10;
  state.load.known = true;
  state.load.decode_tokens_per_s = 100.0;
  state.local_tokens_per_s = 200.0;
  return state;
}

RoutingPolicy Policy(PolicyMode mode = PolicyMode::kAuto) {
  RoutingPolicy policy;
  policy.mode = mode;
  policy.confidence_threshold = 0.8;
  return policy;
}

TEST(PolicyTest, Table) {
  struct Case {
    std::string name;
    RoutingState state;
    RoutingPolicy policy;
    Decision decision;
    bool degraded;
    std::string reason;  // contained in it
  };
  std::vector<Case> cases;
  const auto add = [&](std::string name, RoutingState state, RoutingPolicy policy, Decision decision, bool degraded,
                       std::string reason) {
    cases.push_back({std::move(name), state, policy, decision, degraded, std::move(reason)});
  };
  using D = Decision;
  add("sure after", Healthy(Stage::kAfter, 0.91), Policy(), D::kKeep, false, "confidence 0.91 reaches 0.80");
  add("at the threshold", Healthy(Stage::kAfter, 0.8), Policy(), D::kKeep, false, "reaches");
  add("unsure after", Healthy(Stage::kAfter, 0.41), Policy(), D::kHandOver, false, "confidence 0.41 below 0.80");
  add("a little unsure during", Healthy(Stage::kDuring, 0.75), Policy(), D::kKeep, false, "reaches 0.70");
  add("very unsure during", Healthy(Stage::kDuring, 0.3), Policy(), D::kHandOver, false, "below 0.70");
  add("before", Healthy(Stage::kBefore, 0.0), Policy(), D::kKeep, false, "local draft first");
  add("local by choice", Healthy(Stage::kAfter, 0.0), Policy(PolicyMode::kLocal), D::kKeep, false, "policy 'local'");
  add("upstream by choice", Healthy(Stage::kBefore, 0.0), Policy(PolicyMode::kUpstream), D::kStreamUpstream, false,
      "policy 'upstream'");

  RoutingState alone = Healthy(Stage::kAfter, 0.1);
  alone.has_upstream = false;
  add("no upstream", alone, Policy(), D::kKeep, false, "no upstream configured");
  alone.stage = Stage::kBefore;
  add("no upstream though wanted", alone, Policy(PolicyMode::kUpstream), D::kKeep, true, "no upstream configured");
  alone.fits_locally = false;
  add("nobody", alone, Policy(), D::kDefer, true, "no tier can answer now");
  add("nobody, local by choice", alone, Policy(PolicyMode::kLocal), D::kDefer, true,
      "the prompt does not fit on this tier: no tier can answer now");

  RoutingState far = Healthy(Stage::kAfter, 0.1);
  far.hops = 3;
  add("room for one more hop", far, Policy(), D::kHandOver, false, "below");
  far.hops = 4;
  add("passed on too often", far, Policy(), D::kKeep, true, "4 tiers have passed the request on already");
  far.stage = Stage::kBefore;
  add("passed on too often, upstream by choice", far, Policy(PolicyMode::kUpstream), D::kKeep, true, "leads back");
  far.fits_locally = false;
  add("passed on too often, no model here", far, Policy(), D::kDefer, true, "leads back");

  RoutingState large = Healthy(Stage::kBefore, 0.0);
  large.fits_locally = false;
  add("does not fit here", large, Policy(), D::kStreamUpstream, false,
      "the prompt does not fit on this tier; upstream");

  RoutingState down = Healthy(Stage::kAfter, 0.1);
  down.link.consecutive_failures = 1;
  down.link.reachable = false;
  down.since_failure_s = 1.0;
  add("in backoff", down, Policy(), D::kKeep, true, "upstream unreachable (1 failed, tried again after 2.0 s)");
  down.since_failure_s = 2.5;
  add("backoff over", down, Policy(), D::kHandOver, false, "below");
  down.link.consecutive_failures = 3;
  add("backoff doubles", down, Policy(), D::kKeep, true, "after 8.0 s");
  down.stage = Stage::kBefore;
  add("in backoff, upstream by choice", down, Policy(PolicyMode::kUpstream), D::kKeep, true, "answered locally");
  down.fits_locally = false;
  add("in backoff, does not fit here", down, Policy(), D::kDefer, true, "unreachable");

  RoutingState untried = Healthy(Stage::kAfter, 0.1);
  untried.link = LinkEstimate{};
  untried.load = UpstreamLoad{};
  add("an untried link is tried", untried, Policy(), D::kHandOver, false, "upstream in about");

  RoutingState busy = Healthy(Stage::kAfter, 0.1);
  busy.load.predicted_wait_s = 30.0;
  add("upstream overloaded", busy, Policy(), D::kKeep, true, "more than the 10.00 s allowed");

  RoutingState hurried = Healthy(Stage::kAfter, 0.1);
  hurried.deadline_s = 0.3;
  add("upstream too late", hurried, Policy(), D::kKeep, true, "0.30 s are left");
  hurried.deadline_s = 2.0;
  add("upstream in time", hurried, Policy(), D::kHandOver, false, "below");

  RoutingState slow = Healthy(Stage::kBefore, 0.0);
  slow.local_tokens_per_s = 5.0;  // 50 tokens: 10 s
  slow.deadline_s = 2.0;
  add("local too slow, upstream in time", slow, Policy(), D::kStreamUpstream, false, "10.00 s of 2.00 s left");
  slow.load.predicted_wait_s = 5.0;
  add("both too slow", slow, Policy(), D::kKeep, true, "are left");

  RoutingPolicy sticky = Policy();
  sticky.hysteresis = 0.05;
  RoutingState edge = Healthy(Stage::kAfter, 0.77);
  add("hysteresis after a kept one", edge, sticky, D::kKeep, false, "reaches 0.75");
  edge.previous = Decision::kHandOver;
  edge.confidence = 0.83;
  add("hysteresis after a hand-over", edge, sticky, D::kHandOver, false, "below 0.85");

  RoutingState nonsense = Healthy(Stage::kAfter, std::numeric_limits<double>::quiet_NaN());
  add("no number is no confidence", nonsense, Policy(), D::kHandOver, false, "confidence 0.00");

  for (const Case& c : cases) {
    const RoutingDecision got = Decide(c.state, c.policy);
    EXPECT_STREQ(DecisionName(got.decision), DecisionName(c.decision)) << c.name << ": " << got.reason;
    EXPECT_EQ(got.degraded, c.degraded) << c.name << ": " << got.reason;
    EXPECT_THAT(got.reason, HasSubstr(c.reason)) << c.name;
  }
}

TEST(PolicyTest, PredictedTimeAddsUp) {
  RoutingState state = Healthy(Stage::kAfter, 0.5);
  state.link.goodput_up_bytes_per_s = 1000.0;
  state.load.predicted_wait_s = 0.25;
  // 200 + 3 * (100 + 20) bytes at 1,000 B/s, RTT and one deviation, the queue, 50 tokens at 100 a second.
  EXPECT_NEAR(PredictUpstreamSeconds(state, Policy()), 0.56 + 0.06 + 0.25 + 0.5, 1e-9);
  state.link = LinkEstimate{};
  state.load = UpstreamLoad{};
  EXPECT_NEAR(PredictUpstreamSeconds(state, Policy()), 0.1 + 1.0, 1e-9);
}

TEST(PolicyTest, BackoffDoublesToAMinute) {
  const RoutingPolicy policy;
  EXPECT_EQ(BackoffSeconds(0, policy), 0.0);
  EXPECT_EQ(BackoffSeconds(1, policy), 2.0);
  EXPECT_EQ(BackoffSeconds(2, policy), 4.0);
  EXPECT_EQ(BackoffSeconds(5, policy), 32.0);
  EXPECT_EQ(BackoffSeconds(6, policy), 60.0);
  EXPECT_EQ(BackoffSeconds(std::numeric_limits<int>::max(), policy), 60.0);
}

TEST(PolicyTest, ValidateNamesTheField) {
  EXPECT_TRUE(RoutingPolicy{}.Validate().ok());
  RoutingPolicy policy;
  policy.confidence_threshold = 1.5;
  EXPECT_THAT(policy.Validate().ToString(), HasSubstr("confidence_threshold"));
  policy = {};
  policy.assumed_upstream_tokens_per_s = 0.0;
  EXPECT_THAT(policy.Validate().ToString(), HasSubstr("assumed_upstream_tokens_per_s"));
  policy = {};
  policy.max_upstream_wait_s = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(policy.Validate().ToString(), HasSubstr("max_upstream_wait_s"));
}

// States with every kind of value in every field, impossible ones included.
class StateMaker {
 public:
  explicit StateMaker(uint64_t seed) : rng_(seed) {}

  double Number() {
    static constexpr double kOdd[] = {0.0,
                                      -1.0,
                                      1e9,
                                      -1e9,
                                      std::numeric_limits<double>::quiet_NaN(),
                                      std::numeric_limits<double>::infinity(),
                                      -std::numeric_limits<double>::infinity()};
    if (Below(4) == 0) return kOdd[Below(7)];
    return std::uniform_real_distribution<double>(0.0, 3.0)(rng_);
  }
  int Count() { return Below(10) == 0 ? std::numeric_limits<int>::min() / 4 : Below(500); }
  int Below(int n) { return static_cast<int>(rng_() % n); }

  RoutingState State() {
    RoutingState s;
    s.stage = static_cast<Stage>(Below(3));
    s.has_upstream = Below(4) != 0;
    s.fits_locally = Below(6) != 0;
    s.confidence = Number();
    s.hops = Below(3) == 0 ? Count() : 0;
    s.n_prompt_tokens = Count();
    s.n_draft_tokens = Count();
    s.expected_answer_tokens = Count();
    s.link.reachable = Below(2) == 0;
    s.link.measured = Below(3) != 0;
    s.link.rtt_s = Number();
    s.link.rtt_jitter_s = Number();
    s.link.goodput_up_bytes_per_s = Below(2) == 0 ? Number() : 1e5;
    s.link.consecutive_failures = Below(3) == 0 ? Below(40) : 0;
    s.load.known = Below(2) == 0;
    s.load.predicted_wait_s = Number();
    s.load.decode_tokens_per_s = Number() * 50.0;
    if (Below(2) == 0) s.deadline_s = Number();
    s.local_tokens_per_s = Number() * 50.0;
    s.previous = static_cast<Decision>(Below(5));
    s.since_failure_s = Number() * 10.0;
    return s;
  }
  RoutingPolicy Policy() {
    RoutingPolicy p;
    p.mode = static_cast<PolicyMode>(Below(3));
    p.confidence_threshold = Below(11) / 10.0;
    p.hysteresis = Below(3) / 10.0;
    return p;
  }

 private:
  std::mt19937_64 rng_;
};

bool SendsUpstream(Decision d) {
  return d == Decision::kHandOver || d == Decision::kStreamUpstream || d == Decision::kVerify;
}

TEST(PolicyTest, PropertiesHoldForAnyState) {
  constexpr uint64_t kSeed = 7;
  StateMaker maker(kSeed);
  int sent = 0;
  for (int i = 0; i < 200000; ++i) {
    const RoutingState state = maker.State();
    const RoutingPolicy policy = maker.Policy();
    const RoutingDecision got = Decide(state, policy);
    SCOPED_TRACE(::testing::Message() << "seed " << kSeed << ", state " << i << ": " << DecisionName(got.decision)
                                      << ", " << got.reason);
    ASSERT_FALSE(got.reason.empty());
    if (policy.mode == PolicyMode::kLocal) {
      ASSERT_FALSE(SendsUpstream(got.decision));
    }
    if (!state.has_upstream) {
      ASSERT_FALSE(SendsUpstream(got.decision));
    }
    if (SendsUpstream(got.decision)) {
      ++sent;
      ASSERT_LT(state.hops, policy.max_hops);
      ASSERT_LE(got.predicted_upstream_s, policy.max_upstream_wait_s);
      if (state.deadline_s.has_value()) {
        ASSERT_LE(got.predicted_upstream_s, *state.deadline_s);
      }
      if (state.link.consecutive_failures > 0) {
        ASSERT_GE(state.since_failure_s, BackoffSeconds(state.link.consecutive_failures, policy));
      }
      ASSERT_FALSE(got.degraded);
    }
    if (got.decision == Decision::kDefer) {
      ASSERT_FALSE(state.fits_locally);
    }
    if (state.fits_locally) {
      ASSERT_TRUE(got.decision != Decision::kStreamUpstream || state.stage == Stage::kBefore);
      ASSERT_TRUE(got.decision != Decision::kHandOver || state.stage != Stage::kBefore);
    } else {
      ASSERT_NE(got.decision, Decision::kKeep);  // there is nothing to keep
    }
    // Pure: the same state again gives the same answer.
    const RoutingDecision again = Decide(state, policy);
    ASSERT_EQ(again.decision, got.decision);
    ASSERT_EQ(again.reason, got.reason);
  }
  EXPECT_GT(sent, 1000) << "the states reach too few decisions to show anything";
}

TEST(PolicyTest, MoreConfidenceNeverTurnsKeepIntoHandOver) {
  StateMaker maker(11);
  int turned = 0;
  for (int i = 0; i < 20000; ++i) {
    RoutingState state = maker.State();
    const RoutingPolicy policy = maker.Policy();
    bool kept = false;
    for (double confidence = 0.0; confidence <= 1.0; confidence += 0.05) {
      state.confidence = confidence;
      const bool keeps = Decide(state, policy).decision == Decision::kKeep;
      ASSERT_FALSE(kept && !keeps) << "state " << i << " at confidence " << confidence;
      turned += keeps && !kept && confidence > 0.0 ? 1 : 0;
      kept = keeps;
    }
  }
  EXPECT_GT(turned, 100) << "confidence never mattered";
}

}  // namespace
}  // namespace updraft
