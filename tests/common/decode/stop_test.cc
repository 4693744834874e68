#include "common/decode/stop.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace updraft {
namespace {

TEST(StopMatcherTest, HoldsBackWhatMayBeAStart) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.Push("the E"), "the ");
  EXPECT_EQ(matcher.Push("N"), "");
  EXPECT_EQ(matcher.Push("Emy "), "ENEmy ");
  EXPECT_EQ(matcher.Push("is the EN"), "is the ");
  EXPECT_FALSE(matcher.stopped());
  EXPECT_EQ(matcher.Push("D of it"), "");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.matched(), "END");
  EXPECT_EQ(matcher.Push("more"), "");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcherTest, FlushesWhatWasHeldAtTheEnd) {
  StopMatcher matcher({"\n\nUser:"});
  EXPECT_EQ(matcher.Push("fine.\n\nUs"), "fine.");
  EXPECT_EQ(matcher.Flush(), "\n\nUs");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopMatcherTest, TheFirstCompleteOneWinsAndTheLongerOfTwoAtOnce) {
  StopMatcher first({"abcd", "bc"});
  EXPECT_EQ(first.Push("xabcd"), "xa");
  EXPECT_EQ(first.matched(), "bc");
  StopMatcher longer({"b", "ab"});
  EXPECT_EQ(longer.Push("xab"), "x");
  EXPECT_EQ(longer.matched(), "ab");
}

TEST(StopMatcherTest, WithoutStopStringsEverythingPasses) {
  StopMatcher none({});
  EXPECT_EQ(none.Push("abc"), "abc");
  StopMatcher empty({"", ""});
  EXPECT_EQ(empty.Push("abc"), "abc");
  EXPECT_FALSE(empty.stopped());
}

// Against searching the whole text, for small alphabets where overlaps and self-similar stop strings are the rule.
TEST(StopMatcherTest, AgreesWithASearchOfTheWholeTextHoweverItIsCut) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const auto text_of = [&](size_t n) {
    std::string text;
    for (size_t i = 0; i < n; ++i) text += static_cast<char>('a' + random() % 2);
    return text;
  };
  int n_stopped = 0;
  for (int trial = 0; trial < 5000; ++trial) {
    std::vector<std::string> stops;
    for (uint64_t i = random() % 4; i-- > 0;) stops.push_back(text_of(3 + random() % 6));
    const std::string text = text_of(random() % 60);
    size_t end = std::string::npos, begin = 0;
    for (const std::string& stop : stops) {
      const size_t at = text.find(stop);
      if (at == std::string::npos) continue;
      const size_t stop_end = at + stop.size();
      if (end == std::string::npos || stop_end < end || (stop_end == end && at < begin)) {
        end = stop_end;
        begin = at;
      }
    }
    StopMatcher matcher(stops);
    std::string passed;
    for (size_t done = 0; done < text.size();) {
      const size_t n = 1 + random() % 7;
      passed += matcher.Push(std::string_view(text).substr(done, n));
      ASSERT_LE(passed.size(), begin + (end == std::string::npos ? text.size() : 0));
      done += n;
    }
    passed += matcher.Flush();
    ASSERT_EQ(matcher.stopped(), end != std::string::npos) << text;
    ASSERT_EQ(passed, end == std::string::npos ? text : text.substr(0, begin)) << text;
    n_stopped += matcher.stopped();
  }
  EXPECT_GT(n_stopped, 500);
}

}  // namespace
}  // namespace updraft
