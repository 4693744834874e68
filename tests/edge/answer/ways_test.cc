// The ways of an answer step by step: which confidence decides, what is recorded and counted, when an answer is whole.
#include <gmock/gmock.h>

#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/edge/answer/fake_host.h"

namespace updraft {
namespace {

using testing::FakeHost;
using ::testing::HasSubstr;

RoutingPolicy Policy(PolicyMode mode) {
  RoutingPolicy policy;
  policy.mode = mode;
  policy.confidence_threshold = 0.5;
  return policy;
}

// One answer, told what happens; its actions are kept.
class Told {
 public:
  Told(PolicyMode mode, int n_upstreams, int n_prefix = 0, bool acts = false, bool raw = false, bool ids_agree = true)
      : host(Policy(mode), n_upstreams) {
    host.ids_agree = ids_agree;
    tier_.acts = acts;
    tier_.name = "edge";
    tier_.vocab_size = 100;
    tier_.max_sequence_tokens = 4096;
    Asked asked;
    asked.arrived = now_;
    asked.mode = mode;
    asked.max_tokens = 100;
    asked.prompt.tokens = {1, 2, 3};
    asked.request.set_request_id("r");
    if (acts && !raw) {
      asked.request.mutable_conversation()->add_messages()->set_content("x");
    } else {
      asked.request.set_prompt("x");
      asked.request.set_parse_special(true);
    }
    if (n_prefix > 0) asked.request.mutable_tokens()->add_ids(1);
    for (int i = 0; i < n_prefix; ++i) asked.request.add_accepted_prefix(5);
    answer_.emplace(&tier_, &host, std::move(asked));
    On(Admitted());
  }

  void On(const Event& event) {
    for (Action& action : answer_->On(event, now_)) actions.push_back(std::move(action));
  }
  // n tokens, all of that probability; the last one ends the answer where `end` says so.
  void Write(int n, float top_prob, AnswerEnd end = AnswerEnd::kOpen) {
    for (int i = 1; i <= n; ++i) {
      LocalStep step;
      step.chunk.set_tier("edge");
      step.chunk.add_tokens(7);
      step.chunk.set_text("t");
      step.evidence.emplace().top_prob = top_prob;
      if (i == n) step.end = end;
      On(step);
    }
  }
  template <typename A>
  const A* Last() const {
    for (auto it = actions.rbegin(); it != actions.rend(); ++it) {
      if (const A* action = std::get_if<A>(&*it)) return action;
    }
    return nullptr;
  }

  FakeHost host;
  Actions actions;

 private:
  TierFacts tier_;
  SteadyTime now_ = SteadyTime::FromOrigin(absl::Seconds(1000));
  std::optional<Answer> answer_;
};

TEST(WaysTest, NothingIsKnownBeforeTheFirstTokenAndNotCalledZero) {
  for (const int n_upstreams : {0, 1}) {
    Told told(PolicyMode::kAuto, n_upstreams);
    ASSERT_EQ(told.host.records.size(), 1u);
    EXPECT_TRUE(std::isnan(told.host.records[0].situation.evidence.confidence));
  }
}

// Of an answer that nobody judged there is none to count.
TEST(WaysTest, AnAnswerThatWasNotJudgedHasNoConfidence) {
  for (const int n_upstreams : {0, 1}) {
    Told told(PolicyMode::kAuto, n_upstreams);
    told.On(LocalBegan());
    told.Write(5, 0.9f);
    told.On(Interrupt{absl::CancelledError("gone")});
    told.On(LocalStopped());
    ASSERT_NE(told.Last<EndAnswer>(), nullptr);
    EXPECT_EQ(told.Last<EndAnswer>()->status, absl::CancelledError("gone"));
    EXPECT_EQ(told.Last<EndAnswer>()->confidence, std::nullopt) << n_upstreams;
  }
  // Upstream dies before it wrote, and the answer is finished here.
  Told told(PolicyMode::kUpstream, 1);
  ASSERT_NE(told.Last<CallUpstream>(), nullptr);
  told.On(UpstreamEnded{.status = absl::InternalError("gone"), .bytes_up = 1});
  ASSERT_NE(told.Last<StartLocal>(), nullptr);
  told.On(LocalBegan());
  told.Write(5, 0.9f, AnswerEnd::kStop);
  told.On(LocalStopped());
  ASSERT_NE(told.Last<EndAnswer>(), nullptr);
  EXPECT_TRUE(told.Last<EndAnswer>()->status.ok());
  EXPECT_EQ(told.Last<EndAnswer>()->confidence, std::nullopt);
}

// Upstream refuses the wish beside ids: they are what was made of it.
TEST(WaysTest, ControlTokensOfARawPromptAreReadWhereItsTextIs) {
  Told as_ids(PolicyMode::kUpstream, 1);
  ASSERT_NE(as_ids.Last<CallUpstream>(), nullptr);
  const v1::GenerateRequest& request = as_ids.Last<CallUpstream>()->request;
  EXPECT_TRUE(request.has_tokens());
  EXPECT_FALSE(request.parse_special());
  Told as_text(PolicyMode::kUpstream, 1, /*n_prefix=*/0, /*acts=*/false, /*raw=*/true, /*ids_agree=*/false);
  ASSERT_NE(as_text.Last<CallUpstream>(), nullptr);
  EXPECT_EQ(as_text.Last<CallUpstream>()->request.prompt(), "x");
  EXPECT_TRUE(as_text.Last<CallUpstream>()->request.parse_special());
}

TEST(WaysTest, AJudgedAnswerHasItsConfidence) {
  Told told(PolicyMode::kAuto, 0);
  told.On(LocalBegan());
  told.Write(5, 0.25f, AnswerEnd::kStop);
  told.On(LocalStopped());
  ASSERT_NE(told.Last<EndAnswer>(), nullptr);
  EXPECT_EQ(told.Last<EndAnswer>()->confidence, 0.25);
  EXPECT_EQ(told.Last<EndAnswer>()->done.provenance().confidence(), 0.25);
}

// What was written after the prefix decides: neither nothing, nor an earlier part of it.
TEST(WaysTest, ADraftAfterAnAcceptedPrefixIsDecidedByItsOwnConfidence) {
  Told short_one(PolicyMode::kAuto, 1, /*n_prefix=*/2);
  short_one.On(LocalBegan());
  short_one.Write(5, 0.9f, AnswerEnd::kStop);
  short_one.On(LocalStopped());
  EXPECT_EQ(short_one.Last<CallUpstream>(), nullptr) << "it is confident enough";
  ASSERT_NE(short_one.Last<EndAnswer>(), nullptr);
  EXPECT_NEAR(short_one.Last<EndAnswer>()->confidence.value_or(-1), 0.9, 1e-6);
  EXPECT_THAT(short_one.Last<EndAnswer>()->done.provenance().reason(), HasSubstr("confidence 0.90 reaches 0.50"));

  Told turns_doubtful(PolicyMode::kAuto, 1, /*n_prefix=*/2);
  turns_doubtful.On(LocalBegan());
  turns_doubtful.Write(8, 0.9f);
  turns_doubtful.Write(2, 0.1f, AnswerEnd::kStop);
  turns_doubtful.On(LocalStopped());
  EXPECT_NE(turns_doubtful.Last<CallUpstream>(), nullptr) << "the last look was confident, the whole is not";
}

// All of it was accepted below: there is nothing to doubt, and nobody to ask.
TEST(WaysTest, AnAcceptedPrefixThatIsAWholeAnswerIsKept) {
  Told told(PolicyMode::kAuto, 1, /*n_prefix=*/3);
  told.On(LocalBegan());
  LocalStep rest;
  rest.chunk.set_tier("edge");
  rest.chunk.set_text("held back");
  rest.end = AnswerEnd::kStop;
  told.On(rest);
  told.On(LocalStopped());
  EXPECT_EQ(told.Last<CallUpstream>(), nullptr);
  ASSERT_NE(told.Last<EndAnswer>(), nullptr);
  EXPECT_TRUE(told.Last<EndAnswer>()->status.ok());
  EXPECT_EQ(told.Last<EndAnswer>()->confidence, std::nullopt);
}

// An upstream that ends without saying why has ended: nothing is written after it.
TEST(WaysTest, ALastMessageWithoutAReasonIsALastMessage) {
  Told told(PolicyMode::kUpstream, 1);
  UpstreamChunk chunk;
  chunk.chunk.set_text("whole");
  chunk.chunk.add_tokens(7);
  told.On(chunk);
  told.On(UpstreamDone{v1::FINISH_REASON_UNSPECIFIED});
  told.On(UpstreamEnded{});
  EXPECT_EQ(told.Last<StartLocal>(), nullptr);
  ASSERT_NE(told.Last<EndAnswer>(), nullptr);
  EXPECT_TRUE(told.Last<EndAnswer>()->status.ok());
  EXPECT_EQ(told.Last<EndAnswer>()->done.finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_FALSE(told.Last<EndAnswer>()->done.provenance().degraded());
}

// Whoever gave up first says why it ended.
TEST(WaysTest, TheFirstInterruptionSaysWhatItEndsWith) {
  Told told(PolicyMode::kAuto, 0);
  told.On(LocalBegan());
  told.Write(2, 0.9f);
  told.On(Interrupt{absl::ResourceExhaustedError("read too slowly")});
  told.On(Interrupt{absl::CancelledError("gone")});
  told.On(LocalStopped());
  ASSERT_NE(told.Last<EndAnswer>(), nullptr);
  EXPECT_EQ(told.Last<EndAnswer>()->status, absl::ResourceExhaustedError("read too slowly"));
}

// ---- Answers that act ---------------------------------------------------------------------------------------------

constexpr Verdict kActs = {.disposition = Disposition::kAct, .p_right = 0.9, .doubtful = false};
constexpr Verdict kDoubtful = {.disposition = Disposition::kAct, .p_right = 0.2, .doubtful = true};

std::string GivenText(const Actions& actions) {
  std::string text;
  for (const Action& action : actions) {
    if (const auto* give = std::get_if<GiveChunk>(&action)) text += give->chunk.text();
  }
  return text;
}

void LeaveUpstream(Told& told, const absl::Status& status) {
  told.On(UpstreamEnded{.status = status, .bytes_up = 1, .bytes_down = 1});
}

TEST(ActingTest, NothingIsGivenBeforeItIsWhole) {
  Told told(PolicyMode::kLocal, 0, 0, /*acts=*/true);
  told.host.verdict = kActs;
  told.On(LocalBegan{});
  told.Write(5, 0.9f);
  EXPECT_EQ(told.Last<GiveChunk>(), nullptr);
  told.Write(1, 0.9f, AnswerEnd::kStop);
  told.On(LocalStopped{});
  EXPECT_EQ(GivenText(told.actions), "tttttt");
  EXPECT_EQ(told.host.judged, "tttttt");
  const v1::Done& done = told.Last<EndAnswer>()->done;
  EXPECT_EQ(done.disposition(), v1::DISPOSITION_ACT);
  EXPECT_EQ(done.provenance().p_right(), 0.9);
  EXPECT_EQ(done.usage().completion_tokens(), 6);
  EXPECT_EQ(done.alternatives_size(), 0);
}

TEST(ActingTest, WhatARawPromptBringsIsText) {
  Told told(PolicyMode::kLocal, 0, 0, /*acts=*/true, /*raw=*/true);
  told.host.verdict = kDoubtful;
  told.On(LocalBegan{});
  told.Write(1, 0.9f);
  EXPECT_EQ(GivenText(told.actions), "t") << "it streams";
  told.Write(1, 0.9f, AnswerEnd::kStop);
  told.On(LocalStopped{});
  EXPECT_EQ(GivenText(told.actions), "tt");
  EXPECT_EQ(told.Last<EndAnswer>()->done.disposition(), v1::DISPOSITION_UNSPECIFIED);
}

TEST(ActingTest, AnInterruptedOneIsNotGivenInPart) {
  Told told(PolicyMode::kLocal, 0, 0, /*acts=*/true);
  told.On(LocalBegan{});
  told.Write(5, 0.9f);
  told.On(Interrupt{absl::CancelledError("gone")});
  told.On(LocalStopped{});
  EXPECT_EQ(GivenText(told.actions), "");
  EXPECT_EQ(told.Last<EndAnswer>()->done.disposition(), v1::DISPOSITION_UNSPECIFIED);
}

TEST(ActingTest, ALastTierThatDoubtsAsksBack) {
  Told told(PolicyMode::kLocal, 0, 0, /*acts=*/true);
  told.host.verdict = kDoubtful;
  told.On(LocalBegan{});
  told.Write(6, 0.9f, AnswerEnd::kStop);
  told.On(LocalStopped{});
  EXPECT_EQ(GivenText(told.actions), "which?");
  const v1::Done& done = told.Last<EndAnswer>()->done;
  EXPECT_EQ(done.disposition(), v1::DISPOSITION_CLARIFY);
  ASSERT_EQ(done.alternatives_size(), 1);
  EXPECT_EQ(done.alternatives(0), "tttttt") << "what it doubted";
  EXPECT_EQ(done.provenance().p_right(), 0.2) << "of the answer that was not given";
  EXPECT_EQ(done.usage().completion_tokens(), 0);
}

TEST(ActingTest, WhatIsKeptBelowAnUpstreamIsNotAskedBack) {
  Told told(PolicyMode::kAuto, 1, 0, /*acts=*/true);
  told.host.verdict = kDoubtful;  // but confident: upstream would not do better
  told.On(LocalBegan{});
  told.Write(6, 0.9f, AnswerEnd::kStop);
  told.On(LocalStopped{});
  EXPECT_EQ(GivenText(told.actions), "tttttt");
  EXPECT_EQ(told.Last<EndAnswer>()->done.disposition(), v1::DISPOSITION_ACT);
}

TEST(ActingTest, ADoubtfulDraftThatUpstreamDoesNotTakeIsAskedBack) {
  Told told(PolicyMode::kAuto, 1, 0, /*acts=*/true);
  told.host.verdict = kDoubtful;
  told.On(LocalBegan{});
  told.Write(6, 0.1f, AnswerEnd::kStop);
  told.On(LocalStopped{});
  ASSERT_NE(told.Last<CallUpstream>(), nullptr);
  LeaveUpstream(told, absl::UnavailableError("gone"));
  EXPECT_EQ(GivenText(told.actions), "which?");
  const v1::Done& done = told.Last<EndAnswer>()->done;
  EXPECT_EQ(done.disposition(), v1::DISPOSITION_CLARIFY);
  EXPECT_TRUE(done.provenance().degraded());
}

TEST(ActingTest, ADraftGivenUpGoesOnFromItsTokensUnseen) {
  Told told(PolicyMode::kAuto, 1, 0, /*acts=*/true);
  told.host.verdict = kActs;
  told.On(LocalBegan{});
  told.Write(8, 0.0f);  // hopeless
  ASSERT_NE(told.Last<StopLocal>(), nullptr);
  told.On(LocalStopped{});
  ASSERT_NE(told.Last<CallUpstream>(), nullptr);
  LeaveUpstream(told, absl::UnavailableError("gone"));
  EXPECT_EQ(GivenText(told.actions), "") << "half of an answer";
  const StartLocal* start = told.Last<StartLocal>();
  ASSERT_NE(start, nullptr);
  EXPECT_EQ(start->so_far.tokens.size(), 8u);
  EXPECT_EQ(start->so_far.given_bytes, 8u) << "the text of the draft is in the ledger";
  told.On(LocalBegan{});
  told.Write(2, 0.9f, AnswerEnd::kStop);
  told.On(LocalStopped{});
  EXPECT_EQ(GivenText(told.actions), "tttttttttt");
  EXPECT_EQ(told.host.judged, "tttttttttt");
  EXPECT_EQ(told.Last<EndAnswer>()->done.disposition(), v1::DISPOSITION_ACT);
}

TEST(ActingTest, UpstreamsVerdictIsTheAnswers) {
  for (const bool acts : {false, true}) {
    Told told(PolicyMode::kUpstream, 1, 0, acts);
    ASSERT_NE(told.Last<CallUpstream>(), nullptr);
    UpstreamChunk chunk;
    chunk.chunk.set_tier("cloud");
    chunk.chunk.set_text("did you mean");
    told.On(chunk);
    told.On(UpstreamDone{.finish_reason = v1::FINISH_REASON_STOP,
                         .disposition = v1::DISPOSITION_CLARIFY,
                         .p_right = 0.25,
                         .alternatives = {"a", "b", "c", "d"}});
    LeaveUpstream(told, absl::OkStatus());
    const v1::Done& done = told.Last<EndAnswer>()->done;
    EXPECT_EQ(done.disposition(), v1::DISPOSITION_CLARIFY);
    EXPECT_EQ(done.provenance().p_right(), 0.25);
    EXPECT_EQ(done.alternatives_size(), 3) << "no more than the wire has";
  }
}

}  // namespace
}  // namespace updraft
