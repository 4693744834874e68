#include "edge/agent/agent.h"

#include <gmock/gmock.h>
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "absl/synchronization/notification.h"
#include "common/status/retry_delay.h"
#include "tests/edge/agent/agent_fixture.h"

namespace updraft::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

// ---- Local --------------------------------------------------------------------------------------------------------

TEST_F(AgentTest, LocalAnswerIsTheGenerators) {
  const v1::GenerateRequest request = ChatRequest("hello there", 40);
  auto answer = LocalTruth(request);
  ASSERT_TRUE(answer->status().ok()) << answer->status();

  auto model = LoadModel();
  auto prompt = model->served().MakePrompt(request);
  ASSERT_TRUE(prompt.ok());
  auto loaded = Model::Load(*path_, {.n_threads = 1});
  auto pool = KvPool::Create((*loaded)->config(), {.n_blocks = 64, .block_tokens = 16});
  Generator generator(loaded->get(), pool->get(), {});
  ASSERT_TRUE(generator.Prefill(prompt->tokens).ok());
  const std::vector<int32_t>& ends = model->served().stop_tokens();
  std::vector<int32_t> expected;
  while (expected.size() < 40) {
    auto next = generator.Next();
    ASSERT_TRUE(next.ok());
    if (std::count(ends.begin(), ends.end(), next->token) > 0) break;
    expected.push_back(next->token);
  }
  EXPECT_GE(expected.size(), 10u) << "the random model ends too soon to test with";
  EXPECT_EQ(answer->tokens(), expected);
  EXPECT_GT(answer->chunks().size(), 1u) << "without an upstream the answer streams";
  EXPECT_THAT(answer->spans(), ElementsAre(Pair("edge", static_cast<int>(expected.size()))));
  EXPECT_EQ(answer->provenance().decision(), v1::DECISION_KIND_KEEP);
  EXPECT_FALSE(answer->provenance().degraded());
  EXPECT_GT(answer->provenance().confidence(), 0.0);
  EXPECT_EQ(answer->provenance().mean_exit_layer(), 4.0);
  EXPECT_EQ(answer->done().usage().completion_tokens(), static_cast<int>(expected.size()));
  EXPECT_EQ(answer->done().usage().prompt_tokens(), static_cast<int>(prompt->tokens.size()));
}

TEST_F(AgentTest, ConfidentAnswerStaysAndNothingGoesUp) {
  FakeUpstream cloud(Fingerprint());
  auto agent = MakeAgent(cloud.address(), {.threshold = 0.0});
  const v1::GenerateRequest request = ChatRequest("hello there");
  auto answer = Ask(*agent, request);
  ASSERT_TRUE(answer->status().ok()) << answer->status();
  EXPECT_EQ(answer->text(), LocalTruth(request)->text());
  EXPECT_EQ(answer->provenance().decision(), v1::DECISION_KIND_KEEP);
  EXPECT_EQ(answer->provenance().bytes_up(), 0u);
  EXPECT_THAT(cloud.requests(), IsEmpty());
}

TEST_F(AgentTest, EvidenceComesWhenAsked) {
  v1::GenerateRequest request = ChatRequest("hello there");
  request.set_include_evidence(true);
  auto answer = LocalTruth(request);
  for (const v1::Chunk& chunk : answer->chunks()) {
    ASSERT_EQ(chunk.evidence_size(), chunk.tokens_size());
    for (const v1::Evidence& evidence : chunk.evidence()) {
      EXPECT_LE(evidence.logprob(), 0.0f);
      EXPECT_EQ(evidence.exit_layer(), 4);
    }
  }
}

TEST_F(AgentTest, SamplingRepeatsWithItsSeed) {
  v1::GenerateRequest request = ChatRequest("hello there");
  request.mutable_sampling()->set_temperature(1.0f);
  request.mutable_sampling()->set_seed(5);
  auto first = LocalTruth(request);
  EXPECT_EQ(first->tokens(), LocalTruth(request)->tokens());
  request.mutable_sampling()->set_seed(6);
  EXPECT_NE(first->tokens(), LocalTruth(request)->tokens());
}

TEST_F(AgentTest, AcceptedPrefixIsGoneOnFrom) {
  v1::GenerateRequest request = ChatRequest("hello there");
  // Which count what was accepted as said, and the prompt not.
  request.mutable_sampling()->set_presence_penalty(1.0f);
  request.mutable_sampling()->set_frequency_penalty(0.5f);
  auto truth = LocalTruth(request);
  auto agent = MakeAgent("", {});
  auto prompt = agent->model().served().MakePrompt(request);
  const std::vector<int32_t> tokens = truth->tokens();
  for (size_t k = 0; k < tokens.size(); k += 5) {
    v1::GenerateRequest handed;
    handed.set_max_tokens(24);
    *handed.mutable_sampling() = request.sampling();
    handed.mutable_tokens()->set_tokenizer_fingerprint(Fingerprint());
    handed.mutable_tokens()->mutable_ids()->Add(prompt->tokens.begin(), prompt->tokens.end());
    handed.mutable_accepted_prefix()->Add(tokens.begin(), tokens.begin() + k);
    auto rest = Ask(*agent, handed);
    ASSERT_TRUE(rest->status().ok()) << rest->status();
    EXPECT_EQ(rest->tokens(), std::vector<int32_t>(tokens.begin() + k, tokens.end())) << k;
    // The text is the truth's end, from the first character that the prefix had not completed.
    const std::string whole = truth->text();
    ASSERT_LE(rest->text().size(), whole.size());
    EXPECT_EQ(rest->text(), whole.substr(whole.size() - rest->text().size())) << k;
  }
}

TEST_F(AgentTest, StopStringEndsTheAnswer) {
  v1::GenerateRequest request = ChatRequest("hello there", 40);
  const std::string whole = LocalTruth(request)->text();
  ASSERT_GT(whole.size(), 8u);
  const std::string stop = whole.substr(whole.size() / 2, 3);
  request.add_stop(stop);
  auto answer = LocalTruth(request);
  EXPECT_EQ(answer->text(), whole.substr(0, whole.find(stop)));
  EXPECT_EQ(answer->done().finish_reason(), v1::FINISH_REASON_STOP);
}

// ---- Refusals -----------------------------------------------------------------------------------------------------

TEST_F(AgentTest, BadRequestsAreRefusedWithTheField) {
  auto agent = MakeAgent("", {});
  struct Case {
    const char* what;
    std::function<void(v1::GenerateRequest&)> change;
    absl::StatusCode code;
  };
  using enum absl::StatusCode;
  const Case cases[] = {
      {"input", [](auto& r) { r.clear_input(); }, kInvalidArgument},
      {"conversation", [](auto& r) { r.mutable_conversation()->clear_messages(); }, kInvalidArgument},
      {"conversation", [](auto& r) { r.mutable_conversation()->mutable_messages(0)->set_role("king"); },
       kInvalidArgument},
      {"conversation", [](auto& r) { r.mutable_conversation()->mutable_messages(0)->set_content(" \n"); },
       kInvalidArgument},
      {"prompt", [](auto& r) { r.set_prompt(""); }, kInvalidArgument},
      {"prompt", [](auto& r) { r.set_prompt(std::string(20000, 'x')); }, kOutOfRange},
      {"tokens.tokenizer_fingerprint", [](auto& r) { r.mutable_tokens()->add_ids(1); }, kFailedPrecondition},
      {"tokens.ids", [](auto& r) { r.mutable_tokens()->set_tokenizer_fingerprint(Fingerprint()); }, kInvalidArgument},
      {"tokens.ids",
       [](auto& r) {
         r.mutable_tokens()->set_tokenizer_fingerprint(Fingerprint());
         r.mutable_tokens()->add_ids(-1);
       },
       kInvalidArgument},
      {"accepted_prefix",
       [](auto& r) {
         r.mutable_tokens()->set_tokenizer_fingerprint(Fingerprint());
         r.mutable_tokens()->add_ids(1);
         r.add_accepted_prefix(1 << 30);
       },
       kInvalidArgument},
      {"accepted_prefix", [](auto& r) { r.add_accepted_prefix(1); }, kInvalidArgument},
      {"tools", [](auto& r) { r.add_tools()->set_name("horn"); }, kInvalidArgument},
      {"tools",  // beside ids they would be ignored otherwise
       [](auto& r) {
         r.mutable_tokens()->set_tokenizer_fingerprint(Fingerprint());
         r.mutable_tokens()->add_ids(1);
         r.add_tools()->set_name("horn");
       },
       kInvalidArgument},
      {"max_tokens", [](auto& r) { r.set_max_tokens(-1); }, kInvalidArgument},
      {"hops", [](auto& r) { r.set_hops(-1); }, kInvalidArgument},
      {"temperature", [](auto& r) { r.mutable_sampling()->set_temperature(-1); }, kInvalidArgument},
      {"stop", [](auto& r) { r.add_stop(""); }, kInvalidArgument},
      {"stop", [](auto& r) { r.add_stop(std::string(129, 'x')); }, kInvalidArgument},
      {"stop",
       [](auto& r) {
         for (int i = 0; i < 17; ++i) r.add_stop("x");
       },
       kInvalidArgument},
      {"request_id", [](auto& r) { r.set_request_id(std::string(129, 'x')); }, kInvalidArgument},
      {"request_id", [](auto& r) { r.set_request_id("a\nb"); }, kInvalidArgument},
  };
  for (const Case& bad : cases) {
    v1::GenerateRequest request = ChatRequest("hi");
    bad.change(request);
    auto answer = Ask(*agent, request);
    EXPECT_EQ(answer->status().code(), bad.code) << bad.what << ": " << answer->status();
    EXPECT_THAT(std::string(answer->status().message()), HasSubstr(bad.what));
    EXPECT_THAT(answer->chunks(), IsEmpty());
  }
  EXPECT_TRUE(Ask(*agent, ChatRequest("hi"))->status().ok());
}

TEST_F(AgentTest, FullQueueRefusesAtOnceWithARetryDelay) {
  auto agent = MakeAgent("", {.max_queued = 2, .answers_at_once = 1});
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  int refused = 0;
  for (int i = 0; i < 12; ++i) {
    sinks.push_back(std::make_shared<CollectingSink>());
    agent->Submit(ChatRequest("hello there", 400), SteadyTime::InfiniteFuture(), sinks.back());
  }
  for (auto& sink : sinks) {
    ASSERT_TRUE(sink->Wait());
    if (sink->status().ok()) continue;
    ++refused;
    EXPECT_EQ(sink->status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_TRUE(RetryDelayOf(sink->status()).has_value());
  }
  EXPECT_GT(refused, 0);
  EXPECT_LT(refused, 12);
}

// Holds up the thread that writes the answer, which no sink of a front may do. Chunks that its own submitter hands over
// on the way out of Submit pass.
class HeldSink final : public AnswerSink {
 public:
  absl::Status OnChunk(const v1::Chunk&) override {
    if (std::this_thread::get_id() == submitter_) return absl::OkStatus();
    holds = true;
    held_or_ended.Notify();
    go_on.WaitForNotification();
    return absl::CancelledError("enough");
  }
  void OnEnd(const absl::Status&, const v1::Done&) override {
    if (!holds) held_or_ended.Notify();
    ended.Notify();
  }
  std::atomic<bool> holds{false};
  absl::Notification held_or_ended, go_on, ended;

 private:
  const std::thread::id submitter_ = std::this_thread::get_id();
};

// One is being written and its reader holds it up; of all the others, however many come at once, one may wait.
TEST_F(AgentTest, NoMoreWaitThanMay) {
  auto agent = MakeAgent("", {.max_queued = 1, .answers_at_once = 1});
  std::shared_ptr<HeldSink> held;
  do {  // until the worker is the one that is held up
    held = std::make_shared<HeldSink>();
    agent->Submit(ChatRequest("hello there", 400), SteadyTime::InfiniteFuture(), held);
    held->held_or_ended.WaitForNotification();
  } while (!held->holds);
  constexpr int kAtOnce = 32;
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  std::vector<std::thread> threads;
  for (int i = 0; i < kAtOnce; ++i) sinks.push_back(std::make_shared<CollectingSink>());
  for (int i = 0; i < kAtOnce; ++i) {
    threads.emplace_back(
        [&, i] { agent->Submit(ChatRequest("hello there", 4), SteadyTime::InfiniteFuture(), sinks[i]); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(agent->CurrentLoad().queued_requests(), 1);
  held->go_on.Notify();
  int n_refused = 0;
  for (auto& sink : sinks) {
    ASSERT_TRUE(sink->Wait());
    n_refused += absl::IsResourceExhausted(sink->status()) ? 1 : 0;
  }
  EXPECT_EQ(n_refused, kAtOnce - 1);
  held->ended.WaitForNotification();
}

// The forecast of a local answer knows who is ahead of it: another, whose reader holds the worker up.
TEST_F(AgentTest, TheQueueIsPartOfTheForecast) {
  auto agent = MakeAgent("", {});
  v1::GenerateRequest long_one = ChatRequest("hello there", 400);
  ASSERT_TRUE(Ask(*agent, long_one)->status().ok());  // how long one takes is known now
  EXPECT_GT(agent->CurrentLoad().prefill_tokens_per_s(), 0.0f);
  auto alone = Ask(*agent, ChatRequest("hello there", 4), SteadyNow() + absl::Hours(1));
  EXPECT_EQ(alone->provenance().reason(), "no upstream configured");
  std::shared_ptr<HeldSink> held;
  do {
    held = std::make_shared<HeldSink>();
    agent->Submit(long_one, SteadyTime::InfiniteFuture(), held);
    held->held_or_ended.WaitForNotification();
  } while (!held->holds);
  // What is ahead will take half of a run, and those that wait one each.
  const absl::Duration ahead = absl::Milliseconds(agent->CurrentLoad().predicted_wait_ms());
  ASSERT_GT(ahead, absl::ZeroDuration());
  std::vector<std::shared_ptr<CollectingSink>> waiting;
  for (int i = 0; i < 40; ++i) {
    waiting.push_back(std::make_shared<CollectingSink>());
    agent->Submit(long_one, SteadyTime::InfiniteFuture(), waiting.back());
  }
  const absl::Duration now_ahead = absl::Milliseconds(agent->CurrentLoad().predicted_wait_ms());
  auto hopeless = std::make_shared<CollectingSink>();
  agent->Submit(ChatRequest("hello there", 4), SteadyNow() + now_ahead / 2, hopeless);
  held->go_on.Notify();
  for (auto& sink : waiting) ASSERT_TRUE(sink->Wait());
  ASSERT_TRUE(hopeless->Wait());
  EXPECT_THAT(hopeless->provenance().reason(), HasSubstr("local answer would take"));
  held->ended.WaitForNotification();
}

// A transport may keep its handle until its connection goes, long after the answer.
TEST_F(AgentTest, HandlesOfFinishedRequestsHoldNoText) {
  auto agent = MakeAgent("", {});
  const auto bytes_in_use = [] {
    const struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
  };
  constexpr size_t kTextBytes = 500000;
  std::vector<RequestHandle> handles;
  size_t before = 0;
  for (int i = 0; i < 41; ++i) {
    if (i == 1) before = bytes_in_use();
    v1::GenerateRequest request = ChatRequest("hi");
    request.mutable_conversation()->mutable_messages(0)->set_content(std::string(kTextBytes, 'x'));
    auto sink = std::make_shared<CollectingSink>();
    handles.push_back(agent->Submit(std::move(request), SteadyTime::InfiniteFuture(), sink));
    ASSERT_TRUE(sink->Wait());
  }
  EXPECT_LT(bytes_in_use(), before + 10 * kTextBytes);
}

// ---- Cancel and deadline ------------------------------------------------------------------------------------------

TEST_F(AgentTest, CancelFreesTheWorker) {
  auto agent = MakeAgent("", {});
  auto running = std::make_shared<CollectingSink>();
  auto queued = std::make_shared<CollectingSink>();
  RequestHandle first = agent->Submit(ChatRequest("hello there", 100000), SteadyTime::InfiniteFuture(), running);
  RequestHandle second = agent->Submit(ChatRequest("hello there", 100000), SteadyTime::InfiniteFuture(), queued);
  second.Cancel();
  first.Cancel();
  ASSERT_TRUE(queued->Wait());
  ASSERT_TRUE(running->Wait());
  EXPECT_EQ(queued->status().code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(Ask(*agent, ChatRequest("hi"))->status().ok());
  first.Cancel();  // after the end: nothing
  EXPECT_EQ(agent->CurrentLoad().running_requests(), 0);
}

TEST_F(AgentTest, SinkThatRefusesEndsTheRequest) {
  auto agent = MakeAgent("", {});
  auto sink = std::make_shared<CollectingSink>();
  sink->set_accepts(2);
  agent->Submit(ChatRequest("hello there", 400), SteadyTime::InfiniteFuture(), sink);
  ASSERT_TRUE(sink->Wait());
  EXPECT_EQ(sink->status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(sink->chunks().size(), 3u);
}

TEST_F(AgentTest, DeadlineEndsTheRequest) {
  auto agent = MakeAgent("", {});
  auto late = Ask(*agent, ChatRequest("hello there", 400), SteadyNow() - absl::Seconds(1));
  EXPECT_EQ(late->status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(Ask(*agent, ChatRequest("hi"), SteadyNow() + absl::Minutes(1))->status().ok());
}

// Nobody but the worker looks at those who wait for it.
TEST_F(AgentTest, DeadlineFallsWhileTheRequestIsQueued) {
  auto agent = MakeAgent("", {});
  std::vector<std::shared_ptr<CollectingSink>> before;
  for (int i = 0; i < 40; ++i) {
    before.push_back(std::make_shared<CollectingSink>());
    agent->Submit(ChatRequest("hello there", 400), SteadyTime::InfiniteFuture(), before.back());
  }
  auto late = std::make_shared<CollectingSink>();
  agent->Submit(ChatRequest("hello there", 400), SteadyNow() + absl::Milliseconds(5), late);
  ASSERT_TRUE(late->Wait());
  EXPECT_EQ(late->status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(late->provenance().local_ms(), 0.0) << "it was not run";
  EXPECT_GT(agent->CurrentLoad().queued_requests(), 0) << "told only when its turn had come";
}

// An id that a client uses twice is no circle of upstreams.
TEST_F(AgentTest, RepeatedIdFromBelowIsServed) {
  auto agent = MakeAgent("", {});
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  for (const int hops : {1, 1, 1}) {
    v1::GenerateRequest request = ChatRequest("hello there", 400);
    request.set_request_id("one-trace");
    request.set_hops(hops);
    sinks.push_back(std::make_shared<CollectingSink>());
    agent->Submit(request, SteadyTime::InfiniteFuture(), sinks.back());
  }
  v1::GenerateRequest circle = ChatRequest("hello there", 400);
  circle.set_request_id("one-trace");
  circle.set_hops(2);
  EXPECT_EQ(Ask(*agent, circle)->status().code(), absl::StatusCode::kAlreadyExists);
  for (auto& sink : sinks) {
    ASSERT_TRUE(sink->Wait());
    EXPECT_TRUE(sink->status().ok()) << sink->status();
  }
}

TEST_F(AgentTest, StopEndsWhatIsInProgress) {
  FakeUpstream cloud(Fingerprint());
  cloud.on_generate = [](const v1::GenerateRequest&) {
    Script script;
    script.end_after = 0;
    script.end = Script::End::kStall;
    return script;
  };
  auto agent = MakeAgent(cloud.address(), {.threshold = 1.0});
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  for (int i = 0; i < 6; ++i) {
    sinks.push_back(std::make_shared<CollectingSink>());
    agent->Submit(ChatRequest("hello there"), SteadyTime::InfiniteFuture(), sinks.back());
  }
  agent->Stop(absl::Milliseconds(50));
  for (auto& sink : sinks) {
    ASSERT_TRUE(sink->Wait(absl::ZeroDuration()));
    EXPECT_EQ(sink->status().code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(sink->status().message()), HasSubstr("shutting down"));
  }
  EXPECT_EQ(Ask(*agent, ChatRequest("hi"))->status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace updraft::testing
