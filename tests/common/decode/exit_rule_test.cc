#include "common/decode/exit_rule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "common/decode/evidence.h"

namespace updraft {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> RandomLogits(std::mt19937_64& random) {
  std::normal_distribution<float> normal(0.0f, 4.0f);
  std::vector<float> logits(50);
  for (float& x : logits) x = normal(random);
  return logits;
}

TEST(ThresholdExitRuleTest, ComparesTheTopProbability) {
  std::mt19937_64 random(1);
  const std::vector<float> logits = RandomLogits(random);
  const float top = TopProbability(logits);
  const ThresholdExitRule rule({top, std::nextafter(top, 2.0f), 0.0f, 1.0f, 1.5f});
  EXPECT_EQ(rule.n_exits(), 5);
  EXPECT_TRUE(rule.Leaves(0, logits));
  EXPECT_FALSE(rule.Leaves(1, logits));
  EXPECT_TRUE(rule.Leaves(2, logits));
  EXPECT_FALSE(rule.Leaves(3, logits));
  EXPECT_TRUE(rule.MayLeave(3));
  EXPECT_FALSE(rule.MayLeave(4));
}

TEST(LinearExitRuleTest, IsTheWeightedSumOfTheEvidence) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  int n_left = 0;
  for (int trial = 0; trial < 300; ++trial) {
    const LinearExit exit = {.bias = normal(random),
                             .top_prob = normal(random),
                             .margin = normal(random),
                             .entropy = normal(random),
                             .least = normal(random)};
    const auto rule = LinearExitRule::Create({LinearExit{.least = kInfinity}, exit}).value();
    const std::vector<float> logits = RandomLogits(random);
    double top = 0, second = 0, entropy = 0, mass = 0;
    for (const float x : logits) mass += std::exp(double{x});
    for (const float x : logits) {
      const double p = std::exp(double{x}) / mass;
      entropy -= p * std::log(p);
      if (p > top) {
        second = top;
        top = p;
      } else if (p > second) {
        second = p;
      }
    }
    const double want = exit.bias + exit.top_prob * top + exit.margin * (top - second) + exit.entropy * entropy;
    EXPECT_NEAR(rule->Score(1, logits), want, 1e-4);
    EXPECT_EQ(rule->Leaves(1, logits), rule->Score(1, logits) >= exit.least);
    n_left += rule->Leaves(1, logits);
    EXPECT_FALSE(rule->MayLeave(0));
    EXPECT_FALSE(rule->Leaves(0, logits));
  }
  EXPECT_GT(n_left, 30);
  EXPECT_LT(n_left, 270);
}

TEST(LinearExitRuleTest, OfTheTopProbabilityAloneItIsTheThreshold) {
  std::mt19937_64 random(3);
  for (int trial = 0; trial < 200; ++trial) {
    const std::vector<float> logits = RandomLogits(random);
    const float top = TopProbability(logits);
    for (const float threshold : {0.0f, std::nextafter(top, 0.0f), top, std::nextafter(top, 1.0f), 1.0f}) {
      const auto rule = LinearExitRule::Create({{.bias = -threshold, .top_prob = 1.0f}}).value();
      EXPECT_EQ(rule->Leaves(0, logits), ThresholdExitRule({threshold}).Leaves(0, logits));
    }
  }
}

TEST(LinearExitRuleTest, RefusesNumbersThatAreNone) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const LinearExit& exit : {LinearExit{.bias = nan}, LinearExit{.top_prob = kInfinity}, LinearExit{.margin = nan},
                                 LinearExit{.entropy = -kInfinity}, LinearExit{.least = nan}}) {
    EXPECT_EQ(LinearExitRule::Create({LinearExit(), exit}).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(LinearExitRule::Create({}).ok());
  EXPECT_TRUE(LinearExitRule::Create({LinearExit{.least = -kInfinity}}).ok());
}

}  // namespace
}  // namespace updraft
