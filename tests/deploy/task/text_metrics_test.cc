#include "deploy/task/text_metrics.h"

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "deploy/task/statistics.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace updraft {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(ScoringWordsTest, LettersDigitsAndCjk) {
  EXPECT_THAT(ScoringWords("Turn it UP, by 2.5!"), ElementsAre("turn", "it", "up", "by", "2", "5"));
  EXPECT_THAT(ScoringWords("\u6253\u5f00AC\u7a7a"), ElementsAre("\u6253", "\u5f00", "ac", "\u7a7a"));
  EXPECT_THAT(ScoringWords("caf\u00e9"), ElementsAre("caf\u00e9"));
  EXPECT_THAT(ScoringWords(" ,.\n"), IsEmpty());
}

TEST(ScoringWordsTest, AnyBytesAreAccepted) {
  std::mt19937 rng(4);
  for (int i = 0; i < 2000; ++i) {
    std::string bytes(rng() % 20, '\0');
    for (char& c : bytes) c = static_cast<char>(rng());
    size_t kept = 0;
    for (const std::string& word : ScoringWords(bytes)) {
      EXPECT_FALSE(word.empty());
      kept += word.size();
    }
    EXPECT_LE(kept, bytes.size());
  }
}

TEST(ExactTextTest, IgnoresCaseAndPunctuationOnly) {
  EXPECT_TRUE(ExactText("Yes, 12.", "yes 12"));
  EXPECT_FALSE(ExactText("yes 12", "yes 21"));
}

TEST(WordF1Test, KnownValues) {
  EXPECT_DOUBLE_EQ(WordF1("the cat sat", "the cat sat"), 1.0);
  EXPECT_DOUBLE_EQ(WordF1("the cat sat", "a dog"), 0.0);
  EXPECT_NEAR(WordF1("the cat sat", "the the cat"), 2.0 * 2 / 6, 1e-12);  // the second "the" has no partner
  EXPECT_DOUBLE_EQ(WordF1("", ""), 1.0);
  EXPECT_DOUBLE_EQ(WordF1("word", ""), 0.0);
}

TEST(CorpusBleuTest, KnownValues) {
  CorpusBleu same;
  same.Add("the quick brown fox jumps", "the quick brown fox jumps");
  EXPECT_NEAR(same.value(), 1.0, 1e-12);
  CorpusBleu none;
  none.Add("one two three four", "five six seven eight");
  EXPECT_EQ(none.value(), 0.0);
  EXPECT_EQ(CorpusBleu().value(), 0.0);
  // 7 words against 6: matches 5/6, 3/5, 2/4, 1/3; brevity exp(1 - 7/6).
  CorpusBleu partly;
  partly.Add("the cat is on the red mat", "the cat is on a mat");
  EXPECT_NEAR(partly.value(), std::exp(1.0 - 7.0 / 6.0) * std::pow(5.0 / 6 * 3.0 / 5 * 2.0 / 4 * 1.0 / 3, 0.25), 1e-12);
  CorpusBleu word;  // no pair of words at all: scored by what there is
  word.Add("yes", "yes");
  EXPECT_NEAR(word.value(), 1.0, 1e-12);
}

TEST(WilsonIntervalTest, PublishedValuesAndEnds) {
  // Newcombe (1998), table I: 81 of 263 gives 0.2553 to 0.3662.
  EXPECT_NEAR(WilsonInterval(81, 263).low, 0.2553, 1e-4);
  EXPECT_NEAR(WilsonInterval(81, 263).high, 0.3662, 1e-4);
  EXPECT_EQ(WilsonInterval(0, 20).low, 0.0);
  EXPECT_GT(WilsonInterval(0, 20).high, 0.1);
  EXPECT_EQ(WilsonInterval(0, 0).high, 1.0);
}

TEST(QuantileTest, LinearBetweenOrderStatistics) {
  const std::vector<double> values = {4, 1, 3, 2};
  EXPECT_EQ(Quantile(values, 0.0), 1.0);
  EXPECT_EQ(Quantile(values, 0.5), 2.5);
  EXPECT_EQ(Quantile(values, 1.0), 4.0);
  EXPECT_EQ(Quantile({}, 0.5), 0.0);
}

TEST(BootstrapTest, CoversTheMeanAsOftenAsPromised) {
  std::mt19937_64 rng(3);
  std::exponential_distribution<double> draw(1.0);  // mean 1, skewed
  int covered = 0;
  constexpr int kRuns = 200;
  for (int run = 0; run < kRuns; ++run) {
    std::vector<double> values(150);
    for (double& value : values) value = draw(rng);
    const Interval interval = BootstrapMeanInterval(values, static_cast<uint64_t>(run));
    covered += interval.low <= 1.0 && 1.0 <= interval.high ? 1 : 0;
  }
  // 95 % promised; the percentile bootstrap of 150 skewed values gives a little less, and 200 runs have a deviation
  // of 1.5 %.
  EXPECT_GE(covered, static_cast<int>(0.89 * kRuns));
  EXPECT_LT(covered, kRuns);
}

}  // namespace
}  // namespace updraft
