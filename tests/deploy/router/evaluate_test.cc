#include "deploy/router/evaluate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "deploy/router/fit.h"

namespace updraft {
namespace {

using ::testing::HasSubstr;

const char* const kWords[] = {"river", "engine", "marble", "window", "garden", "yellow", "silver", "walnut"};

// Prompts of eight words in any order. Those with "not" right before a word of the first half are what the strong one
// fixes, but for some noise; those with "very" what it breaks. Alone, the words tell less: "not" is in every prompt.
std::vector<RouterOutcome> Table(int n, uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::vector<RouterOutcome> rows;
  for (int i = 0; i < n; ++i) {
    const uint64_t at = rng() % 8;
    RouterOutcome row;
    for (int k = 0; k < 8; ++k) row.prompt += (k > 0 ? " " : "") + std::string(kWords[rng() % 8]);
    const bool very = rng() % 4 == 0;
    row.prompt += std::string(very ? " very" : "") + " not " + kWords[at] + " " + std::to_string(i);
    const bool noise = rng() % 8 == 0, fixed = (at < 4) != noise;
    row.weak = fixed ? 0.0 : very ? 1.0 : static_cast<double>(rng() % 2);
    row.strong = fixed ? 1.0 : very ? 0.0 : row.weak;
    rows.push_back(row);
  }
  return rows;
}

RouterEvaluationOptions Options() {
  RouterEvaluationOptions options;
  options.resamples = 200;
  return options;
}

TEST(EvaluateRouterTest, LearnsWhatWordsAloneAndLengthDoNotTell) {
  const auto report = EvaluateRouter(Table(600, 1), Options());
  ASSERT_TRUE(report.ok()) << report.status();
  const RankingReport& router = report->rankings[0];
  EXPECT_EQ(router.name, "router");
  EXPECT_GT(router.apgr.interval.low, 0.6);
  EXPECT_LT(router.cpt50.value, 0.5);
  for (size_t i = 1; i < report->rankings.size(); ++i) {
    EXPECT_GT(report->rankings[i].lead.interval.low, 0.0) << report->rankings[i].name;
    EXPECT_NEAR(report->rankings[i].lead.value, router.apgr.value - report->rankings[i].apgr.value, 1e-9);
  }
  // The random ranking is the measure of the measure: half of the gap, in a band that its own spread gives.
  EXPECT_NEAR(report->rankings[3].apgr.value, 0.5, 0.02);
  for (const RankingReport& ranking : report->rankings) {
    EXPECT_LE(ranking.apgr.interval.low, ranking.apgr.value) << ranking.name;
    EXPECT_GE(ranking.apgr.interval.high, ranking.apgr.value) << ranking.name;
  }
  const RouterReport::Point& all = report->curve.back();
  EXPECT_EQ(all.fixed.value, report->fixable);
  EXPECT_EQ(all.broken.value, report->breakable);
  EXPECT_NEAR(all.gain, report->strong - report->weak, 1e-9);
  EXPECT_NEAR(all.stated_gain, all.gain, 0.05) << "log likelihood with a free intercept is right on average";
}

TEST(EvaluateRouterTest, LearnsNothingFromNoiseThatRepeats) {
  // Each prompt four times with outcomes of its own: a fit that sees a prompt's other copies would know it by heart.
  std::vector<RouterOutcome> rows;
  std::mt19937_64 rng(3);
  for (int i = 0; i < 150; ++i) {
    RouterOutcome row{"", static_cast<double>(rng() % 2), 1.0};
    for (int k = 0; k < 6; ++k) row.prompt += " w" + std::to_string(rng() % 1000);
    for (int copy = 0; copy < 4; ++copy) rows.push_back(row);
  }
  const auto report = EvaluateRouter(rows, Options());
  ASSERT_TRUE(report.ok()) << report.status();
  // About 75 independent outcomes of interest: the deviation of a random ranking's APGR is 1 / sqrt(12 * 75) * ... <
  // 0.05.
  EXPECT_NEAR(report->rankings[0].apgr.value, 0.5, 0.15);
}

TEST(EvaluateRouterTest, TheSameSeedGivesTheSameReport) {
  const auto rows = Table(120, 5);
  auto first = EvaluateRouter(rows, Options()), second = EvaluateRouter(rows, Options());
  ASSERT_TRUE(first.ok() && second.ok());
  first->seconds = second->seconds = 0.0;
  EXPECT_EQ(ToJson(*first), ToJson(*second));
  const auto json = nlohmann::json::parse(ToJson(*first));
  EXPECT_EQ(json["rankings"]["prompt length"]["apgr"]["ci95"].size(), 2u);
  EXPECT_EQ(json["curve"].size(), 11u);
  EXPECT_THAT(ToText(*first), HasSubstr("200 resamples of the rows, seed 1"));
}

TEST(EvaluateRouterTest, ARouterOfAFileIsMeasuredAsItIs) {
  const auto train = Table(400, 6), test = Table(400, 7);
  auto router = FitRouter(train, {});
  ASSERT_TRUE(router.ok()) << router.status();
  RouterEvaluationOptions options = Options();
  options.router = &*router;
  const auto there = EvaluateRouter(test, options), here = EvaluateRouter(train, options);
  ASSERT_TRUE(there.ok() && here.ok());
  EXPECT_FALSE(there->seen);
  EXPECT_GT(there->rankings[0].apgr.interval.low, 0.6);
  EXPECT_TRUE(here->seen);
  EXPECT_THAT(ToText(*here), HasSubstr("FITTED ON THIS VERY TABLE"));
}

TEST(EvaluateRouterTest, FoldsAreEvenAndKeepAPromptTogether) {
  auto rows = Table(100, 8);
  for (int i = 0; i < 50; ++i) rows.push_back(rows[i]);
  const std::vector<int> folds = RouterFolds(rows, 7, 1);
  std::map<int, std::set<std::string>> prompts;
  for (size_t i = 0; i < rows.size(); ++i) prompts[folds[i]].insert(rows[i].prompt);
  ASSERT_EQ(prompts.size(), 7u);
  size_t total = 0;
  for (const auto& [fold, some] : prompts) {
    total += some.size();
    EXPECT_TRUE(some.size() == 14 || some.size() == 15) << fold;
  }
  EXPECT_EQ(total, 100u) << "each prompt in one fold";
  EXPECT_NE(folds, RouterFolds(rows, 7, 2));
}

TEST(EvaluateRouterTest, WhatCannotBeMeasuredIsRefused) {
  auto rows = Table(60, 9);
  RouterEvaluationOptions options = Options();
  options.folds = 1;
  EXPECT_THAT(std::string(EvaluateRouter(rows, options).status().message()), HasSubstr("folds: expected 2 to 100"));
  options = Options();
  options.fit.l2 = 0.0;
  EXPECT_THAT(std::string(EvaluateRouter(rows, options).status().message()), HasSubstr("l2: expected"));
  for (RouterOutcome& row : rows) row.prompt = "the same";
  EXPECT_THAT(std::string(EvaluateRouter(rows, Options()).status().message()),
              HasSubstr("every row has the same prompt"));
  rows.resize(49);
  EXPECT_THAT(std::string(EvaluateRouter(rows, Options()).status().message()), HasSubstr("at least 50 rows"));
}

TEST(FitRouterTest, TheOrderOfRowsAndWhatTheyLackDoNotMatter) {
  const auto rows = Table(200, 10);
  auto shuffled = rows;
  std::shuffle(shuffled.begin(), shuffled.end(), std::mt19937_64(1));
  auto router = FitRouter(rows, {}), other = FitRouter(shuffled, {});
  ASSERT_TRUE(router.ok() && other.ok());
  EXPECT_EQ(router->metadata().grams, other->metadata().grams);
  for (const RouterOutcome& row : rows) {
    const RouterInput input = RouterInputOf(row.prompt);
    // The fit ends at a gradient of 1e-5 of its start, from sums in another order.
    EXPECT_NEAR(router->Predict(input).gain(), other->Predict(input).gain(), 1e-3);
  }
}

TEST(FitRouterTest, KeepsTheMostFrequentGramsThatTwoRowsShare) {
  const auto rows = Table(200, 11);
  auto all = FitRouter(rows, {}), some = FitRouter(rows, {.max_grams = 12});
  ASSERT_TRUE(all.ok() && some.ok());
  std::map<uint32_t, int> rows_of;
  for (const RouterOutcome& row : rows) {
    for (const uint32_t gram : RouterInputOf(row.prompt).grams) ++rows_of[gram];
  }
  const size_t shared = std::count_if(rows_of.begin(), rows_of.end(), [](const auto& g) { return g.second >= 2; });
  EXPECT_EQ(all->metadata().grams.size(), shared);
  ASSERT_EQ(some->metadata().grams.size(), 12u);
  int least = 1000, missed = 0;
  for (const uint32_t gram : some->metadata().grams) least = std::min(least, rows_of[gram]);
  for (const auto& [gram, n] : rows_of) {
    const auto& kept = some->metadata().grams;
    if (!std::binary_search(kept.begin(), kept.end(), gram)) missed = std::max(missed, n);
  }
  EXPECT_GE(least, missed);
}

}  // namespace
}  // namespace updraft
