#include "common/decode/generator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/common/decode/exit_model.h"
#include "tests/common/model/test_models.h"

namespace updraft {
namespace {

using kernels::DType;
using testing::ExitModel;
using testing::kSometimes;
using testing::MakeModel;
using testing::Pool;
using testing::RandomTokens;
using testing::Shape;

struct Answer {
  std::vector<GeneratedToken> generated;
  int64_t layers_run = 0;
  std::vector<int32_t> Tokens() const {
    std::vector<int32_t> tokens;
    for (const GeneratedToken& t : generated) tokens.push_back(t.token);
    return tokens;
  }
};

Answer Generate(const Model& model, const std::vector<int32_t>& prompt, int n, const GeneratorOptions& options) {
  auto pool = Pool(model);
  Generator generator(&model, pool.get(), options);
  EXPECT_TRUE(generator.Prefill(prompt).ok());
  Answer run;
  for (int i = 0; i < n; ++i) {
    absl::StatusOr<GeneratedToken> next = generator.Next();
    EXPECT_TRUE(next.ok()) << next.status();
    if (!next.ok()) break;
    run.generated.push_back(*next);
    EXPECT_EQ(generator.tokens().size(), prompt.size() + run.generated.size());
    EXPECT_EQ(generator.tokens().back(), next->token);
  }
  run.layers_run = generator.layers_run();
  return run;
}

// Keys and values of positions [0, n) in every layer. A pool's blocks are handed out in order, so a sequence alone in
// it has block i of its table at block i of the pool unless it gave some back.
std::vector<float> KvNumbers(KvPool& pool, const ModelConfig& config, int n) {
  std::vector<float> numbers;
  const kernels::KvShape shape = pool.shape();
  for (int layer = 0; layer < config.n_layer; ++layer) {
    const kernels::KvLayer kv = pool.layer(layer);
    for (int p = 0; p < n; ++p) {
      for (int head = 0; head < shape.n_kv_head; ++head) {
        const size_t at = (static_cast<size_t>(p / shape.block_tokens) * shape.n_kv_head + head) * KvHeadBytes(shape);
        for (int d = 0; d < shape.head_dim; ++d) {
          numbers.push_back(KvKeyAt(shape, kv.k + at, p % shape.block_tokens, d));
          numbers.push_back(KvValueAt(shape, kv.v + at, p % shape.block_tokens, d));
        }
      }
    }
  }
  return numbers;
}

TEST(GeneratorTest, OffIsTheForwardPassTokenByToken) {
  const Model& model = ExitModel();
  std::vector<int32_t> tokens = RandomTokens(9, model.config().n_vocab, 1);
  const Answer run = Generate(model, tokens, 12, {});
  for (const GeneratedToken& next : run.generated) {
    const std::vector<float> hidden = testing::HiddenOf(model, tokens);
    std::vector<float> logits = testing::LogitsOf(model, {hidden.end() - model.config().d_model, hidden.end()});
    EXPECT_EQ(next.token, std::max_element(logits.begin(), logits.end()) - logits.begin());
    EXPECT_EQ(next.evidence.exit_layer, model.config().n_layer);
    EXPECT_EQ(next.evidence.top_prob, EvidenceOf(logits, next.token).top_prob);
    EXPECT_EQ(next.evidence.logprob, EvidenceOf(logits, next.token).logprob);
    tokens.push_back(next.token);
  }
  EXPECT_EQ(run.layers_run, 12 * model.config().n_layer);
}

TEST(GeneratorTest, LosslessGivesTheTokensOfOffOn200Prompts) {
  const Model& model = ExitModel();
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  int n_confirmed = 0, n_tokens = 0;
  for (int prompt = 0; prompt < 200; ++prompt) {
    const auto tokens = RandomTokens(1 + static_cast<int>(random() % 20), model.config().n_vocab, random());
    SamplingOptions sampling;
    if (prompt % 2 == 1)
      sampling = {.temperature = 0.8f,
                  .top_k = 40,
                  .top_p = 0.95f,
                  .repetition_penalty = 1.1f,
                  .presence_penalty = 0.5f,
                  .frequency_penalty = 0.25f,
                  .seed = random()};
    const Answer off = Generate(model, tokens, 24, {.sampling = sampling});
    const GeneratorOptions lossless = {.sampling = sampling,
                                       .exit_mode = ExitMode::kLossless,
                                       .exit_thresholds = {kSometimes, kSometimes},
                                       .max_draft_tokens = 1 + static_cast<int>(random() % 6)};
    const Answer drafted = Generate(model, tokens, 24, lossless);
    ASSERT_EQ(drafted.Tokens(), off.Tokens()) << "prompt " << prompt;
    for (size_t i = 0; i < off.generated.size(); ++i) {
      // Evidence is the deep pass's; only who chose the token differs.
      ASSERT_EQ(drafted.generated[i].evidence.top_prob, off.generated[i].evidence.top_prob);
      ASSERT_EQ(drafted.generated[i].evidence.entropy, off.generated[i].evidence.entropy);
      n_confirmed += drafted.generated[i].evidence.exit_layer < model.config().n_layer;
      ++n_tokens;
    }
  }
  std::printf("%d of %d tokens were drafted by an exit and confirmed\n", n_confirmed, n_tokens);
  EXPECT_GT(n_confirmed, n_tokens / 50) << "drafts are never confirmed, so acceptance was not tested";
  EXPECT_LT(n_confirmed, n_tokens) << "drafts are always confirmed, so rejection was not tested";
}

TEST(GeneratorTest, LossyKeepsTheKvCacheOfTheDeepPass) {
  const Model& model = ExitModel();
  const ModelConfig& config = model.config();
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  std::vector<int> left_at(config.n_layer + 1);
  for (int trial = 0; trial < 40; ++trial) {
    const auto prompt = RandomTokens(1 + static_cast<int>(random() % 9), config.n_vocab, random());
    auto pool = Pool(model);
    Generator generator(&model, pool.get(),
                        {.exit_mode = ExitMode::kLossy,
                         .exit_thresholds = {1.2f * kSometimes, 0.5f * kSometimes},
                         .max_pending_tokens = static_cast<int>(random() % 9)});
    ASSERT_TRUE(generator.Prefill(prompt).ok());
    const int n = 10 + static_cast<int>(random() % 40);
    for (int i = 0; i < n; ++i) ++left_at[generator.Next().value().evidence.exit_layer];
    ASSERT_TRUE(generator.Prefill({}).ok());  // finishes what is pending
    const int n_tokens = static_cast<int>(generator.tokens().size());

    auto deep_pool = Pool(model);
    Generator deep(&model, deep_pool.get(), {});
    ASSERT_TRUE(deep.Prefill(generator.tokens()).ok());
    ASSERT_EQ(KvNumbers(*pool, config, n_tokens), KvNumbers(*deep_pool, config, n_tokens)) << "trial " << trial;
  }
  for (const int layers : {config.exit_layers[0], config.exit_layers[1], config.n_layer}) {
    std::printf("%d tokens left after layer %d\n", left_at[layers], layers);
    EXPECT_GT(left_at[layers], 20);
  }
}

TEST(GeneratorTest, LossyChoosesFromTheExitsLogits) {
  const Model& model = ExitModel();
  const ModelConfig& config = model.config();
  std::vector<int32_t> tokens = RandomTokens(5, config.n_vocab, 3);
  const Answer run = Generate(
      model, tokens, 20, {.exit_mode = ExitMode::kLossy, .exit_thresholds = {0.0f, 0.0f}, .max_pending_tokens = 3});
  for (size_t i = 0; i < run.generated.size(); ++i) {
    const GeneratedToken& next = run.generated[i];
    // The first comes from the prompt's deep pass; then three leave at the first exit, and the fourth is forced deep.
    const int want_layers = i % 4 == 0 ? config.n_layer : config.exit_layers[0];
    ASSERT_EQ(next.evidence.exit_layer, want_layers) << i;
    auto pool = Pool(model);
    SequenceKv kv(pool.get());
    ASSERT_TRUE(kv.Reserve(static_cast<int>(tokens.size())).ok());
    std::vector<int32_t> positions(tokens.size());
    for (size_t p = 0; p < positions.size(); ++p) positions[p] = static_cast<int32_t>(p);
    const std::vector<const int32_t*> tables(tokens.size(), kv.blocks().data());
    std::vector<float> hidden(tokens.size() * config.d_model);
    Scratch scratch;
    Forward(model, {.tokens = tokens, .positions = positions, .block_tables = tables}, {.from = 0, .to = want_layers},
            hidden, pool->store(), scratch);
    const std::vector<float> logits =
        testing::LogitsOf(model, {hidden.end() - config.d_model, hidden.end()}, want_layers == config.n_layer ? -1 : 0);
    EXPECT_EQ(next.token, std::max_element(logits.begin(), logits.end()) - logits.begin()) << i;
    EXPECT_EQ(next.evidence.top_prob, EvidenceOf(logits, next.token).top_prob);
    tokens.push_back(next.token);
  }
}

TEST(GeneratorTest, NoTokenMayWaitWhenNoneIsAllowedTo) {
  const Answer run =
      Generate(ExitModel(), {1, 2}, 10,
               {.exit_mode = ExitMode::kLossy, .exit_thresholds = {0.0f, 0.0f}, .max_pending_tokens = 0});
  const Answer off = Generate(ExitModel(), {1, 2}, 10, {});
  EXPECT_EQ(run.Tokens(), off.Tokens());
  EXPECT_EQ(run.layers_run, off.layers_run);
}

TEST(GeneratorTest, AThresholdAboveOneNeverLeaves) {
  const Answer run =
      Generate(ExitModel(), {1, 2}, 10, {.exit_mode = ExitMode::kLossy, .exit_thresholds = {2.0f, 2.0f}});
  EXPECT_EQ(run.layers_run, 10 * ExitModel().config().n_layer);
}

TEST(GeneratorTest, AModelWithoutExitsRunsInEveryMode) {
  const auto model = MakeModel(Shape("tiny-qwen2"), DType::kF32, 9);
  const Answer off = Generate(*model, {5, 6, 7}, 10, {});
  for (const ExitMode mode : {ExitMode::kLossless, ExitMode::kLossy}) {
    EXPECT_EQ(Generate(*model, {5, 6, 7}, 10, {.exit_mode = mode}).Tokens(), off.Tokens());
  }
}

// Everything that a caller can do, in random order, in every mode that must not change the text: the tokens that follow
// are always those of a fresh generator given the same sequence.
TEST(GeneratorTest, AnyHistoryOfCallsLeavesTheSequenceItSays) {
  const Model& model = ExitModel();
  const int n_vocab = model.config().n_vocab;
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int trial = 0; trial < 60; ++trial) {
    const ExitMode mode = trial % 3 == 0 ? ExitMode::kOff : trial % 3 == 1 ? ExitMode::kLossless : ExitMode::kLossy;
    auto pool = Pool(model);
    Generator generator(&model, pool.get(), {.exit_mode = mode, .exit_thresholds = {kSometimes, kSometimes}});
    std::vector<int32_t> mirror;
    for (int step = 0; step < 25; ++step) {
      const uint64_t action = random() % 8;
      if (mirror.empty() || action == 0) {
        const auto more = RandomTokens(1 + static_cast<int>(random() % 8), n_vocab, random());
        if (mirror.size() + more.size() > 200) continue;
        ASSERT_TRUE(generator.Prefill(more).ok());
        mirror.insert(mirror.end(), more.begin(), more.end());
      } else if (action == 1) {
        mirror.push_back(static_cast<int32_t>(random() % n_vocab));
        ASSERT_TRUE(generator.Accept(mirror.back()).ok());
      } else if (action == 2) {
        mirror.resize(random() % (mirror.size() + 1));
        generator.Truncate(static_cast<int>(mirror.size()));
      } else {
        mirror.push_back(generator.Next().value().token);
      }
      ASSERT_EQ(std::vector<int32_t>(generator.tokens().begin(), generator.tokens().end()), mirror);
    }
    if (mirror.empty()) continue;
    if (mode == ExitMode::kLossy) {  // a prompt's last token runs all layers, so the next choice is the deep one
      ASSERT_TRUE(generator.Prefill(std::vector<int32_t>{1}).ok());
      mirror.push_back(1);
    }
    auto fresh_pool = Pool(model);
    Generator fresh(&model, fresh_pool.get(), {});
    ASSERT_TRUE(fresh.Prefill(mirror).ok());
    const GeneratedToken want = fresh.Next().value();
    const GeneratedToken got = generator.Next().value();
    ASSERT_EQ(got.token, want.token);
    ASSERT_EQ(got.evidence.entropy, want.evidence.entropy) << "the hidden state differs";
  }
}

TEST(GeneratorTest, StopsAtTheEndOfTheContextInEveryMode) {
  const Model& model = ExitModel();  // 256 tokens of context
  const auto prompt = RandomTokens(240, model.config().n_vocab, 12);
  const Answer off = Generate(model, prompt, 16, {});
  for (const ExitMode mode : {ExitMode::kOff, ExitMode::kLossless, ExitMode::kLossy}) {
    auto pool = Pool(model);
    Generator generator(&model, pool.get(),
                        {.exit_mode = mode, .exit_thresholds = {0.0f, 0.0f}, .max_draft_tokens = 7});
    ASSERT_TRUE(generator.Prefill(prompt).ok());
    std::vector<int32_t> tokens;
    for (int i = 0; i < 16; ++i) tokens.push_back(generator.Next().value().token);
    if (mode != ExitMode::kLossy) {
      EXPECT_EQ(tokens, off.Tokens());
    }
    EXPECT_EQ(generator.Next().status().code(), absl::StatusCode::kOutOfRange);
    EXPECT_EQ(generator.Accept(1).code(), absl::StatusCode::kOutOfRange);
    generator.Truncate(250);
    EXPECT_TRUE(generator.Next().ok());
  }
}

TEST(GeneratorTest, AFullPoolIsAnErrorThatPasses) {
  const Model& model = ExitModel();
  const auto prompt = RandomTokens(8, model.config().n_vocab, 13);
  const Answer want = Generate(model, prompt, 8, {});
  for (const ExitMode mode : {ExitMode::kOff, ExitMode::kLossless}) {
    auto pool = Pool(model, 4);  // 16 tokens
    SequenceKv other(pool.get());
    ASSERT_TRUE(other.Reserve(4).ok());
    Generator generator(&model, pool.get(), {.exit_mode = mode, .exit_thresholds = {0.0f, 0.0f}});
    EXPECT_EQ(generator.Prefill(RandomTokens(13, model.config().n_vocab, 1)).code(),
              absl::StatusCode::kResourceExhausted);
    EXPECT_TRUE(generator.tokens().empty());
    ASSERT_TRUE(generator.Prefill(prompt).ok());
    std::vector<int32_t> tokens;
    absl::StatusOr<GeneratedToken> next = generator.Next();
    for (; next.ok(); next = generator.Next()) tokens.push_back(next->token);
    EXPECT_EQ(next.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(tokens.size(), 5u);  // positions 8..11 have room, and the token after them needs none yet
    other.Truncate(0);
    for (int i = 0; i < 3; ++i) tokens.push_back(generator.Next().value().token);
    EXPECT_EQ(tokens, want.Tokens());
  }
}

TEST(GeneratorTest, BadInputIsRefusedAndChangesNothing) {
  const Model& model = ExitModel();
  const int n_vocab = model.config().n_vocab;
  auto pool = Pool(model, 128);
  Generator generator(&model, pool.get(), {});
  EXPECT_EQ(generator.Next().status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(generator.Prefill({}).ok());
  EXPECT_EQ(generator.Next().status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(generator.Prefill(std::vector<int32_t>{0, n_vocab}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(generator.Prefill(std::vector<int32_t>{-1}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(generator.Accept(1 << 30).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(generator.Prefill(std::vector<int32_t>(257, 1)).code(), absl::StatusCode::kOutOfRange);
  EXPECT_TRUE(generator.tokens().empty());
  EXPECT_EQ(pool->n_free(), 128);
  generator.Truncate(-3);
  EXPECT_TRUE(generator.Prefill(std::vector<int32_t>(256, 1)).ok());
}

TEST(GeneratorTest, OptionsThatCannotWorkAreRefused) {
  const Model& model = ExitModel();
  auto pool = Pool(model);
  for (const GeneratorOptions& options :
       {GeneratorOptions{.exit_thresholds = {0.5f}}, GeneratorOptions{.exit_thresholds = {0.5f, -1.0f}},
        GeneratorOptions{.max_draft_tokens = 0}, GeneratorOptions{.max_draft_tokens = 65},
        GeneratorOptions{.max_pending_tokens = -1}, GeneratorOptions{.sampling = {.temperature = -1.0f}}}) {
    Generator generator(&model, pool.get(), options);
    EXPECT_EQ(generator.Prefill(std::vector<int32_t>{1}).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(generator.Next().status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(GeneratorTest, BlocksComeBack) {
  const Model& model = ExitModel();
  auto pool = Pool(model, 32);
  {
    Generator generator(&model, pool.get(), {.exit_mode = ExitMode::kLossless, .exit_thresholds = {0.0f, 0.0f}});
    ASSERT_TRUE(generator.Prefill(RandomTokens(30, model.config().n_vocab, 2)).ok());
    for (int i = 0; i < 40; ++i) ASSERT_TRUE(generator.Next().ok());
    EXPECT_LT(pool->n_free(), 16);
  }
  EXPECT_EQ(pool->n_free(), 32);
}

}  // namespace
}  // namespace updraft
