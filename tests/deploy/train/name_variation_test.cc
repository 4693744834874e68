#include "deploy/train/cockpit/name_variation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>

#include "common/cockpit/answer.h"
#include "common/text/utf8.h"
#include "deploy/train/adapter/sheets.h"

namespace updraft::cockpit {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Example Request(const std::string& text, const std::string& call) {
  Example example;
  example.turns = {{"user", text}};
  example.answer = "{\"set\":{},\"call\":" + call + ",\"say\":\"\"}";
  return example;
}

std::string Field(const Example& example, const char* field) {
  return nlohmann::json::parse(example.answer)["call"][field].get<std::string>();
}

std::vector<Example> Written() {
  std::vector<Example> written;
  const char* source = std::getenv("UPDRAFT_SOURCE_DIR");
  for (const char* name : {"en1", "en20", "zh1", "zh4", "zh17"}) {
    const auto sheet = train::ReadSheet(std::string(source ? source : ".") + "/deploy/train/cockpit/written", name);
    EXPECT_TRUE(sheet.ok()) << sheet.status().message();
    if (sheet.ok()) written.insert(written.end(), sheet->examples.begin(), sheet->examples.end());
  }
  return written;
}

TEST(NameVariationTest, NamesAreExchangedInRequestAndAnswer) {
  const NameVariation variation(Written());
  const Example from = Request("play Blue Harbour by the Tall Weavers for me",
                               R"({"name":"media","title":"Blue Harbour","artist":"the Tall Weavers"})");
  std::set<std::string> titles;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    Random random(seed);
    const std::optional<Example> other = variation.Draw(from, &random);
    ASSERT_TRUE(other);
    ASSERT_TRUE(CheckLegal(other->answer).ok()) << other->answer;
    EXPECT_THAT(other->turns[0].content, HasSubstr("play " + Field(*other, "title")));
    EXPECT_THAT(other->turns[0].content, HasSubstr("by " + Field(*other, "artist") + " for me"));
    EXPECT_THAT(other->answer, Not(HasSubstr("Blue Harbour")));
    titles.insert(Field(*other, "title"));
  }
  EXPECT_GT(titles.size(), 120u);
}

TEST(NameVariationTest, DigitsKeepTheirNumberAndSpacing) {
  const NameVariation variation(Written());
  const Example from = Request("ring 07700 900-461, it's the guy", R"({"name":"phone","contact":"07700900461"})");
  Random random(7);
  const std::optional<Example> other = variation.Draw(from, &random);
  ASSERT_TRUE(other);
  const std::string digits = Field(*other, "contact");
  EXPECT_EQ(digits.size(), 11u);
  EXPECT_NE(digits, "07700900461");
  EXPECT_EQ(other->turns[0].content,
            "ring " + digits.substr(0, 5) + " " + digits.substr(5, 3) + "-" + digits.substr(8) + ", it's the guy");
}

TEST(NameVariationTest, WritingIsKept) {
  const NameVariation variation(Written());
  Random random(3);
  const std::optional<Example> lower = variation.Draw(
      Request("please please drive me to tall weavers hall tonight", R"({"name":"navigate","to":"Tall Weavers Hall"})"),
      &random);
  ASSERT_TRUE(lower);
  std::string place = Field(*lower, "to");
  for (char& c : place) c = static_cast<char>(std::tolower(c));
  EXPECT_EQ(lower->turns[0].content, "please please drive me to " + place + " tonight");
}

TEST(NameVariationTest, WhatIsNotSaidAndWhatIsNoNameStays) {
  const NameVariation variation(Written());
  Random random(5);
  EXPECT_FALSE(variation.Draw(Request("I am hungry", R"({"name":"navigate","to":"restaurant"})"), &random));
  EXPECT_FALSE(variation.Draw(Request("take me home", R"({"name":"navigate","to":"home"})"), &random));
  EXPECT_FALSE(variation.Draw(Request("alpine meadows", R"({"name":"navigate","to":"Alpine Mead"})"), &random))
      << "a part of a word";
  EXPECT_FALSE(variation.Draw(Request("call 123456", R"({"name":"phone","contact":"12345"})"), &random));
  EXPECT_FALSE(NameVariation({}).Draw({}, &random));
}

TEST(NameVariationTest, EarlierTurnsChangeToo) {
  const NameVariation variation(Written());
  Example from = Request("导航去翠微路，算了，先给老郝打电话", R"({"name":"phone","contact":"老郝"})");
  from.turns.insert(from.turns.begin(), {{"user", "老郝在吗"}, {"assistant", R"({"set":{},"say":"老郝？"})"}});
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    Random random(seed);
    const std::optional<Example> other = variation.Draw(from, &random);
    ASSERT_TRUE(other);
    const std::string name = Field(*other, "contact");
    EXPECT_EQ(other->turns[0].content, name + "在吗");
    EXPECT_EQ(other->turns[1].content, "{\"set\":{},\"say\":\"" + name + "？\"}");
    EXPECT_EQ(other->turns[2].content, "导航去翠微路，算了，先给" + name + "打电话");
  }
}

// Nothing to learn from: what there is stays legal.
TEST(NameVariationTest, WithoutWrittenRequestsNamesAreStillOthers) {
  const NameVariation variation({});
  Random random(9);
  const std::optional<Example> other = variation.Draw(
      Request("please call Anna Bell for me right now", R"({"name":"phone","contact":"Anna Bell"})"), &random);
  ASSERT_TRUE(other);
  EXPECT_THAT(other->turns[0].content, HasSubstr(Field(*other, "contact")));
}

// Every line of the sheets, ten times: the answer stays legal and of the same form, everything stays UTF-8.
TEST(NameVariationTest, EveryWrittenLineStaysARequest) {
  const std::vector<Example> written = Written();
  const NameVariation variation(written);
  int n_other = 0;
  for (size_t i = 0; i < written.size(); ++i) {
    Random random(1000 + i);
    for (int time = 0; time < 10; ++time) {
      const std::optional<Example> other = variation.Draw(written[i], &random);
      if (!other) break;
      ++n_other;
      ASSERT_TRUE(CheckLegal(other->answer).ok()) << other->answer;
      ASSERT_EQ(other->turns.size(), written[i].turns.size());
      for (const ChatTurn& turn : other->turns) EXPECT_EQ(text::FirstIllFormed(turn.content), std::string::npos);
      const auto was = nlohmann::json::parse(written[i].answer), is = nlohmann::json::parse(other->answer);
      EXPECT_EQ(was["set"], is["set"]);
      EXPECT_EQ(was["call"].size(), is["call"].size());
      if (i % 97 == 0 && time == 0) {
        std::printf("  %s  ->  %s  %s\n", written[i].turns.back().content.c_str(), other->turns.back().content.c_str(),
                    is["call"].dump().c_str());
      }
    }
  }
  EXPECT_GT(n_other, 1000);
}

}  // namespace
}  // namespace updraft::cockpit
