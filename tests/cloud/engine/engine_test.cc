#include "cloud/engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cloud/engine/paced_executor.h"
#include "common/status/retry_delay.h"
#include "tests/cloud/engine/fake_executor.h"

namespace updraft::engine {
namespace {

using ::testing::ElementsAreArray;

constexpr int kVocab = 50;
constexpr int kContext = 200;

Request MakeRequest(int n_prompt, int max_tokens, uint64_t seed) {
  Request request;
  for (int i = 0; i < n_prompt; ++i) request.prompt.push_back(static_cast<int32_t>((seed * 7 + i * 13) % kVocab));
  request.max_tokens = max_tokens;
  request.sampling.seed = seed;
  return request;
}

// A sink that another thread can wait for.
class WaitableSink final : public Sink {
 public:
  bool OnTokens(const Output& output) override {
    const std::lock_guard<std::mutex> lock(mu_);
    tokens_.insert(tokens_.end(), output.tokens.begin(), output.tokens.end());
    changed_.notify_all();
    return true;
  }
  void OnDone(const absl::Status& status, const Summary&) override {
    const std::lock_guard<std::mutex> lock(mu_);
    ++n_done_;
    status_ = status;
    changed_.notify_all();
  }
  absl::Status Wait() {
    std::unique_lock<std::mutex> lock(mu_);
    changed_.wait(lock, [&] { return n_done_ > 0; });
    return status_;
  }
  void WaitForTokens(size_t n) {
    std::unique_lock<std::mutex> lock(mu_);
    changed_.wait(lock, [&] { return tokens_.size() >= n || n_done_ > 0; });
  }
  std::vector<int32_t> tokens() {
    const std::lock_guard<std::mutex> lock(mu_);
    return tokens_;
  }
  int n_done() {
    const std::lock_guard<std::mutex> lock(mu_);
    return n_done_;
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  std::vector<int32_t> tokens_;
  int n_done_ = 0;
  absl::Status status_;
};

// The fake model may be held still between steps, or slowed down.
struct Gate {
  void Pass() {
    std::unique_lock<std::mutex> lock(mu);
    open_changed.wait(lock, [&] { return open; });
    absl::SleepFor(step_time);
  }
  void Set(bool value) {
    const std::lock_guard<std::mutex> lock(mu);
    open = value;
    open_changed.notify_all();
  }
  std::mutex mu;
  std::condition_variable open_changed;
  bool open = true;
  absl::Duration step_time = absl::ZeroDuration();  // set before the engine starts
};

std::unique_ptr<Engine> MakeEngine(EngineOptions options, Gate* gate, int n_blocks = 64) {
  options.core.n_blocks = n_blocks;
  options.core.block_tokens = 4;
  auto executor = std::make_unique<FakeExecutor>(kVocab, kContext, options.core);
  if (gate != nullptr) executor->before_run = [gate](const Batch&, std::span<const SampleRow>) { gate->Pass(); };
  return Engine::Create(options, std::move(executor)).value();
}

TEST(EngineOptions, RefusesWhatCannotWork) {
  EXPECT_TRUE(EngineOptions().Validate().ok());
  EXPECT_FALSE((EngineOptions{.core = {.max_running = 0}}).Validate().ok());
  EXPECT_FALSE((EngineOptions{.core = {.max_running = 8, .max_step_tokens = 7}}).Validate().ok());
  EXPECT_FALSE((EngineOptions{.core = {}, .max_queued = 0}).Validate().ok());
}

TEST(Engine, BlocksOtherThanTheExecutorsAreRefused) {
  const EngineOptions options{.core = {.n_blocks = 64, .block_tokens = 4}};
  for (const auto& [n_blocks, block_tokens] : {std::pair(63, 4), {64, 8}, {65, 4}, {128, 2}}) {
    const absl::Status status =
        Engine::Create(options, std::make_unique<FakeExecutor>(
                                    kVocab, kContext, CoreOptions{.n_blocks = n_blocks, .block_tokens = block_tokens}))
            .status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(),
                ::testing::HasSubstr(absl::StrCat(n_blocks, " blocks of ", block_tokens, " tokens, found 64")));
  }
  EXPECT_TRUE(Engine::Create(options, std::make_unique<FakeExecutor>(kVocab, kContext, options.core)).ok());
  EXPECT_TRUE(Engine::Create(options, std::make_unique<PacedExecutor>(kVocab, kContext, Pace())).ok())
      << "it has no KV, so any blocks will do";
}

TEST(Engine, AFullQueueRefusesAtOnceWithADelay) {
  Gate gate;
  gate.Set(false);
  auto engine = MakeEngine({.core = {.max_running = 1, .max_step_tokens = 8}, .max_queued = 3}, &gate);
  std::vector<std::shared_ptr<WaitableSink>> sinks;
  const auto submit = [&] {
    sinks.push_back(std::make_shared<WaitableSink>());
    return engine->Submit(MakeRequest(3, 3, sinks.size()), sinks.back()).status();
  };
  ASSERT_TRUE(submit().ok());
  // The first one leaves the queue when its step is planned; the step then stands at the gate.
  while (engine->stats().n_steps == 0 && submit().ok()) {
  }
  const absl::Status refused = submit();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(RetryDelayOf(refused).has_value());
  EXPECT_GE(*RetryDelayOf(refused), absl::Milliseconds(50));
  EXPECT_GE(engine->stats().n_refused, 1);
  gate.Set(true);
  int n_ok = 0, n_never_called = 0;
  engine->Shutdown(absl::Seconds(60));
  for (auto& sink : sinks) (sink->n_done() == 1 ? n_ok : n_never_called) += 1;
  EXPECT_GE(n_ok, 3);
  EXPECT_GE(n_never_called, 2) << "a refused sink is never called";
}

TEST(Engine, RefusesWhatItCanNeverServe) {
  auto engine = MakeEngine({}, nullptr, /*n_blocks=*/4);
  auto sink = std::make_shared<WaitableSink>();
  EXPECT_EQ(engine->Submit(MakeRequest(10, 100, 1), sink).status().code(), absl::StatusCode::kInvalidArgument);
  engine->Shutdown(absl::ZeroDuration());
  EXPECT_EQ(sink->n_done(), 0);
}

TEST(Engine, CancelWhileAStepRunsFreesTheBlocks) {
  Gate gate;
  gate.step_time = absl::Milliseconds(5);
  auto engine = MakeEngine({}, &gate);
  auto sink = std::make_shared<WaitableSink>();
  const auto ticket = engine->Submit(MakeRequest(20, 150, 1), sink);
  ASSERT_TRUE(ticket.ok());
  sink->WaitForTokens(2);
  engine->Cancel(*ticket);
  EXPECT_EQ(sink->Wait().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(engine->stats().n_free_blocks, 64) << "blocks are free before the caller is told";
}

TEST(Engine, ShutdownLetsAnswersFinishWithinTheGrace) {
  auto engine = MakeEngine({}, nullptr);
  auto sink = std::make_shared<WaitableSink>();
  ASSERT_TRUE(engine->Submit(MakeRequest(20, 100, 1), sink).ok());
  engine->Shutdown(absl::Seconds(60));
  EXPECT_TRUE(sink->Wait().ok());
  EXPECT_EQ(sink->tokens().size(), 100u);
  EXPECT_EQ(engine->Submit(MakeRequest(1, 1, 1), sink).status().code(), absl::StatusCode::kUnavailable);
}

TEST(Engine, ShutdownWithoutGraceEndsTheRest) {
  Gate gate;
  gate.step_time = absl::Milliseconds(20);
  auto engine = MakeEngine({.core = {.max_running = 1, .max_step_tokens = 8}}, &gate);
  auto running = std::make_shared<WaitableSink>(), queued = std::make_shared<WaitableSink>();
  ASSERT_TRUE(engine->Submit(MakeRequest(8, 150, 1), running).ok());
  ASSERT_TRUE(engine->Submit(MakeRequest(8, 150, 2), queued).ok());
  running->WaitForTokens(1);
  engine->Shutdown(absl::ZeroDuration());
  EXPECT_EQ(running->Wait().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(queued->Wait().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(engine->stats().n_free_blocks, 64);
}

// Many threads submit and cancel at once: everyone hears exactly once, answers are right, nothing leaks.
TEST(Engine, ManyThreadsSubmitAndCancel) {
  auto engine = MakeEngine({.core = {.max_running = 6, .max_step_tokens = 24}, .max_queued = 1000}, nullptr,
                           /*n_blocks=*/40);
  constexpr int kThreads = 8, kRequests = 40;
  std::atomic<int> n_wrong = 0, n_finished = 0, n_cancelled = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t + 1);
      for (int i = 0; i < kRequests; ++i) {
        const int n_prompt = 1 + random() % 30, max_tokens = 1 + random() % 40;
        const uint64_t seed = t * 1000 + i;
        auto sink = std::make_shared<WaitableSink>();
        const auto ticket = engine->Submit(MakeRequest(n_prompt, max_tokens, seed), sink);
        if (!ticket.ok()) {
          ++n_wrong;
          continue;
        }
        const bool cancel = random() % 3 == 0;
        if (cancel) {
          sink->WaitForTokens(random() % 5);
          engine->Cancel(*ticket);
        }
        const absl::Status status = sink->Wait();
        const std::vector<int32_t> tokens = sink->tokens();
        const Expected expected = AnswerAlone(MakeRequest(n_prompt, max_tokens, seed), kVocab, kContext);
        const bool is_prefix = tokens.size() <= expected.tokens.size() &&
                               std::equal(tokens.begin(), tokens.end(), expected.tokens.begin());
        if (status.ok()) {
          ++n_finished;
          if (tokens != expected.tokens) ++n_wrong;
        } else {
          ++n_cancelled;
          if (!cancel || status.code() != absl::StatusCode::kCancelled || !is_prefix) ++n_wrong;
        }
        if (sink->n_done() != 1) ++n_wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(n_wrong, 0);
  EXPECT_EQ(n_finished + n_cancelled, kThreads * kRequests);
  EXPECT_EQ(engine->stats().n_free_blocks, 40);
  EXPECT_EQ(engine->stats().n_finished, n_finished);
}

}  // namespace
}  // namespace updraft::engine
