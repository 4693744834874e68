#include "cloud/engine/loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "tests/cloud/engine/fake_executor.h"
#include "tests/common/engine/load_of_two.h"

namespace updraft::engine {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

constexpr int kVocab = 50;
constexpr int kContext = 120;

struct Limits {
  int max_running, max_step_tokens;
  bool reuse_prefixes = false;
};

class LoopTest : public ::testing::Test {
 protected:
  void Make(int n_blocks, int block_tokens, Limits limits = {.max_running = 8, .max_step_tokens = 32}) {
    const CoreOptions options{.n_blocks = n_blocks,
                              .block_tokens = block_tokens,
                              .max_running = limits.max_running,
                              .max_step_tokens = limits.max_step_tokens,
                              .reuse_prefixes = limits.reuse_prefixes};
    executor_ = std::make_unique<FakeExecutor>(kVocab, kContext, options);
    executor_->before_run = [this](const Batch& batch, std::span<const SampleRow>) {
      now_ = now_ + absl::Milliseconds(1);
      max_rows_ = std::max(max_rows_, batch.n_tok());
    };
    loop_ = std::make_unique<Loop>(options, executor_.get(), [this] { return now_; });
  }
  int n_free() const { return loop_->core().pool().n_available(); }

  static Request MakeRequest(int n_prompt, int max_tokens, uint64_t seed = 1) {
    Request request;
    for (int i = 0; i < n_prompt; ++i) request.prompt.push_back(static_cast<int32_t>((seed * 7 + i * 13) % kVocab));
    request.max_tokens = max_tokens;
    request.sampling.seed = seed;
    return request;
  }

  std::shared_ptr<RecordingSink> Accept(uint64_t ticket, Request request) {
    EXPECT_TRUE(loop_->Check(request).ok()) << loop_->Check(request);
    auto sink = std::make_shared<RecordingSink>();
    loop_->Accept(ticket, std::move(request), sink);
    return sink;
  }

  void Step() {
    loop_->Turn();
    loop_->DeliverDone();
  }

  // Fails the test when the engine makes no end of its work.
  void RunToIdle(int max_steps = 100000) {
    while (!loop_->idle() && max_steps-- > 0) Step();
    ASSERT_TRUE(loop_->idle()) << "no forward progress";
    loop_->DeliverDone();
  }

  SteadyTime now_;
  int max_rows_ = 0;
  std::unique_ptr<FakeExecutor> executor_;
  std::unique_ptr<Loop> loop_;
};

TEST_F(LoopTest, OneRequestGivesItsAnswerAndFreesItsBlocks) {
  Make(16, 4);
  const Request request = MakeRequest(5, 10);
  const Expected expected = AnswerAlone(request, kVocab, kContext);
  auto sink = Accept(1, MakeRequest(5, 10));
  RunToIdle();
  EXPECT_EQ(sink->n_done, 1);
  EXPECT_TRUE(sink->status.ok());
  EXPECT_THAT(sink->tokens, ElementsAreArray(expected.tokens));
  EXPECT_EQ(sink->summary.end, AnswerEnd::kLength);
  EXPECT_EQ(sink->summary.n_prompt_tokens, 5);
  EXPECT_EQ(sink->summary.n_answer_tokens, 10);
  EXPECT_EQ(n_free(), 16);
}

TEST_F(LoopTest, ManyAtOnceEqualEachAlone) {
  Make(64, 4, {.max_running = 8, .max_step_tokens = 16});
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 30; ++i) sinks.push_back(Accept(i + 1, MakeRequest(1 + i, 5 + i % 20, i)));
  RunToIdle();
  for (int i = 0; i < 30; ++i) {
    EXPECT_THAT(sinks[i]->tokens,
                ElementsAreArray(AnswerAlone(MakeRequest(1 + i, 5 + i % 20, i), kVocab, kContext).tokens))
        << i;
  }
  EXPECT_LE(max_rows_, 16);
  EXPECT_EQ(loop_->stats().max_running, 8);
  EXPECT_EQ(n_free(), 64);
}

TEST_F(LoopTest, PreemptionRecomputesAndChangesNothing) {
  Make(10, 4);  // 40 tokens for three sequences that grow to 30 each
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 3; ++i) sinks.push_back(Accept(i + 1, MakeRequest(5, 25, i)));
  RunToIdle();
  EXPECT_GT(loop_->stats().n_preemptions, 0);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(sinks[i]->status.ok());
    EXPECT_THAT(sinks[i]->tokens, ElementsAreArray(AnswerAlone(MakeRequest(5, 25, i), kVocab, kContext).tokens)) << i;
  }
  EXPECT_EQ(sinks[0]->summary.n_preemptions, 0) << "the oldest is never preempted";
}

TEST_F(LoopTest, WhatCanNeverFitIsRefusedWithWhatToDo) {
  Make(4, 4);  // 16 tokens
  EXPECT_TRUE(loop_->Check(MakeRequest(10, 7)).ok()) << "the last token of an answer needs no room";
  const absl::Status too_large = loop_->Check(MakeRequest(10, 8));
  EXPECT_EQ(too_large.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(too_large.message()), HasSubstr("lower max_tokens"));

  Make(100, 4);
  EXPECT_THAT(std::string(loop_->Check(MakeRequest(kContext, 1)).message()), HasSubstr("shorten the conversation"));
  EXPECT_TRUE(loop_->Check(MakeRequest(kContext - 1, 1000000)).ok()) << "the context ends the answer";
  EXPECT_FALSE(loop_->Check(MakeRequest(0, 1)).ok());
  EXPECT_FALSE(loop_->Check(MakeRequest(1, 0)).ok());
  EXPECT_FALSE(loop_->Check(MakeRequest(1, -5)).ok());
  Request bad_ids = MakeRequest(3, 3);
  bad_ids.prompt[1] = kVocab;
  EXPECT_THAT(std::string(loop_->Check(bad_ids).message()),
              HasSubstr("tokens[1]: expected a token id in [0, 50), found 50"));
  Request bad_prefix = MakeRequest(3, 3);
  bad_prefix.accepted_prefix = {-1};
  EXPECT_THAT(std::string(loop_->Check(bad_prefix).message()), HasSubstr("accepted_prefix[0]"));
  Request bad_sampling = MakeRequest(3, 3);
  bad_sampling.sampling.temperature = -1;
  EXPECT_FALSE(loop_->Check(bad_sampling).ok());
}

TEST_F(LoopTest, AFullContextEndsTheAnswer) {
  Make(100, 4);
  auto sink = Accept(1, MakeRequest(kContext - 3, 50));
  RunToIdle();
  EXPECT_TRUE(sink->status.ok());
  EXPECT_EQ(sink->tokens.size(), 3u);
  EXPECT_EQ(sink->summary.end, AnswerEnd::kLength);
}

TEST_F(LoopTest, CancelFreesBlocksBeforeTheNextStep) {
  Make(16, 4);
  auto cancelled = Accept(1, MakeRequest(20, 30, 1));
  auto other = Accept(2, MakeRequest(4, 8, 2));
  auto queued = Accept(3, MakeRequest(4, 8, 3));
  Step();
  const int used = 16 - n_free();
  EXPECT_GE(used, 5);
  loop_->Cancel(1);
  EXPECT_LE(16 - n_free(), used - 5);
  loop_->Cancel(3);
  loop_->Cancel(99);
  loop_->DeliverDone();
  EXPECT_EQ(cancelled->status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(queued->status.code(), absl::StatusCode::kCancelled);
  RunToIdle();
  EXPECT_TRUE(other->status.ok());
  EXPECT_EQ(cancelled->n_done, 1);
  EXPECT_EQ(n_free(), 16);
}

TEST_F(LoopTest, DeadlinesEndRunningAndQueuedRequests) {
  Make(8, 4, {.max_running = 1, .max_step_tokens = 8});
  Request running = MakeRequest(4, 25, 1);
  running.deadline = now_ + absl::Milliseconds(5);
  Request queued = MakeRequest(4, 25, 2);
  queued.deadline = now_ + absl::Milliseconds(3);
  auto running_sink = Accept(1, std::move(running));
  auto queued_sink = Accept(2, std::move(queued));
  auto patient_sink = Accept(3, MakeRequest(4, 5, 3));
  RunToIdle();
  EXPECT_EQ(running_sink->status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(running_sink->tokens.size(), 5u) << "what was answered in time was delivered";
  EXPECT_EQ(queued_sink->status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(queued_sink->status.message()), HasSubstr("queued"));
  EXPECT_TRUE(queued_sink->tokens.empty());
  EXPECT_TRUE(patient_sink->status.ok());
}

TEST_F(LoopTest, ASlowReaderEndsOnlyItsOwnRequest) {
  Make(32, 4);
  auto slow = std::make_shared<RecordingSink>();
  slow->capacity = 3;
  loop_->Accept(1, MakeRequest(4, 20, 1), slow);
  auto other = Accept(2, MakeRequest(4, 20, 2));
  RunToIdle();
  EXPECT_EQ(slow->status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(slow->n_done, 1);
  EXPECT_TRUE(other->status.ok());
  EXPECT_EQ(other->tokens.size(), 20u);
}

// An answer that was complete below has a last piece, too: what was held back there.
TEST_F(LoopTest, ASlowReaderOfALastPieceEndsItsRequest) {
  for (const bool is_slow : {false, true}) {
    Make(32, 4);
    Request request = MakeRequest(4, 2, 1);
    request.accepted_prefix = {1, 2};
    request.stop = {LetterText::Of(2) + LetterText::Of(3)};
    request.text = std::make_unique<LetterText>();
    auto sink = std::make_shared<RecordingSink>();
    if (is_slow) sink->capacity = -1;
    loop_->Accept(1, std::move(request), sink);
    loop_->DeliverDone();
    EXPECT_EQ(sink->n_done, 1);
    EXPECT_EQ(sink->status.code(), is_slow ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kOk);
    EXPECT_EQ(sink->text, is_slow ? "" : LetterText::Of(2));
    EXPECT_EQ(loop_->stats().n_finished, is_slow ? 0 : 1);
  }
}

TEST_F(LoopTest, StopTokensEndTheAnswerAndAreNoPartOfIt) {
  Make(32, 4);
  const Expected unstopped = AnswerAlone(MakeRequest(4, 20, 1), kVocab, kContext);
  Request request = MakeRequest(4, 20, 1);
  request.stop_tokens = {unstopped.tokens[7]};
  const size_t first =
      std::find(unstopped.tokens.begin(), unstopped.tokens.end(), unstopped.tokens[7]) - unstopped.tokens.begin();
  auto sink = Accept(1, std::move(request));
  RunToIdle();
  EXPECT_EQ(sink->tokens.size(), first);
  EXPECT_EQ(sink->summary.end, AnswerEnd::kStop);
  EXPECT_EQ(sink->summary.n_answer_tokens, static_cast<int>(first));
}

// Drafts that are confirmed bring several tokens in one step; the answer ends at the first that completes it.
TEST_F(LoopTest, TokensThatOverranAreDroppedAndCounted) {
  Make(32, 4);
  const Expected unstopped = AnswerAlone(MakeRequest(4, 20, 1), kVocab, kContext);
  const auto first_of = [&](int i) {
    return std::find(unstopped.tokens.begin(), unstopped.tokens.end(), unstopped.tokens[i]) - unstopped.tokens.begin();
  };
  int stop_at = 2;
  while (first_of(stop_at) != stop_at) ++stop_at;
  Request request = MakeRequest(4, 20, 1);
  request.stop_tokens = {unstopped.tokens[stop_at]};
  request.include_evidence = true;
  auto sink = Accept(1, std::move(request));
  loop_->Grow(1, std::span<const int32_t>(unstopped.tokens).first(stop_at + 4));
  loop_->Grow(99, {});
  Step();
  ASSERT_EQ(sink->n_done, 1);
  EXPECT_THAT(sink->tokens, ElementsAreArray(unstopped.tokens.begin(), unstopped.tokens.begin() + stop_at));
  EXPECT_EQ(sink->evidence.size(), sink->tokens.size());
  EXPECT_EQ(sink->summary.end, AnswerEnd::kStop);
  EXPECT_EQ(loop_->stats().n_overrun, 4) << "three drafts and the token after them";
  EXPECT_EQ(loop_->stats().n_generated, stop_at);
  EXPECT_EQ(loop_->stats().n_steps, 1);
  EXPECT_EQ(n_free(), 32);
}

TEST_F(LoopTest, StopStringsEndTheText) {
  Make(32, 4);
  std::string text;
  for (const int32_t token : AnswerAlone(MakeRequest(4, 20, 1), kVocab, kContext).tokens) text += LetterText::Of(token);
  Request request = MakeRequest(4, 20, 1);
  request.text = std::make_unique<LetterText>();
  request.stop = {text.substr(9, 3), "never in it: 0"};
  auto sink = Accept(1, std::move(request));
  RunToIdle();
  EXPECT_EQ(sink->text, text.substr(0, text.find(text.substr(9, 3))));
  EXPECT_EQ(sink->summary.end, AnswerEnd::kStop);
  EXPECT_LT(sink->tokens.size(), 20u);
}

TEST_F(LoopTest, AnAcceptedPrefixIsContinuedAndNotRepeated) {
  Make(32, 4);
  const Expected whole = AnswerAlone(MakeRequest(6, 20, 1), kVocab, kContext);
  for (const size_t n_accepted : {1u, 7u, 19u, 20u}) {
    Request request = MakeRequest(6, 20, 1);
    request.accepted_prefix.assign(whole.tokens.begin(), whole.tokens.begin() + n_accepted);
    auto sink = Accept(n_accepted, std::move(request));
    RunToIdle();
    EXPECT_TRUE(sink->status.ok());
    EXPECT_THAT(sink->tokens, ElementsAreArray(whole.tokens.begin() + n_accepted, whole.tokens.end()));
    EXPECT_EQ(sink->summary.end, AnswerEnd::kLength);
    EXPECT_EQ(sink->summary.n_answer_tokens, static_cast<int>(20 - n_accepted));
  }
}

TEST_F(LoopTest, AStopStringThatSpansTheHandOverIsFound) {
  Make(32, 4);
  const Expected whole = AnswerAlone(MakeRequest(6, 20, 1), kVocab, kContext);
  std::string text;
  for (const int32_t token : whole.tokens) text += LetterText::Of(token);
  Request request = MakeRequest(6, 20, 1);
  request.accepted_prefix.assign(whole.tokens.begin(), whole.tokens.begin() + 8);
  request.stop = {text.substr(6, 4)};  // letters 6 and 7 were accepted below, 8 and 9 come from here
  request.text = std::make_unique<LetterText>();
  auto sink = Accept(1, std::move(request));
  RunToIdle();
  EXPECT_EQ(sink->summary.end, AnswerEnd::kStop);
  EXPECT_EQ(sink->text, "") << "the tier below sent letters 0 to 5, and the rest is the stop string";
}

TEST_F(LoopTest, EvidenceComesPerTokenWhenAskedFor) {
  Make(32, 4);
  Request request = MakeRequest(6, 5, 1);
  request.include_evidence = true;
  auto with = Accept(1, std::move(request));
  auto without = Accept(2, MakeRequest(6, 5, 1));
  RunToIdle();
  ASSERT_EQ(with->evidence.size(), 5u);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(with->evidence[i].top_prob, 6.0f + i) << "belongs to its own token";
  EXPECT_TRUE(without->evidence.empty());
}

// As an answer that is there already is scored: read like a prompt, not token by token.
TEST_F(LoopTest, AGivenAnswerIsReadInFewSteps) {
  Make(32, 4, {.max_running = 4, .max_step_tokens = 16, .reuse_prefixes = false});
  Request request = MakeRequest(6, 21, 1);
  for (int i = 0; i < 20; ++i) request.given.push_back((i * 5 + 1) % (kVocab - 1));
  request.given.push_back(kVocab - 1);
  request.stop_tokens = {kVocab - 1};
  request.include_evidence = true;
  const std::vector<int32_t> given = request.given;
  auto sink = Accept(1, std::move(request));
  RunToIdle();
  EXPECT_TRUE(sink->status.ok()) << sink->status;
  EXPECT_THAT(sink->tokens, ElementsAreArray(given.begin(), given.end() - 1));
  ASSERT_EQ(sink->evidence.size(), 20u);
  for (size_t i = 0; i < 20; ++i) EXPECT_EQ(sink->evidence[i].top_prob, static_cast<float>(6 + i)) << "of its own row";
  EXPECT_TRUE(sink->summary.end_evidence.has_value());
  EXPECT_EQ(sink->summary.end, AnswerEnd::kStop);
  EXPECT_LE(loop_->stats().n_steps, 3) << "26 rows, 16 a step";

  Request beside = MakeRequest(6, 4, 1);
  beside.given = {1, 2, 3};
  EXPECT_THAT(loop_->Check(beside).ToString(), testing::HasSubstr("given: expected the max_tokens of 4"));
  beside.given = {1, 2, 3, kVocab};
  EXPECT_THAT(loop_->Check(beside).ToString(), testing::HasSubstr("given[3]"));
  beside.given = {1, 2, 3, 4};
  beside.accepted_prefix = {1};
  EXPECT_THAT(loop_->Check(beside).ToString(), testing::HasSubstr("accepted_prefix"));
}

TEST_F(LoopTest, AnExecutorErrorEndsWhatRunsAndTheEngineGoesOn) {
  Make(32, 4);
  auto first = Accept(1, MakeRequest(6, 5, 1));
  auto second = Accept(2, MakeRequest(6, 5, 2));
  executor_->fail_next = absl::InternalError("device lost");
  RunToIdle();
  EXPECT_EQ(first->status, absl::InternalError("device lost"));
  EXPECT_EQ(second->status, absl::InternalError("device lost"));
  EXPECT_EQ(n_free(), 32);
  auto third = Accept(3, MakeRequest(6, 5, 3));
  RunToIdle();
  EXPECT_TRUE(third->status.ok());
}

// The fake's blocks are gone with its device; whoever trusted one would choose other tokens.
TEST_F(LoopTest, AfterADeviceFaultNothingCachedIsTrusted) {
  for (const auto& [fault, n_cached] : {std::pair(absl::InternalError("device lost"), 0),
                                        std::pair(absl::ResourceExhaustedError("no memory for the step"), 12)}) {
    SCOPED_TRACE(fault.ToString());
    Make(32, 4, {.max_running = 1, .max_step_tokens = 32, .reuse_prefixes = true});
    Accept(1, MakeRequest(12, 5));
    RunToIdle();
    auto failing = Accept(2, MakeRequest(12, 5, 9));
    auto waiting = Accept(3, MakeRequest(13, 5));
    executor_->fail_next = fault;
    RunToIdle();
    EXPECT_EQ(failing->status, fault);
    EXPECT_TRUE(waiting->status.ok()) << waiting->status;
    EXPECT_EQ(waiting->summary.n_cached_tokens, n_cached);
    EXPECT_THAT(waiting->tokens, ElementsAreArray(AnswerAlone(MakeRequest(13, 5), kVocab, kContext).tokens));
  }
}

TEST_F(LoopTest, LoadSaysWhatIsGoingOn) {
  Make(8, 4, {.max_running = 1, .max_step_tokens = 8});
  EXPECT_EQ(loop_->load().predicted_wait_ms, 0.0);
  auto first = Accept(1, MakeRequest(12, 4, 1));
  auto second = Accept(2, MakeRequest(5, 3, 2));
  Step();
  ExpectOneRunsAndOneWaits(loop_->load());
  RunToIdle();
  ExpectNothingLeft(loop_->load());
}

// Random submissions, cancellations, deadlines, slow readers, stop conditions, on pools from roomy to barely enough.
TEST_F(LoopTest, RandomHistoriesKeepTheContract) {
  for (uint32_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    const auto draw = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
    const int block_tokens = draw(1, 8), n_blocks = draw(16, 80) / block_tokens + 4;
    const int max_running = draw(1, 10);
    const Limits options{
        .max_running = max_running, .max_step_tokens = draw(max_running, 40), .reuse_prefixes = draw(0, 1) == 0};
    Make(n_blocks, block_tokens, options);

    struct Case {
      std::shared_ptr<RecordingSink> sink;
      Expected expected;
      SteadyTime arrival, deadline;
      bool cancelled = false;
    };
    std::vector<Case> cases;
    const auto submit = [&] {
      Request request = MakeRequest(draw(1, 40), draw(1, 40), random());
      request.stop_tokens = {draw(0, kVocab - 1)};
      if (draw(0, 5) == 0) {
        for (int n = request.max_tokens; n > 0; --n) request.given.push_back(draw(0, kVocab - 1));
      } else if (draw(0, 2) == 0) {
        const Expected whole = AnswerAlone(request, kVocab, kContext);
        request.accepted_prefix.assign(whole.tokens.begin(),
                                       whole.tokens.begin() + draw(0, static_cast<int>(whole.tokens.size())));
      }
      if (draw(0, 1) == 0) {
        request.text = std::make_unique<LetterText>();
        request.stop = {std::string(1, static_cast<char>('a' + draw(0, 25))) + static_cast<char>('a' + draw(0, 25)),
                        " "};
      }
      if (draw(0, 3) == 0) request.deadline = now_ + absl::Milliseconds(draw(0, 60));
      if (!loop_->Check(request).ok()) return;
      Case c;
      c.expected = AnswerAlone(request, kVocab, kContext);
      c.sink = std::make_shared<RecordingSink>();
      if (draw(0, 5) == 0) c.sink->capacity = draw(0, 10);
      c.arrival = now_;
      c.deadline = request.deadline;
      loop_->Accept(cases.size() + 1, std::move(request), c.sink);
      cases.push_back(std::move(c));
    };
    for (int turn = 0; turn < 400; ++turn) {
      for (int n = draw(0, 9) == 0 ? draw(1, 8) : 0; n > 0; --n) submit();
      if (!cases.empty() && draw(0, 14) == 0) {
        const int victim = draw(0, static_cast<int>(cases.size()) - 1);
        cases[victim].cancelled = true;
        loop_->Cancel(victim + 1);
      }
      Step();
      ASSERT_EQ(loop_->stats().n_free_blocks, n_free());
      if (loop_->idle()) {
        ASSERT_EQ(n_free(), n_blocks);
      }
    }
    RunToIdle();
    ASSERT_EQ(n_free(), n_blocks) << "leaked blocks";
    EXPECT_LE(max_rows_, options.max_step_tokens);
    max_rows_ = 0;

    SteadyTime last_start = SteadyTime::InfinitePast();
    for (size_t i = 0; i < cases.size(); ++i) {
      const Case& c = cases[i];
      SCOPED_TRACE(testing::Message() << "request " << i << ": " << c.sink->status);
      ASSERT_EQ(c.sink->n_done, 1);
      EXPECT_EQ(c.sink->n_tokens_after_done, 0);
      ASSERT_LE(c.sink->tokens.size(), c.expected.tokens.size());
      EXPECT_TRUE(std::equal(c.sink->tokens.begin(), c.sink->tokens.end(), c.expected.tokens.begin()));
      EXPECT_EQ(c.sink->text, c.expected.text.substr(0, c.sink->text.size()));
      if (c.sink->status.ok()) {
        EXPECT_EQ(c.sink->tokens.size(), c.expected.tokens.size());
        EXPECT_EQ(c.sink->text, c.expected.text);
        EXPECT_EQ(c.sink->summary.end, c.expected.reason);
      } else {
        // Each error has its reason.
        const bool explained =
            (c.sink->status.code() == absl::StatusCode::kCancelled && c.cancelled) ||
            (c.sink->status.code() == absl::StatusCode::kDeadlineExceeded && c.deadline <= now_) ||
            (c.sink->status.code() == absl::StatusCode::kResourceExhausted && c.sink->capacity < 1 << 30);
        EXPECT_TRUE(explained);
      }
      // First come, first started.
      if (!c.sink->tokens.empty()) {
        EXPECT_GE(c.arrival + c.sink->summary.queued, last_start);
        last_start = c.arrival + c.sink->summary.queued;
      }
    }
    if (testing::Test::HasFailure()) break;
  }
}

}  // namespace
}  // namespace updraft::engine
