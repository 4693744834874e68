// What a generator is given beside its options: drafters change nothing but the time, masks hold whatever is drafted
// and rejected, exit rules decide who leaves.
#include "tests/common/decode/strategies.h"

#include <gtest/gtest.h>

#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "common/decode/generator.h"
#include "tests/common/decode/exit_model.h"
#include "tests/common/model/test_models.h"

namespace updraft {
namespace {

using kernels::DType;
using testing::ExitModel;
using testing::HashMask;
using testing::HostileDrafter;
using testing::kSometimes;
using testing::MakeModel;
using testing::Pool;
using testing::RandomTokens;
using testing::Shape;

struct Chosen {
  std::vector<int32_t> tokens;
  std::vector<float> evidence;
  bool operator==(const Chosen&) const = default;
};

Chosen Generate(Generator& generator, const std::vector<int32_t>& prompt, int n) {
  Chosen chosen;
  EXPECT_TRUE(generator.Prefill(prompt).ok());
  for (int i = 0; i < n; ++i) {
    const auto next = generator.Next();
    EXPECT_TRUE(next.ok()) << next.status();
    if (!next.ok()) break;
    chosen.tokens.push_back(next->token);
    chosen.evidence.insert(chosen.evidence.end(), {next->evidence.top_prob, next->evidence.margin,
                                                   next->evidence.entropy, next->evidence.logprob});
  }
  return chosen;
}

SamplingOptions RandomSampling(std::mt19937_64& random) {
  if (random() % 2 == 0) return {};
  return {.temperature = 0.8f,
          .top_k = random() % 2 == 0 ? 40 : 0,
          .top_p = 0.95f,
          .repetition_penalty = 1.1f,
          .seed = random()};
}

TEST(StrategiesTest, NoDrafterChangesWhatIsChosen) {
  const Model& model = ExitModel();
  const int n_vocab = model.config().n_vocab;
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  int n_tokens = 0, n_calls = 0, n_rollbacks = 0;
  for (int trial = 0; trial < 120; ++trial) {
    SCOPED_TRACE("trial " + std::to_string(trial));
    const auto prompt = RandomTokens(1 + static_cast<int>(random() % 15), n_vocab, random());
    const SamplingOptions sampling = RandomSampling(random);
    const uint64_t mask_seed = random();
    const bool masked = random() % 2 == 0;
    const int n = 24;
    const auto mask = [&] { return masked ? std::make_unique<HashMask>(n_vocab, mask_seed) : nullptr; };

    auto pool = Pool(model);
    Generator off(&model, pool.get(), {.sampling = sampling}, {.mask = mask()});
    const Chosen want = Generate(off, prompt, n);
    std::vector<int32_t> text = prompt;
    text.insert(text.end(), want.tokens.begin(), want.tokens.end());

    // From drafters that are right to drafters that never are; n-grams find little in random text. Where none drafts,
    // the exits do.
    const double wrong = (trial % 5) * 0.25;
    GeneratorStrategies strategies;
    HostileDrafter* hostile = nullptr;
    if (trial % 6 == 5) {
      strategies.drafter = std::make_unique<NgramDrafter>(NgramOptions{.max_ngram = 2, .min_ngram = 1});
    } else {
      auto drafter = std::make_unique<HostileDrafter>(text, n_vocab, wrong, random());
      hostile = drafter.get();
      strategies.drafter = std::move(drafter);
    }
    auto held = mask();
    HashMask* const seen = held.get();
    strategies.mask = std::move(held);
    auto drafted_pool = Pool(model);
    Generator drafted(&model, drafted_pool.get(),
                      {.sampling = sampling,
                       .exit_mode = ExitMode::kLossless,
                       .exit_thresholds = {kSometimes, kSometimes},
                       .max_draft_tokens = 1 + static_cast<int>(random() % 6)},
                      std::move(strategies));
    ASSERT_EQ(Generate(drafted, prompt, n), want);
    if (hostile != nullptr && wrong < 0.3) {
      n_tokens += n;
      n_calls += hostile->n_calls;
    }
    ASSERT_TRUE(drafted.Prefill({}).ok());  // takes back what is verified and not handed out
    if (masked) {
      ASSERT_EQ(seen->seen, want.tokens) << "the mask is where a run without drafts leaves it";
      n_rollbacks += seen->n_rollbacks;
    }
  }
  std::printf("%d tokens in %d passes where most drafts are right; %d rollbacks of masks\n", n_tokens, n_calls,
              n_rollbacks);
  EXPECT_LT(n_calls, n_tokens * 3 / 4) << "right drafts save no passes";
  EXPECT_GT(n_rollbacks, 100) << "masks were hardly rolled back";
}

TEST(StrategiesTest, DraftersWorkWithoutExits) {
  const auto model = MakeModel(Shape("tiny-qwen2"), DType::kF32, 9);
  auto pool = Pool(*model);
  Generator off(model.get(), pool.get(), {});
  const Chosen want = Generate(off, {5, 6, 7}, 30);
  std::vector<int32_t> text = {5, 6, 7};
  text.insert(text.end(), want.tokens.begin(), want.tokens.end());
  auto drafter = std::make_unique<HostileDrafter>(text, model->config().n_vocab, 0.1, 4);
  const HostileDrafter* const calls = drafter.get();
  auto drafted_pool = Pool(*model);
  Generator drafted(model.get(), drafted_pool.get(), {.exit_mode = ExitMode::kLossless},
                    {.drafter = std::move(drafter)});
  EXPECT_EQ(Generate(drafted, {5, 6, 7}, 30), want);
  EXPECT_LT(calls->n_calls, 20);
}

TEST(StrategiesTest, DraftsEndWithTheContextAndTheRoom) {
  const Model& model = ExitModel();  // 256 tokens of context
  const auto prompt = RandomTokens(240, model.config().n_vocab, 12);
  auto pool = Pool(model);
  Generator off(&model, pool.get(), {});
  const Chosen want = Generate(off, prompt, 16);
  std::vector<int32_t> text = prompt;
  text.insert(text.end(), want.tokens.begin(), want.tokens.end());
  for (const int n_blocks : {64, 62}) {  // 256 tokens and more, 248
    auto small = Pool(model, n_blocks);
    Generator drafted(&model, small.get(), {.exit_mode = ExitMode::kLossless, .max_draft_tokens = 7},
                      {.drafter = std::make_unique<HostileDrafter>(text, model.config().n_vocab, 0.0, 5)});
    ASSERT_TRUE(drafted.Prefill(prompt).ok());
    std::vector<int32_t> tokens;
    absl::StatusOr<GeneratedToken> next = drafted.Next();
    for (; next.ok(); next = drafted.Next()) tokens.push_back(next->token);
    EXPECT_EQ(next.status().code(),
              n_blocks == 64 ? absl::StatusCode::kOutOfRange : absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(tokens.size(), n_blocks == 64 ? 16u : 9u);
    EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), want.tokens.begin()));
  }
}

// Everything that a caller can do, in random order: every token of the answer is one that the mask allowed there, and
// the mask has seen the answer's tokens and no others.
TEST(StrategiesTest, AMaskFollowsAnyHistoryOfCalls) {
  const Model& model = ExitModel();
  const int n_vocab = model.config().n_vocab;
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int trial = 0; trial < 60; ++trial) {
    SCOPED_TRACE("trial " + std::to_string(trial));
    const ExitMode mode = trial % 3 == 0 ? ExitMode::kOff : trial % 3 == 1 ? ExitMode::kLossless : ExitMode::kLossy;
    const uint64_t mask_seed = random();
    auto mask = std::make_unique<HashMask>(n_vocab, mask_seed);
    HashMask* const seen = mask.get();
    auto pool = Pool(model);
    Generator generator(
        &model, pool.get(),
        {.sampling = RandomSampling(random), .exit_mode = mode, .exit_thresholds = {kSometimes, kSometimes}},
        {.drafter = std::make_unique<NgramDrafter>(NgramOptions{.max_ngram = 2, .min_ngram = 1}),
         .mask = std::move(mask)});
    std::vector<std::pair<int32_t, bool>> mirror;  // tokens, and whether they are the answer's
    const auto answer = [&] {
      std::vector<int32_t> tokens;
      for (const auto& [token, is_answer] : mirror) {
        if (is_answer) tokens.push_back(token);
      }
      return tokens;
    };
    for (int step = 0; step < 30; ++step) {
      const uint64_t action = random() % 8;
      if (mirror.empty() || action == 0) {
        const auto more = RandomTokens(1 + static_cast<int>(random() % 8), n_vocab, random());
        if (mirror.size() + more.size() > 200) continue;
        ASSERT_TRUE(generator.Prefill(more).ok());
        for (const int32_t token : more) mirror.emplace_back(token, false);
        ASSERT_EQ(seen->seen, answer());
      } else if (action == 1) {
        HashMask fresh(n_vocab, mask_seed);
        fresh.seen = answer();
        const auto token = static_cast<int32_t>(random() % n_vocab);
        const bool allowed = MaskAllows(fresh.Allowed(), token);
        ASSERT_EQ(generator.Accept(token).code(), allowed ? absl::StatusCode::kOk : absl::StatusCode::kInvalidArgument);
        if (allowed) mirror.emplace_back(token, true);
        ASSERT_EQ(seen->seen, answer());
      } else if (action == 2) {
        const size_t n_kept = random() % (mirror.size() + 1);
        generator.Truncate(static_cast<int>(n_kept));
        if (n_kept < mirror.size()) {
          mirror.resize(n_kept);
          ASSERT_EQ(seen->seen, answer());
        }
      } else {
        HashMask fresh(n_vocab, mask_seed);
        fresh.seen = answer();
        const int32_t token = generator.Next().value().token;
        ASSERT_TRUE(MaskAllows(fresh.Allowed(), token));
        mirror.emplace_back(token, true);
        const std::vector<int32_t> given = answer();
        ASSERT_GE(seen->seen.size(), given.size());
        ASSERT_TRUE(std::equal(given.begin(), given.end(), seen->seen.begin()));
      }
    }
  }
}

TEST(StrategiesTest, ALinearRuleOfTheTopProbabilityIsTheThreshold) {
  const Model& model = ExitModel();
  for (const ExitMode mode : {ExitMode::kLossy, ExitMode::kLossless}) {
    const std::vector<float> thresholds = {1.2f * kSometimes, 0.5f * kSometimes};
    auto pool = Pool(model), other_pool = Pool(model);
    Generator by_threshold(&model, pool.get(), {.exit_mode = mode, .exit_thresholds = thresholds});
    GeneratorStrategies strategies;
    strategies.exit_rule =
        LinearExitRule::Create({{.bias = -thresholds[0], .top_prob = 1.0f}, {.bias = -thresholds[1], .top_prob = 1.0f}})
            .value();
    Generator by_rule(&model, other_pool.get(), {.exit_mode = mode, .exit_thresholds = {9.0f, 9.0f}},
                      std::move(strategies));
    EXPECT_EQ(Generate(by_rule, {1, 2, 3}, 60), Generate(by_threshold, {1, 2, 3}, 60));
    EXPECT_EQ(by_rule.layers_run(), by_threshold.layers_run());
    EXPECT_LT(by_rule.layers_run(), 60 * model.config().n_layer);
  }
}

TEST(StrategiesTest, ARuleThatNeverLeavesAndOneForAnotherModel) {
  const Model& model = ExitModel();
  constexpr float kNever = std::numeric_limits<float>::infinity();
  auto pool = Pool(model);
  GeneratorStrategies never;
  never.exit_rule = LinearExitRule::Create({{.least = kNever}, {.least = kNever}}).value();
  Generator generator(&model, pool.get(), {.exit_mode = ExitMode::kLossy}, std::move(never));
  Generate(generator, {1, 2}, 10);
  EXPECT_EQ(generator.layers_run(), 10 * model.config().n_layer);

  GeneratorStrategies foreign;
  foreign.exit_rule = LinearExitRule::Create({LinearExit()}).value();
  Generator refused(&model, pool.get(), {.exit_mode = ExitMode::kLossy}, std::move(foreign));
  EXPECT_EQ(refused.Prefill(std::vector<int32_t>{1}).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace updraft
