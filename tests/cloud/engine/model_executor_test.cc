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

struct Alone {
  std::vector<int32_t> tokens;
  std::vector<TokenEvidence> evidence;
};

// What the edge's generator makes of a request, without ends.
Alone Generate(const Model& model, const Request& request) {
  auto pool = KvPool::Create(model.config(), {.n_blocks = 24, .block_tokens = 8}).value();
  Generator generator(&model, pool.get(), {.sampling = request.sampling});
  EXPECT_TRUE(generator.Prefill(request.prompt).ok());
  Alone alone;
  for (int t = 0; t < request.max_tokens; ++t) {
    const auto next = generator.Next();
    EXPECT_TRUE(next.ok()) << next.status();
    if (!next.ok()) break;
    alone.tokens.push_back(next->token);
    alone.evidence.push_back(next->evidence);
  }
  return alone;
}

// Twenty requests on one loop, whose blocks are too few for all.
class ModelExecutorTest : public ::testing::Test {
 protected:
  static constexpr int kRequests = 20;

  void SetUp() override {
    model_ = updraft::testing::MakeModel(updraft::testing::Shape("tiny-llama"));
    ASSERT_NE(model_, nullptr);
  }

  void Make(bool reuse_prefixes) {
    executor_ = std::make_unique<ModelExecutor>(
        model_.get(), KvStore::Create(model_->ops(), model_->config(), {.n_blocks = 24, .block_tokens = 8}).value());
    const CoreOptions options{
        .n_blocks = 24, .block_tokens = 8, .max_running = 10, .max_step_tokens = 40, .reuse_prefixes = reuse_prefixes};
    loop_ = std::make_unique<Loop>(options, executor_.get(), SteadyNow);
  }

  std::shared_ptr<RecordingSink> Accept(Ticket ticket, Request request) {
    EXPECT_TRUE(loop_->Check(request).ok()) << loop_->Check(request);
    auto sink = std::make_shared<RecordingSink>();
    loop_->Accept(ticket, std::move(request), sink);
    return sink;
  }

  void RunToIdle() {
    for (int steps = 0; !loop_->idle(); ++steps) {
      ASSERT_LT(steps, 10000);
      loop_->Turn();
      loop_->DeliverDone();
    }
    EXPECT_EQ(loop_->stats().n_free_blocks, 24);
  }

  void ExpectAlone(const RecordingSink& sink, const Alone& alone) {
    EXPECT_TRUE(sink.status.ok());
    EXPECT_THAT(sink.tokens, ElementsAreArray(alone.tokens));
    ASSERT_EQ(sink.evidence.size(), alone.evidence.size());
    for (size_t t = 0; t < alone.evidence.size(); ++t) {
      EXPECT_EQ(sink.evidence[t].top_prob, alone.evidence[t].top_prob);
      EXPECT_EQ(sink.evidence[t].logprob, alone.evidence[t].logprob);
      EXPECT_EQ(sink.evidence[t].exit_layer, model_->config().n_layer);
    }
  }

  std::shared_ptr<Model> model_;
  std::unique_ptr<ModelExecutor> executor_;
  std::unique_ptr<Loop> loop_;
};

TEST_F(ModelExecutorTest, TogetherEqualsAloneAndTheEdgesGenerator) {
  Make(/*reuse_prefixes=*/false);
  const int n_vocab = model_->config().n_vocab;
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < kRequests; ++i) sinks.push_back(Accept(i + 1, MakeRequest(n_vocab, i)));
  RunToIdle();
  EXPECT_GT(loop_->stats().n_preemptions, 0) << "the pool was meant to be too small for all";
  for (int i = 0; i < kRequests; ++i) {
    SCOPED_TRACE(i);
    ExpectAlone(*sinks[i], Generate(*model_, MakeRequest(n_vocab, i)));
  }
}

// Shared blocks, copies of them before they are written, and drafts that are right for a while change no bit.
TEST_F(ModelExecutorTest, SharedPrefixesAndDraftsChangeNothing) {
  Make(/*reuse_prefixes=*/true);
  const int n_vocab = model_->config().n_vocab;
  const std::vector<int32_t> common = updraft::testing::RandomTokens(32, n_vocab, 5);
  std::vector<Request> requests;
  for (int i = 0; i < kRequests; ++i) {
    Request request = MakeRequest(n_vocab, i);
    request.prompt.resize(std::min<size_t>(request.prompt.size(), 12));
    // Of these, some are the common beginning and nothing else: all their blocks are there.
    if (i % 3 == 0) request.prompt.clear();
    request.prompt.insert(request.prompt.begin(), common.begin(), common.begin() + (i % 2 == 0 ? 32 : 16));
    requests.push_back(std::move(request));
  }
  std::vector<Alone> alone;
  for (const Request& request : requests) alone.push_back(Generate(*model_, request));
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < kRequests; ++i) {
    sinks.push_back(Accept(i + 1, std::move(requests[i])));
    if (i % 2 == 0) continue;
    std::vector<int32_t> drafts(alone[i].tokens.begin(), alone[i].tokens.begin() + i % 9);
    drafts.push_back((alone[i].tokens[i % 9] + 1) % n_vocab);
    loop_->Grow(i + 1, drafts);
  }
  RunToIdle();
  const CoreStats& stats = loop_->core().stats();
  EXPECT_GT(stats.n_cached_tokens, 100);
  EXPECT_GT(stats.n_drafts_accepted, 10);
  EXPECT_GT(stats.n_drafts_rejected, 5);
  for (int i = 0; i < kRequests; ++i) {
    SCOPED_TRACE(i);
    ExpectAlone(*sinks[i], alone[i]);
  }
}

}  // namespace
}  // namespace updraft::engine
