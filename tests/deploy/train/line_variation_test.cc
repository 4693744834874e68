#include "deploy/train/cockpit/line_variation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>

#include "common/cockpit/answer.h"
#include "common/text/utf8.h"
#include "deploy/train/adapter/sheets.h"
#include "deploy/train/cockpit/composer.h"

namespace updraft::cockpit {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr char kVolume[] = "Vehicle.Cabin.Infotainment.Media.Volume";
constexpr char kBrightness[] = "Vehicle.Cabin.Infotainment.HMI.Brightness";

Example Request(const std::string& text, const std::string& answer, Language language = Language::kEnglish) {
  Example example;
  example.language = language;
  example.turns = {{"user", text}};
  example.answer = answer;
  return example;
}

Example Volume(const std::string& text, int volume, Language language = Language::kEnglish) {
  return Request(text,
                 R"({"set":{"Vehicle.Cabin.Infotainment.Media.Volume":)" + std::to_string(volume) + R"(},"say":""})",
                 language);
}

nlohmann::json Set(const Example& example) { return nlohmann::json::parse(example.answer)["set"]; }

std::vector<Example> SayingVolumes() { return {Volume("volume 10", 10), Volume("volume 90", 90)}; }

TEST(LineVariationTest, ANumberChangesInTextAndAnswerInItsSpelling) {
  const std::vector<Example> written = SayingVolumes();
  const LineVariation variation(written);
  const std::vector<std::pair<Example, Language>> cases = {
      {Volume("music at 25, please", 25), Language::kEnglish},
      {Volume("音量二十五吧", 25, Language::kChinese), Language::kChinese},
      {Volume("music at twenty five, please", 25), Language::kEnglish},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    std::set<int> seen;
    for (uint64_t seed = 1; seed <= 100; ++seed) {
      SCOPED_TRACE(::testing::Message() << "case " << i << " seed " << seed);
      Random random(seed);
      const std::optional<Example> other = variation.WithOtherNumbers(cases[i].first, &random);
      ASSERT_TRUE(other);
      const int volume = Set(*other)[kVolume].get<int>();
      EXPECT_GE(volume, 10);
      EXPECT_LE(volume, 90);
      seen.insert(volume);
      EXPECT_THAT(other->turns[0].content,
                  HasSubstr(i == 0 ? std::to_string(volume) : NumberInWords(volume * 10, cases[i].second)));
    }
    EXPECT_GT(seen.size(), 20u);
  }
}

TEST(LineVariationTest, OneNumberOfTwoSignalsChangesInBoth) {
  const std::vector<Example> written = SayingVolumes();
  const LineVariation variation(written);
  const Example both = Request(
      "sound and screen at 40",
      R"({"set":{"Vehicle.Cabin.Infotainment.Media.Volume":40,"Vehicle.Cabin.Infotainment.HMI.Brightness":40},"say":""})");
  Random random(11);
  const std::optional<Example> other = variation.WithOtherNumbers(both, &random);
  ASSERT_TRUE(other);
  EXPECT_EQ(Set(*other)[kVolume], Set(*other)[kBrightness]);
}

TEST(LineVariationTest, WhatIsNotTheValueAsItWasSaidStays) {
  const std::vector<Example> written = SayingVolumes();
  const LineVariation variation(written);
  Random random(2);
  EXPECT_FALSE(variation.WithOtherNumbers(Volume("turn it up by 20", 60), &random));
  EXPECT_FALSE(variation.WithOtherNumbers(Volume("20 now, it was 20 before", 20), &random)) << "said twice";
  EXPECT_FALSE(variation.WithOtherNumbers(Volume("volume 20.5", 20), &random));
  EXPECT_FALSE(variation.WithOtherNumbers(Volume("at 19:20 volume up", 20), &random));
  EXPECT_FALSE(variation.WithOtherNumbers(Volume("音量二十五", 20, Language::kChinese), &random))
      << "within twenty-five";
  Example conversation = Volume("20", 20);
  conversation.turns.insert(conversation.turns.begin(), {{"user", "louder"}, {"assistant", "20?"}});
  EXPECT_FALSE(variation.WithOtherNumbers(conversation, &random)) << "more than one message";
  EXPECT_FALSE(variation.WithOtherNumbers(
      Request("heat 40", R"({"set":{"Vehicle.Cabin.Seat.Row1.DriverSide.HeatingCooling":40},"say":""})"), &random))
      << "no line tells what is said of this signal";
}

TEST(LineVariationTest, TwoLinesInOneBreath) {
  const Example dome = Request("The dome light on.", R"({"set":{"Vehicle.Cabin.Light.IsDomeOn":true},"say":""})");
  const Example call =
      Request("call Anna for me, would you", R"({"set":{},"call":{"name":"phone","contact":"Anna"},"say":""})");
  const Example joke = Request("Tell me a joke", R"({"set":{},"refuse":true,"say":""})");
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    Random random(seed);
    const std::optional<Example> one = Joined(call, dome, &random);
    ASSERT_TRUE(one);
    EXPECT_THAT(one->turns[0].content, ::testing::StartsWith("call Anna for me, would you"));
    EXPECT_THAT(one->turns[0].content, AnyOf(HasSubstr(" the dome light on"), HasSubstr(". The dome light on")));
    EXPECT_TRUE(ExactMatch(
        one->answer,
        R"({"set":{"Vehicle.Cabin.Light.IsDomeOn":true},"call":{"name":"phone","contact":"Anna"},"say":""})"));
    const std::optional<Example> partly = Joined(joke, dome, &random);
    ASSERT_TRUE(partly);
    EXPECT_TRUE(ExactMatch(partly->answer, dome.answer)) << "what this car does not do is left out";
    const std::optional<Example> nothing = Joined(joke, joke, &random);
    ASSERT_TRUE(nothing);
    EXPECT_TRUE(ExactMatch(nothing->answer, joke.answer));
  }
  Random random(1);
  EXPECT_FALSE(Joined(dome, dome, &random)) << "the same signal twice";
  EXPECT_FALSE(Joined(call, call, &random)) << "two calls";
  const Example bare = Request("Anna Bell.", R"({"set":{},"call":{"name":"phone","contact":"Anna Bell"},"say":""})");
  EXPECT_FALSE(Joined(dome, bare, &random)) << "a name alone";
  Example chinese = dome;
  chinese.language = Language::kChinese;
  EXPECT_FALSE(Joined(dome, chinese, &random));
  Example conversation = dome;
  conversation.turns.insert(conversation.turns.begin(), {{"user", "hi"}, {"assistant", "{}"}});
  EXPECT_FALSE(Joined(conversation, call, &random));
}

TEST(LineVariationTest, WithoutSharesLinesComeAsTheyAre) {
  const std::vector<Example> written = SayingVolumes();
  const LineVariation variation(written);
  Random random(4);
  for (int i = 0; i < 20; ++i) {
    const Example line = variation.Draw({}, &random);
    EXPECT_THAT(line.turns[0].content, AnyOf("volume 10", "volume 90"));
  }
}

// Every line of the sheets, varied in every way: it stays a request that the car may be asked, in UTF-8.
TEST(LineVariationTest, EveryWrittenLineStaysARequest) {
  const char* source = std::getenv("UPDRAFT_SOURCE_DIR");
  std::vector<Example> written;
  for (const char* name : {"en2", "en19", "en20", "zh2", "zh4", "zh15"}) {
    const auto sheet = train::ReadSheet(std::string(source ? source : ".") + "/deploy/train/cockpit/written", name);
    ASSERT_TRUE(sheet.ok()) << sheet.status().message();
    written.insert(written.end(), sheet->examples.begin(), sheet->examples.end());
  }
  const LineVariation variation(written);
  int n_numbers = 0, n_changed = 0;
  for (size_t i = 0; i < written.size(); ++i) {
    SCOPED_TRACE(written[i].id);
    Random random(i);
    n_numbers += variation.WithOtherNumbers(written[i], &random).has_value();
    const Example line =
        variation.Draw(written[i], {.names = 0.7, .numbers = 0.7, .joined = 0.3, .typos = 0.3}, &random);
    ASSERT_TRUE(CheckLegal(line.answer).ok()) << line.answer;
    ASSERT_FALSE(line.turns.empty());
    for (const ChatTurn& turn : line.turns) EXPECT_EQ(text::FirstIllFormed(turn.content), std::string::npos);
    n_changed += line.turns.back().content != written[i].turns.back().content;
    if (i % 61 == 0) std::printf("  %s  %s\n", line.turns.back().content.c_str(), line.answer.c_str());
  }
  std::printf("%zu lines, %d with other numbers, %d changed\n", written.size(), n_numbers, n_changed);
  EXPECT_GT(n_numbers, 200);
  EXPECT_GT(n_changed, static_cast<int>(written.size()) / 3);
}

}  // namespace
}  // namespace updraft::cockpit
