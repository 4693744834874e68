#include "common/routing/router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tests/common/count_allocations.h"

namespace updraft {
namespace {

using ::testing::HasSubstr;

float FactNamed(const RouterInput& input, std::string_view name) {
  const auto names = RouterInput::FactNames();
  return input.facts[static_cast<size_t>(std::find(names.begin(), names.end(), name) - names.begin())];
}

bool Has(const RouterInput& input, const std::vector<uint32_t>& grams) {
  return std::includes(input.grams.begin(), input.grams.end(), grams.begin(), grams.end());
}

// Any weights, of the grams that these prompts have.
Router::Metadata SomeMetadata(const std::vector<std::string>& prompts, uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::normal_distribution<float> normal;
  Router::Metadata metadata;
  for (const std::string_view name : RouterInput::FactNames()) metadata.facts.emplace_back(name);
  for (const std::string& prompt : prompts) {
    for (const uint32_t gram : RouterInputOf(prompt).grams) metadata.grams.push_back(gram);
  }
  std::sort(metadata.grams.begin(), metadata.grams.end());
  metadata.grams.erase(std::unique(metadata.grams.begin(), metadata.grams.end()), metadata.grams.end());
  const auto fill = [&](std::vector<float>& values, size_t n, bool positive) {
    for (size_t i = 0; i < n; ++i) values.push_back(positive ? 0.5f + std::abs(normal(rng)) : normal(rng));
  };
  fill(metadata.mean, RouterInput::kFacts, false);
  fill(metadata.scale, RouterInput::kFacts, true);
  fill(metadata.fact_weights, 2 * RouterInput::kFacts, false);
  fill(metadata.intercepts, 2, false);
  fill(metadata.rarity, metadata.grams.size(), true);
  fill(metadata.fixes, metadata.grams.size(), false);
  fill(metadata.breaks, metadata.grams.size(), false);
  metadata.data_fingerprint = "f00d";
  return metadata;
}

const std::vector<std::string> kPrompts = {"How many eggs are 3 dozen?", "Set the fan to 4, please",
                                           "\u8bf7\u628a\u7a7a\u8c03\u8c03\u5230 22 \u5ea6", ""};

TEST(RouterInputTest, FactsAreWhatOneCounts) {
  const RouterInput input = RouterInputOf("Ann pays $20, then 5%.\nHow MUCH is left?");
  EXPECT_FLOAT_EQ(FactNamed(input, "log_characters"), std::log1p(40.0f));
  EXPECT_FLOAT_EQ(FactNamed(input, "log_words"), std::log1p(7.0f));
  EXPECT_FLOAT_EQ(FactNamed(input, "log_numbers"), std::log1p(2.0f));
  EXPECT_FLOAT_EQ(FactNamed(input, "number_share"), 2.0f / 10.0f);
  EXPECT_FLOAT_EQ(FactNamed(input, "log_sentences"), std::log1p(2.0f));
  EXPECT_FLOAT_EQ(FactNamed(input, "words_per_sentence"), 3.5f);
  EXPECT_FLOAT_EQ(FactNamed(input, "mean_word_bytes"), 24.0f / 8.0f);  // Ann pays then How MUCH is left
  EXPECT_FLOAT_EQ(FactNamed(input, "upper_share"), 6.0f / 41.0f);
  EXPECT_FLOAT_EQ(FactNamed(input, "log_percents"), std::log1p(1.0f));
  EXPECT_FLOAT_EQ(FactNamed(input, "log_currencies"), std::log1p(1.0f));
  EXPECT_FLOAT_EQ(FactNamed(input, "log_newlines"), std::log1p(1.0f));
  EXPECT_FLOAT_EQ(FactNamed(input, "asks_by_word"), 1.0f);
  EXPECT_FLOAT_EQ(FactNamed(input, "ends_with_question"), 1.0f);
  EXPECT_EQ(input.grams.size(), 9u + 8u);  // words and numbers, and neighbours
}

TEST(RouterInputTest, ChineseCharactersAreWords) {
  const RouterInput input = RouterInputOf("\u6253\u5f00\u7a97\u6237\uff1f");
  EXPECT_FLOAT_EQ(FactNamed(input, "log_words"), std::log1p(4.0f));
  EXPECT_FLOAT_EQ(FactNamed(input, "ideograph_share"), 4.0f / 6.0f);
  EXPECT_FLOAT_EQ(FactNamed(input, "ends_with_question"), 1.0f);
  EXPECT_TRUE(Has(input, RouterInputOf("\u7a97\u6237").grams)) << "a part of the words and neighbours";
}

TEST(RouterInputTest, WordsCountWhateverIsBetweenThemAndHoweverBig) {
  EXPECT_EQ(RouterInputOf("open the WINDOW").grams, RouterInputOf("Open, the\n window!").grams);
  EXPECT_NE(RouterInputOf("open the window").grams, RouterInputOf("the open window").grams) << "neighbours";
  EXPECT_NE(RouterInputOf("gate 12").grams, RouterInputOf("gate 1 2").grams);
  EXPECT_EQ(RouterInputOf("caf\u00e9").grams.size(), 1u);
}

TEST(RouterInputTest, AnyBytesGiveFiniteFactsAndSortedGrams) {
  std::mt19937_64 rng(5);
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (int i = static_cast<int>(rng() % 60); i > 0; --i) text.push_back(static_cast<char>(rng()));
    const RouterInput input = RouterInputOf(text);
    for (const float fact : input.facts) EXPECT_TRUE(std::isfinite(fact));
    EXPECT_TRUE(std::is_sorted(input.grams.begin(), input.grams.end()));
    EXPECT_EQ(std::adjacent_find(input.grams.begin(), input.grams.end()), input.grams.end());
    for (const uint32_t gram : input.grams) EXPECT_LT(gram, 1u << RouterInput::kHashBits);
  }
}

TEST(RouterInputTest, OfALongPromptTheEndCounts) {
  const std::string end(RouterInput::kMaxBytes, 'x');
  EXPECT_EQ(RouterInputOf("before " + end).grams, RouterInputOf(end).grams);
  EXPECT_EQ(RouterInputOf("before " + end).facts, RouterInputOf(end).facts);
}

// The definition, with maps, every gram looked up by itself.
TEST(RouterTest, PredictsWhatTheDefinitionSays) {
  const Router::Metadata m = SomeMetadata({kPrompts[0], kPrompts[2]}, 3);
  auto router = Router::FromMetadata(m);
  ASSERT_TRUE(router.ok()) << router.status();
  std::map<uint32_t, size_t> index;
  for (size_t i = 0; i < m.grams.size(); ++i) index[m.grams[i]] = i;
  std::vector<std::string> prompts = kPrompts;
  prompts.push_back("how many 22 " + kPrompts[0]);
  for (const std::string& prompt : prompts) {
    const RouterInput input = RouterInputOf(prompt);
    double squares = 0.0, z[2] = {m.intercepts[0], m.intercepts[1]};
    for (const uint32_t gram : input.grams) {
      if (index.contains(gram)) squares += std::pow(m.rarity[index[gram]], 2.0);
    }
    for (const uint32_t gram : input.grams) {
      if (!index.contains(gram)) continue;
      z[0] += m.rarity[index[gram]] / std::sqrt(squares) * m.fixes[index[gram]];
      z[1] += m.rarity[index[gram]] / std::sqrt(squares) * m.breaks[index[gram]];
    }
    for (int f = 0; f < RouterInput::kFacts; ++f) {
      const double x = 0.05 * std::clamp((input.facts[f] - m.mean[f]) / static_cast<double>(m.scale[f]), -4.0, 4.0);
      z[0] += x * m.fact_weights[f];
      z[1] += x * m.fact_weights[RouterInput::kFacts + f];
    }
    const Router::Score score = router->Predict(input);
    EXPECT_NEAR(score.fixes, 1.0 / (1.0 + std::exp(-z[0])), 1e-6) << prompt;
    EXPECT_NEAR(score.breaks, 1.0 / (1.0 + std::exp(-z[1])), 1e-6) << prompt;
    EXPECT_DOUBLE_EQ(score.gain(), score.fixes - score.breaks);
  }
}

TEST(RouterTest, APredictionNeedsNoHeap) {
  auto router = Router::FromMetadata(SomeMetadata(kPrompts, 4));
  ASSERT_TRUE(router.ok()) << router.status();
  const RouterInput input = RouterInputOf(kPrompts[0]);
  const long before = NumAllocations();
  const double gain = router->Predict(input).gain();
  EXPECT_EQ(NumAllocations(), before);
  EXPECT_TRUE(std::abs(gain) < 1.0);
}

class RouterFileTest : public ::testing::Test {
 protected:
  RouterFileTest() : path_(::testing::TempDir() + "updraft_router_" + std::to_string(getpid()) + ".gguf") {}
  ~RouterFileTest() override { std::filesystem::remove(path_); }

  absl::StatusOr<std::optional<Router>> Reload(const std::function<void(gguf::Writer&)>& fill) {
    auto writer = gguf::Writer::Create(path_);
    if (!writer.ok()) return writer.status();
    writer->SetString("general.architecture", "llama");
    fill(*writer);
    if (absl::Status status = writer->Finish(); !status.ok()) return status;
    auto file = gguf::File::Open(path_);
    if (!file.ok()) return file.status();
    return Router::FromGguf(*file);
  }

  std::string path_;
};

TEST_F(RouterFileTest, AFileGivesBackTheSameRouter) {
  auto router = Router::FromMetadata(SomeMetadata(kPrompts, 6));
  ASSERT_TRUE(router.ok()) << router.status();
  auto reloaded = Reload([&](gguf::Writer& writer) { router->AddTo(writer); });
  ASSERT_TRUE(reloaded.ok()) << reloaded.status();
  ASSERT_TRUE(reloaded->has_value());
  EXPECT_EQ((*reloaded)->metadata().data_fingerprint, "f00d");
  for (const std::string& prompt : kPrompts) {
    EXPECT_EQ((*reloaded)->Predict(RouterInputOf(prompt)).gain(), router->Predict(RouterInputOf(prompt)).gain());
  }
}

TEST_F(RouterFileTest, AFileWithoutOneHasNone) {
  auto none = Reload([](gguf::Writer&) {});
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_FALSE(none->has_value());
}

TEST_F(RouterFileTest, DamagedMetadataIsRefusedByName) {
  const Router::Metadata sound = SomeMetadata(kPrompts, 7);
  struct Case {
    const char* field;
    std::function<void(Router::Metadata&)> damage;
  };
  const Case cases[] = {
      {"facts", [](auto& m) { m.facts.pop_back(); }},
      {"grams", [](auto& m) { std::swap(m.grams[0], m.grams[1]); }},
      {"grams", [](auto& m) { m.grams.back() = 1u << RouterInput::kHashBits; }},
      {"mean", [](auto& m) { m.mean[3] = std::nanf(""); }},
      {"scale", [](auto& m) { m.scale[0] = 0.0f; }},
      {"fact_weights", [](auto& m) { m.fact_weights.pop_back(); }},
      {"intercepts", [](auto& m) { m.intercepts.push_back(0.0f); }},
      {"rarity", [](auto& m) { m.rarity[1] = -1.0f; }},
      {"fixes", [](auto& m) { m.fixes[0] = INFINITY; }},
      {"breaks", [](auto& m) { m.breaks.clear(); }},
  };
  for (const Case& c : cases) {
    Router::Metadata damaged = sound;
    c.damage(damaged);
    const auto router = Router::FromMetadata(std::move(damaged));
    EXPECT_EQ(router.status().code(), absl::StatusCode::kInvalidArgument) << c.field;
    EXPECT_THAT(std::string(router.status().message()), HasSubstr(std::string("updraft.router.") + c.field + ":"));
  }
  auto router = Router::FromMetadata(sound);
  const auto newer = Reload([&](gguf::Writer& writer) {
    router->AddTo(writer);
    writer.SetU32("updraft.router.version", 99);
  });
  EXPECT_THAT(std::string(newer.status().message()), HasSubstr("updraft.router.version: expected 1, found 99"));
  const auto partial = Reload([&](gguf::Writer& writer) { writer.SetU32("updraft.router.version", 1); });
  EXPECT_EQ(partial.status().code(), absl::StatusCode::kInvalidArgument) << partial.status();
}

}  // namespace
}  // namespace updraft
