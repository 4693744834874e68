#include "common/routing/choose.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/routing/policy_oracle.h"
#include "tests/common/routing/random_states.h"

namespace updraft {
namespace {

using ::testing::HasSubstr;

Situation Healthy(Stage stage, double confidence) {
  Situation situation;
  situation.stage = stage;
  situation.n_upstreams = 1;
  situation.evidence.confidence = confidence;
  situation.request.n_prompt_tokens = 100;
  situation.request.n_draft_tokens = stage == Stage::kBefore ? 0 : 20;
  situation.local.answer_tokens = 50;
  UpstreamFacts& up = situation.upstreams[0];
  up.link.reachable = true;
  up.link.measured = true;
  up.link.rtt_s = 0.05;
  up.link.rtt_jitter_s = 0.01;
  up.link.samples = 10;
  up.load.known = true;
  up.load.predicted_wait_s = 0.0;
  up.load.decode_tokens_per_s = 100.0;
  situation.local.tokens_per_s = 200.0;
  return situation;
}

RoutingPolicy Policy(PolicyMode mode = PolicyMode::kAuto) {
  RoutingPolicy policy;
  policy.mode = mode;
  policy.confidence_threshold = 0.8;
  return policy;
}

const Option& OptionOf(const DecisionRecord& record, Way way) {
  for (uint8_t i = 0; i < record.n_options; ++i) {
    if (record.options[i].way == way) return record.options[i];
  }
  ADD_FAILURE() << "no such option";
  return record.options[0];
}

// 50 tokens at 200/s, whatever there is to do before them.
TEST(ChooseTest, ALocalAnswerWaitsForItsTurnAndReadsItsPrompt) {
  Situation situation = Healthy(Stage::kBefore, 0.0);
  const auto local_s = [&situation] { return OptionOf(Choose(situation, Policy()), Way::kLocal).total_s; };
  EXPECT_DOUBLE_EQ(local_s(), 0.25);
  situation.request.local_wait_s = 2.0;
  EXPECT_DOUBLE_EQ(local_s(), 2.25);
  situation.local.prefill_tokens_per_s = 400.0;  // of a prompt of 100
  EXPECT_DOUBLE_EQ(local_s(), 2.5);
  for (const double odd : {kUnknown, -1.0, kNever}) {
    situation.request.local_wait_s = odd;
    situation.local.prefill_tokens_per_s = odd;
    EXPECT_DOUBLE_EQ(local_s(), 0.25) << odd;
  }
  situation = Healthy(Stage::kDuring, 0.9);
  situation.request.local_wait_s = 2.0;
  situation.local.prefill_tokens_per_s = 400.0;
  EXPECT_DOUBLE_EQ(local_s(), 0.15) << "30 tokens are left, and what came before them is over";
}

TEST(ChooseTest, ADeadlineThatTheQueueWouldMissIsSeenBeforeItIsMissed) {
  Situation situation = Healthy(Stage::kBefore, 0.0);
  situation.request.deadline_s = 1.0;
  EXPECT_EQ(Choose(situation, Policy()).reason, ReasonCode::kDraftFirst);
  situation.request.local_wait_s = 1.0;
  const DecisionRecord record = Choose(situation, Policy());
  EXPECT_EQ(record.reason, ReasonCode::kLocalTooSlow);
  EXPECT_EQ(DecisionOf(record), Decision::kStreamUpstream) << "upstream is in time";
}

// The words of a request may promise that upstream would do better; nobody drafts then, where upstream can be asked.
TEST(ChooseTest, AnExpectedGainGoesUpUndrafted) {
  RoutingPolicy policy = Policy();
  Situation situation = Healthy(Stage::kBefore, 0.0);
  situation.evidence.gain = 0.4;
  EXPECT_EQ(Choose(situation, policy).reason, ReasonCode::kDraftFirst) << "the policy does not ask for it";
  policy.router_gain = 0.4;
  const DecisionRecord record = Choose(situation, policy);
  EXPECT_EQ(record.reason, ReasonCode::kExpectedGain);
  EXPECT_EQ(DecisionOf(record), Decision::kStreamUpstream);
  EXPECT_FALSE(record.degraded);
  EXPECT_THAT(Explain(record), HasSubstr("expected gain 0.40"));
  for (const double less : {0.39, -1.0, kUnknown}) {
    situation.evidence.gain = less;
    EXPECT_EQ(Choose(situation, policy).reason, ReasonCode::kDraftFirst) << less;
  }
  situation.evidence.gain = 0.9;
  situation.upstreams[0].since_failure_s = 0.1;
  situation.upstreams[0].link.reachable = false;
  situation.upstreams[0].link.consecutive_failures = 1;
  EXPECT_EQ(Choose(situation, policy).reason, ReasonCode::kDraftFirst) << "it is away";
  situation = Healthy(Stage::kAfter, 0.99);
  situation.evidence.gain = 0.9;
  EXPECT_EQ(Choose(situation, policy).reason, ReasonCode::kConfident) << "the draft says more than the words";
  // What does not ask for it is the policy that it was.
  EXPECT_NE(Fingerprint(policy), Fingerprint(Policy()));
}

TEST(ChooseTest, UpstreamReadsThePromptToo) {
  Situation situation = Healthy(Stage::kBefore, 0.0);
  const auto upstream_s = [&situation] { return OptionOf(Choose(situation, Policy()), Way::kStreamUp).total_s; };
  const double without_s = upstream_s();
  situation.upstreams[0].load.prefill_tokens_per_s = 50.0;
  EXPECT_DOUBLE_EQ(upstream_s(), without_s + 2.0);
  situation.request.deadline_s = without_s + 1.0;
  EXPECT_FALSE(OptionOf(Choose(situation, Policy()), Way::kStreamUp).feasible());
  situation.upstreams[0].load.known = false;
  EXPECT_LT(upstream_s(), without_s + 1.0) << "nobody knows";
}

TEST(ChooseTest, Table) {
  struct Case {
    std::string name;
    Situation state;
    RoutingPolicy policy;
    Decision decision;
    bool degraded;
    std::string reason;  // contained in it
  };
  std::vector<Case> cases;
  const auto add = [&](std::string name, Situation state, RoutingPolicy policy, Decision decision, bool degraded,
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

  Situation alone = Healthy(Stage::kAfter, 0.1);
  alone.n_upstreams = 0;
  add("no upstream", alone, Policy(), D::kKeep, false, "no upstream configured");
  alone.stage = Stage::kBefore;
  add("no upstream though wanted", alone, Policy(PolicyMode::kUpstream), D::kKeep, true, "no upstream configured");
  alone.request.fits_locally = false;
  add("nobody", alone, Policy(), D::kDefer, true, "no tier can answer now");
  add("nobody, local by choice", alone, Policy(PolicyMode::kLocal), D::kDefer, true,
      "the prompt does not fit on this tier: no tier can answer now");

  Situation far = Healthy(Stage::kAfter, 0.1);
  far.request.hops = 3;
  add("room for one more hop", far, Policy(), D::kHandOver, false, "below");
  far.request.hops = 4;
  add("passed on too often", far, Policy(), D::kKeep, true, "4 tiers have passed the request on already");
  far.stage = Stage::kBefore;
  add("passed on too often, upstream by choice", far, Policy(PolicyMode::kUpstream), D::kKeep, true, "leads back");
  far.request.fits_locally = false;
  add("passed on too often, no model here", far, Policy(), D::kDefer, true, "leads back");

  Situation large = Healthy(Stage::kBefore, 0.0);
  large.request.fits_locally = false;
  add("does not fit here", large, Policy(), D::kStreamUpstream, false,
      "the prompt does not fit on this tier; upstream");

  Situation down = Healthy(Stage::kAfter, 0.1);
  down.upstreams[0].link.consecutive_failures = 1;
  down.upstreams[0].link.reachable = false;
  down.upstreams[0].since_failure_s = 1.0;
  add("in backoff", down, Policy(), D::kKeep, true, "upstream unreachable (1 failed, tried again after 2.0 s)");
  down.upstreams[0].since_failure_s = 2.5;
  add("backoff over", down, Policy(), D::kHandOver, false, "below");
  down.upstreams[0].link.consecutive_failures = 3;
  add("backoff doubles", down, Policy(), D::kKeep, true, "after 8.0 s");
  down.stage = Stage::kBefore;
  add("in backoff, upstream by choice", down, Policy(PolicyMode::kUpstream), D::kKeep, true, "answered locally");
  down.request.fits_locally = false;
  add("in backoff, does not fit here", down, Policy(), D::kDefer, true, "unreachable");

  Situation untried = Healthy(Stage::kAfter, 0.1);
  untried.upstreams[0].link = LinkEstimate{};
  untried.upstreams[0].load = UpstreamLoad{};
  add("an untried link is tried", untried, Policy(), D::kHandOver, false, "upstream in about");

  Situation busy = Healthy(Stage::kAfter, 0.1);
  busy.upstreams[0].load.predicted_wait_s = 30.0;
  add("upstream's queue is long", busy, Policy(), D::kKeep, true, "more than the 10.00 s allowed");
  busy.upstreams[0].busy_s = 0.5;
  add("upstream overloaded", busy, Policy(), D::kKeep, true, "left alone for another 0.50 s");

  Situation hurried = Healthy(Stage::kAfter, 0.1);
  hurried.request.deadline_s = 0.3;
  add("upstream too late", hurried, Policy(), D::kKeep, true, "0.30 s are left");
  hurried.request.deadline_s = 2.0;
  add("upstream in time", hurried, Policy(), D::kHandOver, false, "below");

  Situation slow = Healthy(Stage::kBefore, 0.0);
  slow.local.tokens_per_s = 5.0;  // 50 tokens: 10 s
  slow.request.deadline_s = 2.0;
  add("local too slow, upstream in time", slow, Policy(), D::kStreamUpstream, false, "10.00 s of 2.00 s left");
  slow.upstreams[0].load.predicted_wait_s = 5.0;
  add("both too slow", slow, Policy(), D::kKeep, true, "are left");

  RoutingPolicy sticky = Policy();
  sticky.hysteresis = 0.05;
  Situation edge = Healthy(Stage::kAfter, 0.77);
  add("hysteresis after a kept one", edge, sticky, D::kKeep, false, "reaches 0.75");
  edge.local.previous = Decision::kHandOver;
  edge.evidence.confidence = 0.83;
  add("hysteresis after a hand-over", edge, sticky, D::kHandOver, false, "below 0.85");

  Situation nonsense = Healthy(Stage::kAfter, std::numeric_limits<double>::quiet_NaN());
  add("no number is no confidence", nonsense, Policy(), D::kHandOver, false, "confidence 0.00");

  for (const Case& c : cases) {
    const DecisionRecord got = Choose(c.state, c.policy);
    const std::string reason = Explain(got);
    EXPECT_EQ(NameOf(DecisionOf(got)), NameOf(c.decision)) << c.name << ": " << reason;
    EXPECT_EQ(got.degraded, c.degraded) << c.name << ": " << reason;
    EXPECT_THAT(reason, HasSubstr(c.reason)) << c.name;
  }
}

TEST(ChooseTest, PredictedTimeAddsUp) {
  Situation state = Healthy(Stage::kAfter, 0.5);
  state.upstreams[0].link.goodput_up_bytes_per_s = 1000.0;
  state.upstreams[0].load.predicted_wait_s = 0.25;
  // 200 + 3 * (100 + 20) bytes at 1,000 B/s, RTT and one deviation, the queue, 50 tokens at 100 a second.
  EXPECT_NEAR(BestUpstreamOption(Choose(state, Policy()))->total_s, 0.56 + 0.06 + 0.25 + 0.5, 1e-9);
  state.upstreams[0].link = LinkEstimate{};
  state.upstreams[0].load = UpstreamLoad{};
  EXPECT_NEAR(BestUpstreamOption(Choose(state, Policy()))->total_s, 0.1 + 1.0, 1e-9);
}

// ---- Against what came before ---------------------------------------------------------------------------------------

bool SameNumber(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

TEST(ChooseTest, DecidesAndExplainsAsTheOracleDoes) {
  constexpr uint64_t kSeed = 5;
  constexpr int kStates = 300000;
  StateMaker maker(kSeed);
  std::map<std::string, int> seen;
  for (int i = 0; i < kStates; ++i) {
    const oracle::RoutingState state = maker.State();
    const RoutingPolicy policy = maker.Policy();
    const oracle::RoutingDecision expected = oracle::Decide(state, policy);
    const DecisionRecord got = Choose(oracle::SituationOf(state), policy);
    SCOPED_TRACE(::testing::Message() << "seed " << kSeed << ", state " << i << ": " << expected.reason);
    ASSERT_EQ(NameOf(DecisionOf(got)), NameOf(expected.decision));
    ASSERT_EQ(got.degraded, expected.degraded);
    ASSERT_EQ(Explain(got), expected.reason);
    const Option* asking = BestUpstreamOption(got);
    ASSERT_EQ(asking != nullptr, state.has_upstream);
    // Where nothing may leave the tier the oracle predicts nothing.
    if (asking != nullptr && policy.mode != PolicyMode::kLocal) {
      ASSERT_TRUE(SameNumber(asking->total_s, expected.predicted_upstream_s))
          << asking->total_s << " against " << expected.predicted_upstream_s;
    }
    ++seen[std::string(NameOf(got.reason)) + (asking != nullptr ? " " + std::string(NameOf(asking->obstacle)) : "")];
  }
  EXPECT_GT(seen.size(), 30u) << "the states reach too few decisions to show anything";
}

// An answer that begins with a draft is held back exactly when one without any confidence would be handed over.
TEST(ChooseTest, DraftsFirstWhereAHopelessDraftWouldBeHandedOver) {
  constexpr uint64_t kSeed = 6;
  StateMaker maker(kSeed);
  int held = 0, streamed = 0;
  for (int i = 0; i < 200000; ++i) {
    oracle::RoutingState state = maker.State();
    state.stage = Stage::kBefore;
    const RoutingPolicy policy = maker.Policy();
    const DecisionRecord got = Choose(oracle::SituationOf(state), policy);
    if (DecisionOf(got) != Decision::kKeep) continue;
    const oracle::RoutingDecision before = oracle::Decide(state, policy);
    const bool may_hand_over = state.has_upstream && policy.mode == PolicyMode::kAuto && !before.degraded;
    state.stage = Stage::kAfter;
    state.confidence = 0.0;
    const bool expected = may_hand_over && oracle::Decide(state, policy).decision == Decision::kHandOver;
    SCOPED_TRACE(::testing::Message() << "seed " << kSeed << ", state " << i << ": " << Explain(got));
    ASSERT_EQ(got.chosen().way == Way::kDraftThenDecide, expected);
    ASSERT_EQ(got.reason == ReasonCode::kDraftFirst, may_hand_over);
    ++(expected ? held : streamed);
  }
  EXPECT_GT(held, 1000);
  EXPECT_GT(streamed, 1000);
}

// ---- What is promised for any situation -----------------------------------------------------------------------------

bool SendsUpstream(Decision d) {
  return d == Decision::kHandOver || d == Decision::kStreamUpstream || d == Decision::kVerify;
}

Situation AnySituation(StateMaker& maker) {
  Situation situation = oracle::SituationOf(maker.State());
  situation.request.asked = static_cast<PolicyMode>(maker.Below(3));
  if (situation.n_upstreams == 0) return situation;
  situation.n_upstreams = static_cast<uint8_t>(1 + maker.Below(kMaxUpstreams));
  for (int up = 0; up < situation.n_upstreams; ++up) {
    const oracle::RoutingState state = maker.State();
    UpstreamFacts& facts = situation.upstreams[static_cast<size_t>(up)];
    facts.link = state.link;
    facts.load = state.load;
    facts.since_failure_s = state.since_failure_s;
    if (maker.Below(4) == 0) facts.busy_s = maker.Number();
  }
  return situation;
}

void CheckWhatIsSent(const DecisionRecord& record, const RoutingPolicy& policy) {
  const Situation& situation = record.situation;
  const Option& chosen = record.chosen();
  ASSERT_TRUE(chosen.feasible());
  ASSERT_FALSE(record.degraded);
  ASSERT_LT(chosen.upstream, situation.n_upstreams);
  ASSERT_NE(EffectiveMode(policy.mode, situation.request.asked), PolicyMode::kLocal);
  ASSERT_LT(situation.request.hops, policy.max_hops);
  ASSERT_LE(chosen.total_s, policy.max_upstream_wait_s);
  ASSERT_LE(chosen.total_s, situation.request.deadline_s);
  const UpstreamFacts& facts = situation.upstreams[chosen.upstream];
  if (facts.link.consecutive_failures > 0) {
    ASSERT_GE(facts.since_failure_s, BackoffSeconds(facts.link.consecutive_failures, policy));
  }
  ASSERT_LE(facts.busy_s, 0.0);
  for (int i = 0; i < record.n_options; ++i) {
    const Option& other = record.options[static_cast<size_t>(i)];
    if (other.way == chosen.way && other.feasible()) {
      ASSERT_FALSE(other.total_s < chosen.total_s) << "a sooner one was passed over";
    }
  }
}

TEST(ChooseTest, PropertiesHoldForAnySituation) {
  constexpr uint64_t kSeed = 7;
  StateMaker maker(kSeed);
  int sent = 0, others = 0;
  for (int i = 0; i < 200000; ++i) {
    const Situation situation = AnySituation(maker);
    const RoutingPolicy policy = maker.Policy();
    const DecisionRecord got = Choose(situation, policy);
    const Decision decision = DecisionOf(got);
    const bool fits = situation.request.fits_locally;
    SCOPED_TRACE(::testing::Message() << "seed " << kSeed << ", situation " << i << ": " << NameOf(decision) << ", "
                                      << Explain(got));
    ASSERT_FALSE(Explain(got).empty());
    ASSERT_LT(got.choice, got.n_options);
    if (SendsUpstream(decision)) {
      CheckWhatIsSent(got, policy);
      if (HasFatalFailure()) return;
      ++sent;
      others += got.chosen().upstream > 0 ? 1 : 0;
    }
    if (fits) {
      ASSERT_NE(decision, Decision::kDefer);
      ASSERT_TRUE(decision != Decision::kStreamUpstream || situation.stage == Stage::kBefore);
      ASSERT_TRUE(decision != Decision::kHandOver || situation.stage != Stage::kBefore);
    } else {
      ASSERT_NE(decision, Decision::kKeep);  // there is nothing to keep
    }
    // Where what was chosen is obstructed, so is all else but deferring.
    if (!got.chosen().feasible()) {
      for (int j = 0; j < got.n_options; ++j) {
        const Option& option = got.options[static_cast<size_t>(j)];
        ASSERT_TRUE(option.way == Way::kDefer || !option.feasible()) << NameOf(option.way);
      }
    }
    // Pure: the same situation again gives the same answer.
    const DecisionRecord again = Choose(situation, policy);
    ASSERT_EQ(again.choice, got.choice);
    ASSERT_EQ(Explain(again), Explain(got));
  }
  EXPECT_GT(sent, 1000) << "the situations reach too few decisions to show anything";
  EXPECT_GT(others, 500) << "no upstream but the first was ever asked";
}

TEST(ChooseTest, MoreConfidenceNeverTurnsKeepIntoHandOver) {
  constexpr uint64_t kSeed = 11;
  StateMaker maker(kSeed);
  int turned = 0;
  for (int i = 0; i < 20000; ++i) {
    Situation situation = AnySituation(maker);
    const RoutingPolicy policy = maker.Policy();
    bool kept = false;
    for (double confidence = 0.0; confidence <= 1.0; confidence += 0.05) {
      situation.evidence.confidence = confidence;
      const bool keeps = DecisionOf(Choose(situation, policy)) == Decision::kKeep;
      ASSERT_FALSE(kept && !keeps) << "seed " << kSeed << ", situation " << i << " at confidence " << confidence;
      turned += keeps && !kept && confidence > 0.0 ? 1 : 0;
      kept = keeps;
    }
  }
  EXPECT_GT(turned, 100) << "confidence never mattered";
}

// ---- Options ------------------------------------------------------------------------------------------------------

TEST(ChooseTest, TheCallersWishStaysWithinWhatThePolicyAllows) {
  using M = PolicyMode;
  EXPECT_EQ(EffectiveMode(M::kAuto, M::kAuto), M::kAuto);
  EXPECT_EQ(EffectiveMode(M::kAuto, M::kUpstream), M::kUpstream);
  EXPECT_EQ(EffectiveMode(M::kUpstream, M::kAuto), M::kUpstream);
  EXPECT_EQ(EffectiveMode(M::kUpstream, M::kLocal), M::kLocal);
  EXPECT_EQ(EffectiveMode(M::kLocal, M::kUpstream), M::kLocal) << "privacy is not the caller's to lift";
}

TEST(ChooseTest, UnknownNumbersAreNoNumbers) {
  const DecisionRecord record = Choose(Healthy(Stage::kBefore, kUnknown), Policy());
  for (int i = 0; i < record.n_options; ++i) {
    const Option& option = record.options[static_cast<size_t>(i)];
    EXPECT_TRUE(std::isnan(option.money) && std::isnan(option.joules) && std::isnan(option.p_wrong)) << i;
  }
  Situation judged = Healthy(Stage::kAfter, 0.9);
  judged.evidence.p_right = 0.75;
  const DecisionRecord kept = Choose(judged, Policy());
  EXPECT_EQ(kept.chosen().way, Way::kLocal);
  EXPECT_EQ(kept.chosen().p_wrong, 0.25);
  EXPECT_EQ(kept.chosen().bytes_up, 0.0);
}

TEST(ChooseTest, EveryWayIsAnOptionWithWhatStandsAgainstIt) {
  const auto obstacles = [](const DecisionRecord& record) {
    std::string text;
    for (int i = 0; i < record.n_options; ++i) {
      const Option& option = record.options[static_cast<size_t>(i)];
      text += (i == 0 ? "" : " ") + std::string(NameOf(option.way)) + ":" + std::string(NameOf(option.obstacle));
    }
    return text;
  };
  Situation before = Healthy(Stage::kBefore, kUnknown);
  EXPECT_EQ(obstacles(Choose(before, Policy())), "local:none draft-then-decide:none stream-up:none defer:none");
  EXPECT_EQ(obstacles(Choose(before, Policy(PolicyMode::kUpstream))),
            "local:none draft-then-decide:policy-upstream stream-up:none defer:none");
  EXPECT_EQ(obstacles(Choose(before, Policy(PolicyMode::kLocal))),
            "local:none draft-then-decide:policy-local stream-up:policy-local defer:none");
  before.request.deadline_s = 0.1;
  EXPECT_EQ(obstacles(Choose(before, Policy())),
            "local:local-too-slow draft-then-decide:local-too-slow stream-up:too-late defer:none");
  before.request.fits_locally = false;
  EXPECT_EQ(obstacles(Choose(before, Policy())),
            "local:does-not-fit draft-then-decide:does-not-fit stream-up:too-late defer:none");
  const DecisionRecord after = Choose(Healthy(Stage::kAfter, 0.9), Policy());
  EXPECT_EQ(obstacles(after), "local:none draft-then-decide:none defer:none");
  EXPECT_EQ(after.options[0].total_s, 0.0) << "the draft is there";
  EXPECT_EQ(Choose(Healthy(Stage::kDuring, 0.9), Policy()).options[0].total_s, 30.0 / 200.0) << "30 tokens are left";
}

TEST(ChooseTest, TheSoonerUpstreamIsAskedAndTheOtherWhereItCannotBe) {
  Situation situation = Healthy(Stage::kAfter, 0.1);
  situation.n_upstreams = 2;
  situation.upstreams[1] = situation.upstreams[0];
  EXPECT_EQ(Choose(situation, Policy()).chosen().upstream, 0) << "the first at a tie";
  situation.upstreams[0].load.predicted_wait_s = 1.0;
  EXPECT_EQ(Choose(situation, Policy()).chosen().upstream, 1);
  situation.upstreams[1].link.consecutive_failures = 1;
  situation.upstreams[1].since_failure_s = 0.5;
  EXPECT_EQ(Choose(situation, Policy()).chosen().upstream, 0);
  situation.stage = Stage::kBefore;
  const DecisionRecord before = Choose(situation, Policy());
  EXPECT_EQ(before.chosen().way, Way::kDraftThenDecide);
  EXPECT_EQ(before.chosen().upstream, 0);
}

TEST(ChooseTest, NothingIsSentWhileAnUpstreamAskedToBeLeftAlone) {
  Situation situation = Healthy(Stage::kAfter, 0.1);
  for (const double busy_s : {1e-6, 0.08, 60.0, kUnknown}) {
    situation.upstreams[0].busy_s = busy_s;
    const DecisionRecord record = Choose(situation, Policy());
    EXPECT_EQ(DecisionOf(record), Decision::kKeep) << busy_s;
    EXPECT_TRUE(record.degraded) << busy_s;
    EXPECT_EQ(BestUpstreamOption(record)->obstacle, ReasonCode::kBusy) << busy_s;
  }
  situation.upstreams[0].busy_s = 0.0;
  EXPECT_EQ(DecisionOf(Choose(situation, Policy())), Decision::kHandOver);
}

// Whatever a damaged log holds: numbers at their limits overflow nothing.
TEST(ChooseTest, ExtremeCountsAreNoTrouble) {
  Situation situation = Healthy(Stage::kDuring, 0.1);
  for (const int n : {std::numeric_limits<int>::max(), std::numeric_limits<int>::min()}) {
    situation.request.n_prompt_tokens = situation.request.n_draft_tokens = situation.request.max_tokens = n;
    for (const double tokens : {1e300, -1e300, kNever, -kNever, kUnknown}) {
      situation.local.answer_tokens = tokens;
      EXPECT_FALSE(Explain(Choose(situation, Policy())).empty());
    }
  }
}

}  // namespace
}  // namespace updraft
