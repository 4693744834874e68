#include "common/routing/session.h"

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <type_traits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/count_allocations.h"
#include "tests/common/routing/random_session.h"

namespace updraft {
namespace {

using ::testing::HasSubstr;

static_assert(std::is_trivially_copyable_v<RoutingSession>);
static_assert(std::is_trivially_copyable_v<DecisionRecord>);

SessionOptions OneUpstream() {
  SessionOptions options;
  options.policy.confidence_threshold = 0.8;
  options.n_upstreams = 1;
  options.look_interval_s = 5.0;
  return options;
}

Situation Draft(double now_s, double confidence) {
  Situation situation;
  situation.stage = Stage::kAfter;
  situation.now_s = now_s;
  situation.request.key = RequestKey("r");
  situation.request.n_prompt_tokens = 100;
  situation.request.n_draft_tokens = 20;
  situation.evidence.confidence = confidence;
  return situation;
}

LinkSample RoundTrip(double now_s, double rtt_s) {
  LinkSample sample;
  sample.time_s = now_s;
  sample.first_byte_s = rtt_s;
  return sample;
}

bool HandsOver(RoutingSession& session, double now_s) {
  return DecisionOf(session.Decide(Draft(now_s, 0.0))) == Decision::kHandOver;
}

// ---- Back-off -----------------------------------------------------------------------------------------------------

TEST(SessionTest, BackoffDoublesAndIsBoundedByAMinute) {
  RoutingSession session(OneUpstream());
  double now_s = 1000.0;
  EXPECT_TRUE(HandsOver(session, now_s)) << "an untried link is tried";
  for (const double expected_s : {2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0}) {
    session.OnFailure(0, Failure::kLinkDead, kUnknown, now_s);
    EXPECT_FALSE(HandsOver(session, now_s));
    EXPECT_FALSE(HandsOver(session, now_s + expected_s - 0.01)) << expected_s;
    EXPECT_TRUE(HandsOver(session, now_s + expected_s)) << expected_s;
    now_s += 1000.0;
  }
  for (int i = 0; i < 1000; ++i) session.OnFailure(0, Failure::kLinkDead, kUnknown, now_s);
  EXPECT_TRUE(HandsOver(session, now_s + 60.0));
}

TEST(SessionTest, ASuccessEndsBackoffAndForgetsIt) {
  RoutingSession session(OneUpstream());
  for (int i = 0; i < 5; ++i) session.OnFailure(0, Failure::kLinkDead, kUnknown, 10.0);
  session.OnSample(0, RoundTrip(11.0, 0.05));
  EXPECT_TRUE(HandsOver(session, 11.0));
  session.OnFailure(0, Failure::kLinkDead, kUnknown, 12.0);
  EXPECT_TRUE(HandsOver(session, 14.0)) << "counted from one again";
}

TEST(SessionTest, ReadyEndsBackoffAtOnceAndKeepsItsCount) {
  RoutingSession session(OneUpstream());
  session.OnLookStarted(0, 10.0);
  for (int i = 0; i < 4; ++i) session.OnFailure(0, Failure::kLinkDead, kUnknown, 10.0);
  EXPECT_FALSE(HandsOver(session, 10.5));
  session.OnLookDone(0, {Look::End::kAbandoned, {}, {}}, 10.5);
  EXPECT_GT(session.NextLook_s(0, 10.5), 10.5);
  session.OnReady(0, 10.5);
  EXPECT_TRUE(HandsOver(session, 10.5));
  EXPECT_EQ(session.NextLook_s(0, 10.5), 10.5) << "a look is due";
  session.OnFailure(0, Failure::kLinkDead, kUnknown, 11.0);  // the fifth
  EXPECT_FALSE(HandsOver(session, 11.0 + 31.9));
  EXPECT_TRUE(HandsOver(session, 11.0 + 32.0));
}

TEST(SessionTest, FailuresOfThisRequestAloneChangeNothing) {
  RoutingSession session(OneUpstream());
  session.OnSample(0, RoundTrip(1.0, 0.05));
  const RoutingSession before = session;
  for (const Failure failure : {Failure::kRefusedThis, Failure::kSlow, Failure::kBroken}) {
    session.OnFailure(0, failure, 100.0, 2.0);
    EXPECT_EQ(std::memcmp(&before, &session, sizeof(session)), 0) << NameOf(failure);
  }
  session.OnFailure(0, Failure::kOverloaded, kUnknown, 2.0);
  EXPECT_EQ(std::memcmp(&before, &session, sizeof(session)), 0) << "it did not say when to come back";
}

TEST(SessionTest, AnOverloadedUpstreamIsSparedForAsLongAsItSays) {
  RoutingSession session(OneUpstream());
  session.OnFailure(0, Failure::kOverloaded, 30.0, 100.0);
  const DecisionRecord record = session.Decide(Draft(101.0, 0.0));
  EXPECT_EQ(DecisionOf(record), Decision::kKeep);
  EXPECT_TRUE(record.degraded);
  EXPECT_EQ(record.situation.upstreams[0].busy_s, 29.0);
  EXPECT_EQ(record.situation.upstreams[0].link.consecutive_failures, 0) << "it is there";
  EXPECT_THAT(Explain(record), HasSubstr("asked to be left alone for another 29.00 s"));
  EXPECT_FALSE(HandsOver(session, 129.9));
  EXPECT_TRUE(HandsOver(session, 130.0));
  EXPECT_EQ(session.Facts(0, 200.0).busy_s, 0.0);
}

// A delay far below what the policy would wait for is kept all the same, and a look takes no place in a queue.
TEST(SessionTest, AShortDelayIsKeptAndNoLookEndsIt) {
  RoutingSession session(OneUpstream());
  session.OnFailure(0, Failure::kOverloaded, 0.125, 100.0);
  EXPECT_FALSE(HandsOver(session, 100.001));
  session.OnLookStarted(0, 100.005);
  session.OnLookDone(0, {Look::End::kMeasured, RoundTrip(100.01, 0.005), {.known = true, .predicted_wait_s = 0.0}},
                     100.01);
  EXPECT_FALSE(HandsOver(session, 100.02));
  EXPECT_TRUE(HandsOver(session, 100.125));
}

TEST(SessionTest, ClassesOfErrors) {
  const auto of = [](absl::StatusCode code, bool delay) { return FailureOf(absl::Status(code, ""), delay); };
  EXPECT_EQ(of(absl::StatusCode::kUnavailable, false), Failure::kLinkDead);
  EXPECT_EQ(of(absl::StatusCode::kUnavailable, true), Failure::kOverloaded);
  EXPECT_EQ(of(absl::StatusCode::kResourceExhausted, true), Failure::kOverloaded);
  EXPECT_EQ(of(absl::StatusCode::kResourceExhausted, false), Failure::kRefusedThis);
  EXPECT_EQ(of(absl::StatusCode::kInvalidArgument, false), Failure::kRefusedThis);
  EXPECT_EQ(of(absl::StatusCode::kFailedPrecondition, false), Failure::kRefusedThis);
  EXPECT_EQ(of(absl::StatusCode::kDeadlineExceeded, false), Failure::kSlow);
  EXPECT_EQ(of(absl::StatusCode::kInternal, false), Failure::kBroken);
}

// ---- Looking ------------------------------------------------------------------------------------------------------

TEST(SessionTest, LooksAtOnceThenAtIntervals) {
  RoutingSession session(OneUpstream());
  EXPECT_EQ(session.NextLook_s(0, 100.0), 100.0) << "due";
  session.OnLookStarted(0, 100.0);
  EXPECT_EQ(session.NextLook_s(0, 100.1), kNever) << "one at a time";
  session.OnLookDone(0, {Look::End::kConnectedFirst, {}, {}}, 101.0);
  EXPECT_EQ(session.NextLook_s(0, 101.0), 101.0) << "the time went into connecting";
  EXPECT_EQ(session.Facts(0, 101.0).link.samples, 0) << "and is no round trip";
  session.OnLookStarted(0, 101.0);
  session.OnLookDone(0, {Look::End::kMeasured, RoundTrip(101.1, 0.1), {.known = true, .queued_requests = 3}}, 101.1);
  EXPECT_NEAR(session.NextLook_s(0, 101.1), 106.1, 1e-9);
  EXPECT_NEAR(session.Facts(0, 101.1).link.rtt_s, 0.1, 1e-9);
  EXPECT_EQ(session.Facts(0, 101.1).load.queued_requests, 3);
  session.OnLookStarted(0, 106.99);
  session.OnLookDone(0, {Look::End::kFailed, {}, {}}, 107.0);
  EXPECT_NEAR(session.NextLook_s(0, 107.0), 106.99 + 0.125, 1e-9) << "soon";
  EXPECT_EQ(session.Facts(0, 107.0).link.consecutive_failures, 1);
  EXPECT_EQ(session.Facts(0, 107.0).load.queued_requests, 3) << "what it said last";
  session.OnLookStarted(0, 107.2);
  session.OnLookDone(0, {Look::End::kAbandoned, {}, {}}, 112.0);
  EXPECT_EQ(session.Facts(0, 112.0).link.consecutive_failures, 1) << "says nothing";
}

TEST(SessionTest, AFailedLinkIsLookedAtSoonAndThenLessOften) {
  RoutingSession session(OneUpstream());
  session.OnLookStarted(0, 0.0);
  session.OnLookDone(0, {Look::End::kMeasured, RoundTrip(0.0, 0.1), {}}, 0.0);
  session.OnFailure(0, Failure::kRefusedThis, kUnknown, 1.0);
  EXPECT_EQ(session.NextLook_s(0, 1.0), 5.0) << "says nothing of the link";
  session.OnFailure(0, Failure::kLinkDead, kUnknown, 1.0);
  EXPECT_EQ(session.NextLook_s(0, 1.0), 1.125) << "a call has found it";
  double now_s = 1.125;
  for (const double expected_s : {0.25, 0.5, 1.0, 1.0}) {
    session.OnLookStarted(0, now_s);
    session.OnLookDone(0, {Look::End::kFailed, {}, {}}, now_s + 0.0625);
    EXPECT_EQ(session.NextLook_s(0, now_s), now_s + expected_s);
    now_s += expected_s;
  }
  session.OnLookStarted(0, now_s);
  session.OnLookDone(0, {Look::End::kFailed, {}, {}}, now_s + 5.0);
  EXPECT_EQ(session.NextLook_s(0, now_s + 5.0), now_s + 5.0) << "one that waited is repeated at once";
}

TEST(SessionTest, ALookThatConnectedEndsTheBackoff) {
  RoutingSession session(OneUpstream());
  for (int i = 0; i < 9; ++i) session.OnFailure(0, Failure::kLinkDead, kUnknown, 10.0);
  session.OnLookStarted(0, 10.5);
  EXPECT_FALSE(HandsOver(session, 11.0));
  session.OnLookDone(0, {Look::End::kConnectedFirst, {}, {}}, 11.0);
  EXPECT_TRUE(HandsOver(session, 11.0));
}

TEST(SessionTest, CallsPutLooksOffForFourIntervalsAtMost) {
  RoutingSession session(OneUpstream());
  session.OnLookStarted(0, 0.0);
  session.OnLookDone(0, {Look::End::kMeasured, RoundTrip(0.0, 0.1), {}}, 0.0);
  for (double now_s = 1.0; now_s < 20.0; now_s += 1.0) {
    session.OnSample(0, RoundTrip(now_s, 0.1));
    EXPECT_EQ(session.NextLook_s(0, now_s), std::min(now_s + 5.0, 20.0));
  }
}

TEST(SessionTest, NeverLooksWithoutAnInterval) {
  SessionOptions options = OneUpstream();
  options.look_interval_s = 0.0;
  RoutingSession session(options);
  EXPECT_EQ(session.NextLook_s(0, 5.0), kNever);
  session.OnSample(0, RoundTrip(6.0, 0.1));
  session.OnReady(0, 7.0);
  EXPECT_EQ(session.NextLook_s(0, 8.0), kNever);
}

// The cadence as a few plain rules, beside the session under random events.
TEST(SessionTest, CadenceFollowsItsRulesInAnyOrderOfEvents) {
  constexpr uint64_t kSeed = 21;
  std::mt19937_64 rng(kSeed);
  for (int run = 0; run < 500; ++run) {
    RoutingSession session(OneUpstream());
    double now_s = 50.0, next_s = -kNever, latest_s = -kNever;
    double started_s = 0.0;
    int n_failures = 0;
    bool looking = false;
    const auto retry_s = [&n_failures] { return std::min(0.125 * std::pow(2.0, std::min(n_failures, 10) - 1), 1.0); };
    for (int i = 0; i < 200; ++i) {
      now_s += static_cast<double>(rng() % 256) / 64.0;
      if (looking && rng() % 3 == 0) {
        const auto end = static_cast<Look::End>(rng() % 4);
        session.OnLookDone(0, {end, RoundTrip(now_s, 0.05), {}}, now_s);
        looking = false;
        next_s = end == Look::End::kConnectedFirst ? now_s : now_s + 5.0;
        if (end == Look::End::kMeasured) n_failures = 0;
        if (end == Look::End::kFailed) {
          ++n_failures;
          next_s = started_s + retry_s();
        }
        latest_s = now_s + 20.0;
      } else if (!looking && session.NextLook_s(0, now_s) <= now_s) {
        session.OnLookStarted(0, now_s);
        started_s = now_s;
        looking = true;
      } else if (rng() % 2 == 0) {
        session.OnSample(0, RoundTrip(now_s, 0.05));
        next_s = std::min(now_s + 5.0, latest_s);
        n_failures = 0;
      } else {
        const auto failure = static_cast<Failure>(rng() % 5);
        session.OnFailure(0, failure, 1.0, now_s);
        if (failure == Failure::kLinkDead) {
          ++n_failures;
          next_s = std::min(next_s, now_s + retry_s());
        }
      }
      ASSERT_EQ(session.NextLook_s(0, now_s), looking ? kNever : std::max(next_s, now_s))
          << "seed " << kSeed << ", run " << run << ", event " << i;
    }
  }
}

// ---- Averages and hysteresis --------------------------------------------------------------------------------------

TEST(SessionTest, AveragesAreSmoothed) {
  RoutingSession session(OneUpstream());
  EXPECT_EQ(session.local_run_s(), 0.0);
  EXPECT_TRUE(std::isnan(session.Decide(Draft(0.0, 0.9)).situation.local.tokens_per_s));
  session.OnLocalRun({.run_s = 2.0, .decode_s = 1.0, .n_decoded_tokens = 50});
  EXPECT_EQ(session.local_run_s(), 2.0);
  EXPECT_EQ(session.local_tokens_per_s(), 50.0);
  session.OnLocalRun({.run_s = 1.0, .decode_s = 1.0, .n_decoded_tokens = 100});
  EXPECT_DOUBLE_EQ(session.local_run_s(), 1.8);
  EXPECT_DOUBLE_EQ(session.local_tokens_per_s(), 60.0);
  session.OnLocalRun({.run_s = 1.8});  // given up
  EXPECT_DOUBLE_EQ(session.local_run_s(), 1.8);
  EXPECT_DOUBLE_EQ(session.local_tokens_per_s(), 60.0);
  session.OnLocalRun({.run_s = kUnknown, .decode_s = kUnknown, .n_decoded_tokens = 1});
  EXPECT_DOUBLE_EQ(session.local_run_s(), 1.8) << "no number is no measurement";

  EXPECT_TRUE(std::isnan(session.Decide(Draft(0.0, 0.9)).situation.local.prefill_tokens_per_s));
  session.OnLocalRun({.run_s = 1.5, .decode_s = 1.0, .n_decoded_tokens = 60, .n_prefill_tokens = 200});
  EXPECT_DOUBLE_EQ(session.Decide(Draft(0.0, 0.9)).situation.local.prefill_tokens_per_s, 400.0);
  session.OnLocalRun({.run_s = 1.5, .decode_s = 1.0, .n_decoded_tokens = 60, .n_prefill_tokens = 450});
  EXPECT_DOUBLE_EQ(session.local_prefill_tokens_per_s(), 500.0);
  session.OnLocalRun({.run_s = 1.0, .decode_s = 1.0, .n_decoded_tokens = 60, .n_prefill_tokens = 10});
  EXPECT_DOUBLE_EQ(session.local_prefill_tokens_per_s(), 500.0) << "in no time at all: no measurement";

  const DecisionRecord record = session.Decide(Draft(0.0, 0.9));
  session.Outcome(record, {Decision::kKeep, 30});
  EXPECT_DOUBLE_EQ(session.Decide(Draft(0.0, 0.9)).situation.local.answer_tokens, 30.0);
  session.Outcome(record, {Decision::kKeep, 40});
  EXPECT_DOUBLE_EQ(session.Decide(Draft(0.0, 0.9)).situation.local.answer_tokens, 31.0);
}

TEST(SessionTest, HysteresisFollowsWhatBecameOfAnswers) {
  SessionOptions options = OneUpstream();
  options.policy.hysteresis = 0.05;
  RoutingSession session(options);
  const auto keeps = [&session](double confidence) {
    return DecisionOf(session.Decide(Draft(0.0, confidence))) == Decision::kKeep;
  };
  EXPECT_TRUE(keeps(0.77));
  const DecisionRecord handed_over = session.Decide(Draft(0.0, 0.1));
  EXPECT_EQ(DecisionOf(handed_over), Decision::kHandOver);
  EXPECT_TRUE(keeps(0.77)) << "not yet an answer";
  session.Outcome(handed_over, {Decision::kKeep, 10});
  EXPECT_TRUE(keeps(0.77)) << "upstream failed, this tier answered after all";
  session.Outcome(handed_over, {Decision::kHandOver, 10});
  EXPECT_FALSE(keeps(0.83));
  session.Outcome(session.Decide(Draft(0.0, 0.9)), {Decision::kKeep, 10});
  EXPECT_TRUE(keeps(0.77));
}

// ---- What holds for any session -----------------------------------------------------------------------------------

TEST(SessionTest, PeekChangesNothingAndSaysWhatDecideWould) {
  constexpr uint64_t kSeed = 31;
  for (uint64_t run = 0; run < 500; ++run) {
    SessionDriver driver(kSeed + run);
    for (int i = 0; i < 20; ++i) {
      driver.Event();
      const Situation situation = driver.RandomSituation();
      alignas(RoutingSession) unsigned char before[sizeof(RoutingSession)];
      std::memcpy(before, &driver.session(), sizeof(before));
      const Option peeked = driver.session().Peek(situation);
      ASSERT_EQ(std::memcmp(before, &driver.session(), sizeof(before)), 0) << "seed " << kSeed + run;
      RoutingSession copy = driver.session();
      const DecisionRecord decided = copy.Decide(situation);
      ASSERT_EQ(peeked.way, decided.chosen().way) << "seed " << kSeed + run << ": " << Explain(decided);
      ASSERT_EQ(peeked.upstream, decided.chosen().upstream);
    }
  }
}

// Where the clock's zero lies does not matter: only differences of steady time count. Times are multiples of 1/64 s, so
// that shifting them is exact.
TEST(SessionTest, OnlyDifferencesOfTimeCount) {
  constexpr uint64_t kSeed = 41;
  constexpr double kShift_s = 1 << 24;
  std::mt19937_64 rng(kSeed);
  for (int run = 0; run < 300; ++run) {
    SessionOptions options = OneUpstream();
    options.n_upstreams = 2;
    RoutingSession here(options), there(options);
    double now_s = 64.0;
    for (int i = 0; i < 60; ++i) {
      now_s += static_cast<double>(rng() % 512) / 64.0;
      const int up = static_cast<int>(rng() % 2);
      const auto kind = rng() % 6;
      const auto failure = static_cast<Failure>(rng() % 5);
      const double seconds = static_cast<double>(rng() % 256) / 64.0;
      for (RoutingSession* session : {&here, &there}) {
        const double at_s = session == &here ? now_s : now_s + kShift_s;
        if (kind <= 1) session->OnSample(up, RoundTrip(at_s, seconds));
        if (kind == 2) session->OnFailure(up, failure, seconds, at_s);
        if (kind == 3) session->OnLookStarted(up, at_s);
        if (kind == 4) session->OnLookDone(up, {Look::End::kMeasured, RoundTrip(at_s, seconds), {}}, at_s);
        if (kind == 5) session->OnReady(up, at_s);
      }
      const DecisionRecord a = here.Decide(Draft(now_s, 0.1)), b = there.Decide(Draft(now_s + kShift_s, 0.1));
      ASSERT_EQ(Explain(a), Explain(b)) << "seed " << kSeed << ", run " << run << ", event " << i;
      ASSERT_EQ(a.choice, b.choice);
      ASSERT_EQ(here.NextLook_s(up, now_s) + kShift_s, there.NextLook_s(up, now_s + kShift_s));
    }
  }
}

TEST(SessionTest, TakesNothingFromTheHeap) {
  long taken = 0;
  for (uint64_t run = 0; run < 50; ++run) {
    SessionDriver driver(run);
    const Situation situation = driver.RandomSituation();
    for (int i = 0; i < 50; ++i) {
      const long before = NumAllocations();
      driver.Event();
      RoutingSession copy = driver.session();
      const DecisionRecord record = copy.Decide(situation);
      copy.Outcome(record, {DecisionOf(record), 10});
      taken += NumAllocations() - before;
      taken += copy.Peek(situation).way == Way::kUnspecified ? 1 : 0;
    }
  }
  EXPECT_EQ(taken, 0);
  const long before = NumAllocations();
  ::operator delete(::operator new(8));
  EXPECT_GT(NumAllocations(), before) << "the counter does not count";
}

TEST(SessionTest, RecordsAreNumbered) {
  SessionOptions options = OneUpstream();
  options.model_fp = 77;
  RoutingSession session(options);
  for (uint64_t i = 1; i <= 3; ++i) {
    const DecisionRecord record = session.Decide(Draft(0.0, 0.5));
    EXPECT_EQ(record.seq, i);
    EXPECT_EQ(record.model_fp, 77u);
    EXPECT_EQ(record.policy_fp, Fingerprint(options.policy));
    EXPECT_EQ(record.situation.draw, DrawOf(RequestKey("r"), Stage::kAfter));
  }
}

TEST(SessionTest, DrawsAreSpreadAndFixed) {
  double sum = 0.0, low = 1.0, high = 0.0;
  constexpr int kDraws = 10000;
  for (int i = 0; i < kDraws; ++i) {
    const double draw = DrawOf(RequestKey("request-" + std::to_string(i)), Stage::kBefore);
    ASSERT_GE(draw, 0.0);
    ASSERT_LT(draw, 1.0);
    sum += draw;
    low = std::min(low, draw);
    high = std::max(high, draw);
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 4.0 * std::sqrt(1.0 / 12.0 / kDraws));
  EXPECT_LT(low, 0.01);
  EXPECT_GT(high, 0.99);
  EXPECT_NE(DrawOf(RequestKey("a"), Stage::kBefore), DrawOf(RequestKey("a"), Stage::kAfter));
  EXPECT_EQ(DrawOf(RequestKey("a"), Stage::kBefore), DrawOf(RequestKey("a"), Stage::kBefore));
}

}  // namespace
}  // namespace updraft
