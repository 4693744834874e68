// The engine on a real forward pass: what is batched, chunked and preempted equals what runs alone, to the bit.
#include "cloud/engine/model_executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cloud/engine/loop.h"
#include "common/decode/generator.h"
#include "common/model/kv_cache.h"
#include "tests/cloud/engine/fake_executor.h"
#include "tests/common/model/test_models.h"

namespace updraft::engine {
namespace {

using ::testing::ElementsAreArray;

Request MakeRequest(int n_vocab, int i) {
  Request request;
  request.prompt = updraft::testing::RandomTokens(1 + 7 * i % 40, n_vocab, 100 + i);
  request.max_tokens = 10 + i % 17;
  request.sampling.temperature = i % 2 == 0 ? 0.0f : 0.9f;
  request.sampling.top_k = i % 3 == 0 ? 20 : 0;
  request.sampling.repetition_penalty = i % 4 == 0 ? 1.2f : 1.0f;
  request.sampling.seed = 1000 + i;
  request.include_evidence = true;
  return request;
}

TEST(ModelExecutor, TogetherEqualsAloneAndTheEdgesGenerator) {
  const auto model = updraft::testing::MakeModel(updraft::testing::Shape("tiny-llama"));
  ASSERT_NE(model, nullptr);
  const int n_vocab = model->config().n_vocab;
  auto pool = KvPool::Create(model->config(), {.n_blocks = 24, .block_tokens = 8}).value();
  ModelExecutor executor(model.get(),
                         KvStore::Create(model->ops(), model->config(), {.n_blocks = 24, .block_tokens = 8}).value());
  Loop loop({.n_blocks = 24, .block_tokens = 8, .max_running = 10, .max_step_tokens = 40}, &executor, SteadyNow);
  constexpr int kRequests = 20;
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < kRequests; ++i) {
    Request request = MakeRequest(n_vocab, i);
    ASSERT_TRUE(loop.Check(request).ok()) << loop.Check(request);
    sinks.push_back(std::make_shared<RecordingSink>());
    loop.Accept(i + 1, std::move(request), sinks.back());
  }
  for (int steps = 0; !loop.idle(); ++steps) {
    ASSERT_LT(steps, 10000);
    loop.Turn();
    loop.DeliverDone();
  }
  EXPECT_GT(loop.stats().n_preemptions, 0) << "the pool was meant to be too small for all";
  EXPECT_EQ(loop.stats().n_free_blocks, 24);

  for (int i = 0; i < kRequests; ++i) {
    SCOPED_TRACE(i);
    const Request request = MakeRequest(n_vocab, i);
    Generator generator(model.get(), pool.get(), {.sampling = request.sampling});
    ASSERT_TRUE(generator.Prefill(request.prompt).ok());
    std::vector<int32_t> alone;
    std::vector<TokenEvidence> evidence;
    for (int t = 0; t < request.max_tokens; ++t) {
      const auto next = generator.Next();
      ASSERT_TRUE(next.ok()) << next.status();
      alone.push_back(next->token);
      evidence.push_back(next->evidence);
    }
    EXPECT_TRUE(sinks[i]->status.ok());
    EXPECT_THAT(sinks[i]->tokens, ElementsAreArray(alone));
    ASSERT_EQ(sinks[i]->evidence.size(), evidence.size());
    for (size_t t = 0; t < evidence.size(); ++t) {
      EXPECT_EQ(sinks[i]->evidence[t].top_prob, evidence[t].top_prob);
      EXPECT_EQ(sinks[i]->evidence[t].logprob, evidence[t].logprob);
      EXPECT_EQ(sinks[i]->evidence[t].exit_layer, model->config().n_layer);
    }
  }
}

}  // namespace
}  // namespace updraft::engine
