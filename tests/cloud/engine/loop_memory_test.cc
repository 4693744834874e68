// No memory: any one allocation of a step, of a whole turn or of taking a request in fails, the requests that it
// concerns end with RESOURCE_EXHAUSTED and the loop goes on. A program of its own, since it replaces operator new.
#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "cloud/engine/loop.h"
#include "cloud/engine/model_executor.h"
#include "tests/cloud/engine/failing_new.h"
#include "tests/cloud/engine/fake_executor.h"
#include "tests/common/model/test_models.h"

namespace updraft::engine {
namespace {

constexpr CoreOptions kOptions{.n_blocks = 16, .block_tokens = 4, .max_running = 4, .max_step_tokens = 32};

// Fails allocations of the step alone: those of its own thread while it runs.
class StepExecutor final : public Executor {
 public:
  explicit StepExecutor(std::unique_ptr<Executor> inner) : inner_(std::move(inner)) {}
  int n_vocab() const override { return inner_->n_vocab(); }
  int context_length() const override { return inner_->context_length(); }
  std::optional<KvBlocks> kv_blocks() const override { return inner_->kv_blocks(); }
  absl::Status Run(const Step& step, std::span<SampledToken> sampled) override {
    absl::Status status = inner_->Run(step, sampled);
    FailingNew::Disarm();
    return status;
  }

 private:
  const std::unique_ptr<Executor> inner_;
};

struct Outcome {
  bool fired = false;
  absl::Status of_step, of_next;
  int n_free_blocks = 0;
};

// The n-th allocation of a loop's first step, from the planned rows to the end of the executor's run, fails.
Outcome FailAt(std::unique_ptr<Executor> inner, int n) {
  StepExecutor executor(std::move(inner));
  // Turn reads the clock before it plans, and again when a request starts: from there on the step's lists are made.
  int n_reads = 0, arm_at = -1;
  Loop loop(kOptions, &executor, [&] {
    FailingNew::Disarm();
    if (n_reads++ == arm_at) FailingNew::Arm(n);
    return SteadyTime();
  });
  const auto accept = [&](Ticket ticket) {
    Request request;
    for (int i = 0; i < 9; ++i) request.prompt.push_back(i);
    request.max_tokens = 3;
    request.sampling = {.temperature = 0.8f, .top_k = 10, .repetition_penalty = 1.1f, .seed = 4};
    request.include_evidence = true;
    auto sink = std::make_shared<RecordingSink>();
    loop.Accept(ticket, std::move(request), sink);
    return sink;
  };
  const auto run = [&] {
    for (int i = 0; i < 100 && !loop.idle(); ++i) loop.Turn();
    FailingNew::Disarm();
    loop.DeliverDone();
  };
  Outcome outcome;
  const auto first = accept(1);
  arm_at = n_reads + 1;
  run();
  outcome.fired = FailingNew::fired();
  outcome.of_step = first->status;
  const auto second = accept(2);
  run();
  outcome.of_next = second->n_done == 1 ? second->status : absl::InternalError("it never ended");
  outcome.n_free_blocks = loop.stats().n_free_blocks;
  return outcome;
}

template <typename MakeExecutor>
int FailEverywhere(const MakeExecutor& make) {
  for (int n = 0; n < 10000; ++n) {
    const Outcome outcome = FailAt(make(), n);
    EXPECT_EQ(outcome.of_step.code(), outcome.fired ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kOk)
        << "allocation " << n << ": " << outcome.of_step;
    EXPECT_TRUE(outcome.of_next.ok()) << "after allocation " << n << ": " << outcome.of_next;
    EXPECT_EQ(outcome.n_free_blocks, kOptions.n_blocks);
    if (!outcome.fired || ::testing::Test::HasFailure()) return n;
  }
  return -1;
}

TEST(LoopMemory, AnyAllocationOfTheLoopsStepMayFail) {
  EXPECT_GT(FailEverywhere([] { return std::make_unique<FakeExecutor>(50, 120, kOptions); }), 8);
}

TEST(LoopMemory, AnyAllocationOfTheModelsStepMayFail) {
  const auto model = updraft::testing::MakeModel(updraft::testing::Shape("tiny-llama"));
  ASSERT_NE(model, nullptr);
  const int n = FailEverywhere([&] {
    return std::make_unique<ModelExecutor>(
        model.get(), KvStore::Create(model->ops(), model->config(),
                                     {.n_blocks = kOptions.n_blocks, .block_tokens = kOptions.block_tokens})
                         .value());
  });
  EXPECT_GT(n, 15);
  std::printf("%d allocations of a step failed in turn\n", n);
}

// A request with all that a request may have.
Request FullRequest(int i) {
  Request request;
  for (int t = 0; t < 9; ++t) request.prompt.push_back(5 * i + t);
  request.accepted_prefix = {1, 2};
  request.max_tokens = 9;
  request.sampling.seed = i;
  request.include_evidence = true;
  request.text = std::make_unique<LetterText>();
  request.stop = {"never in it: 0", "nor this: 1"};
  return request;
}

class FakeLoop {
 public:
  explicit FakeLoop(bool reuse_prefixes = false) {
    CoreOptions options = kOptions;
    options.max_running = 2;
    options.reuse_prefixes = reuse_prefixes;
    executor_ = std::make_unique<FakeExecutor>(50, 120, options);
    loop_ = std::make_unique<Loop>(options, executor_.get(), [this] { return now_; });
  }
  Loop* operator->() { return loop_.get(); }
  std::shared_ptr<RecordingSink> Accept(Ticket ticket, Request request) {
    auto sink = std::make_shared<RecordingSink>();
    loop_->Accept(ticket, std::move(request), sink);
    return sink;
  }
  void PassTime() { now_ = now_ + absl::Milliseconds(1); }
  // Everybody has ended once, and nothing is left behind.
  void RunToEnd() {
    for (int i = 0; i < 200 && !loop_->idle(); ++i) loop_->Turn();
    loop_->DeliverDone();
    EXPECT_TRUE(loop_->idle());
    EXPECT_TRUE(loop_->core().idle());
    EXPECT_EQ(loop_->n_never_started(), 0);
    EXPECT_EQ(loop_->stats().n_free_blocks, kOptions.n_blocks);
    EXPECT_TRUE(loop_->core().CheckInvariants().ok()) << loop_->core().CheckInvariants();
    EXPECT_EQ(loop_->stats().n_submitted, loop_->stats().n_finished + loop_->stats().n_failed);
  }
  SteadyTime now() const { return now_; }

 private:
  SteadyTime now_;
  std::unique_ptr<FakeExecutor> executor_;
  std::unique_ptr<Loop> loop_;
};

void ExpectServed(const RecordingSink& sink, const Request& request) {
  EXPECT_EQ(sink.n_done, 1);
  EXPECT_TRUE(sink.status.ok()) << sink.status;
  EXPECT_EQ(sink.tokens, AnswerAlone(request, 50, 120).tokens);
}
void ExpectNoMemory(const RecordingSink& sink) {
  EXPECT_EQ(sink.n_done, 1);
  EXPECT_EQ(sink.status.code(), absl::StatusCode::kResourceExhausted) << sink.status;
  EXPECT_NE(sink.status.message().find("memory"), std::string::npos) << sink.status;
}

TEST(LoopMemory, AnyAllocationOfTakingARequestInMayFail) {
  int n_fired = 0;
  for (const bool is_complete : {false, true}) {  // complete: its last characters are all there is to send
    bool fired = true;
    for (int n = 0; fired && n < 1000; ++n) {
      SCOPED_TRACE(n);
      FakeLoop loop(/*reuse_prefixes=*/true);
      const auto first = loop.Accept(1, FullRequest(1));
      loop->Turn();
      Request request = FullRequest(2);
      if (is_complete) {
        request.max_tokens = 2;
        request.stop.push_back(LetterText::Of(2) + "z, of which the end may be the beginning");
      }
      auto second = std::make_shared<RecordingSink>();
      FailingNew::Arm(n);
      loop->Accept(2, std::move(request), second);
      FailingNew::Disarm();
      fired = FailingNew::fired();
      n_fired += fired;
      const auto third = loop.Accept(3, FullRequest(3));
      loop.RunToEnd();
      ExpectServed(*first, FullRequest(1));
      ExpectServed(*third, FullRequest(3));
      if (fired) {
        ExpectNoMemory(*second);
      } else if (is_complete) {
        EXPECT_EQ(second->text, LetterText::Of(2)) << "what was held back below";
      } else {
        ExpectServed(*second, FullRequest(2));
      }
      ASSERT_FALSE(::testing::Test::HasFailure());
    }
    EXPECT_FALSE(fired);
  }
  EXPECT_GT(n_fired, 20);
}

TEST(LoopMemory, AnyAllocationOfATurnMayFail) {
  int n_fired = 0, n_alone = 0;
  for (int turn = 0; turn < 9; ++turn) {
    bool fired = true;
    for (int n = 0; fired && n < 1000; ++n) {
      SCOPED_TRACE(::testing::Message() << "turn " << turn << ", allocation " << n);
      FakeLoop loop;
      const auto first = loop.Accept(1, FullRequest(1)), second = loop.Accept(2, FullRequest(2));
      const auto waiting = loop.Accept(3, FullRequest(3));
      Request late = FullRequest(4);
      late.deadline = loop.now() + absl::Milliseconds(turn);
      const auto expired = loop.Accept(4, std::move(late));
      for (int i = 0; i < turn; ++i) {
        loop->Turn();
        loop.PassTime();
      }
      FailingNew::Arm(n);
      loop->Turn();
      loop->DeliverDone();
      FailingNew::Disarm();
      const bool third_runs = loop->n_never_started() == 0;  // it is the only one that may wait by now
      fired = FailingNew::fired();
      n_fired += fired;
      loop.RunToEnd();
      EXPECT_EQ(expired->n_done, 1);
      EXPECT_EQ(expired->status.code(), absl::StatusCode::kDeadlineExceeded);
      if (!third_runs) ExpectServed(*waiting, FullRequest(3));
      int n_failed = 0;
      for (const auto& [sink, i] : {std::pair(first, 1), {second, 2}, {waiting, 3}}) {
        n_failed += !sink->status.ok();
        sink->status.ok() ? ExpectServed(*sink, FullRequest(i)) : ExpectNoMemory(*sink);
      }
      EXPECT_EQ(n_failed > 0, fired);
      n_alone += n_failed == 1 && !third_runs;
      ASSERT_FALSE(::testing::Test::HasFailure());
    }
    EXPECT_FALSE(fired);
  }
  std::printf("%d allocations of a turn failed in turn\n", n_fired);
  EXPECT_GT(n_fired, 50);
  EXPECT_GT(n_alone, 5) << "where it is the text of one, the other goes on";
}

}  // namespace
}  // namespace updraft::engine
