// No memory for the host's lists of a step: any one allocation of it fails, the requests of the step end with
// RESOURCE_EXHAUSTED and the loop goes on. A program of its own, since it replaces operator new.
#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
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

}  // namespace
}  // namespace updraft::engine
