// Asking back: which alternatives, in which order, in whose language.
#include "common/cockpit/ask_back.h"

#include <gmock/gmock.h>

#include <string>
#include <vector>

#include "common/cockpit/answer.h"
#include "common/cockpit/json_object.h"

namespace updraft::cockpit {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kHeat[] = R"({"set":{"Vehicle.Cabin.Seat.Row1.DriverSide.HeatingCooling":60},"say":"Seat heating on."})";
constexpr char kHeatOtherwise[] =
    R"({"work":"x","set":{"Vehicle.Cabin.Seat.Row1.DriverSide.HeatingCooling":60},"say":"Done"})";
constexpr char kHeatLess[] =
    R"({"set":{"Vehicle.Cabin.Seat.Row1.DriverSide.HeatingCooling":20},"say":"A little heat."})";
constexpr char kCall[] = R"({"set":{},"call":{"name":"phone","contact":"Mia"},"say":""})";
constexpr char kRefuse[] = R"({"set":{},"refuse":true,"say":"Not mine."})";
constexpr char kTooHot[] = R"({"set":{"Vehicle.Cabin.Seat.Row1.DriverSide.HeatingCooling":999},"say":"Hot."})";
constexpr char kTold[] = R"({"set":{},"result":{"km":3},"say":"Three."})";
constexpr char kAsks[] = R"({"set":{},"clarify":[{"refuse":true}],"say":"?"})";

TEST(EffectTest, WhatAnAnswerDoes) {
  EXPECT_EQ(EffectOf(kHeat), Effect::kAct);
  EXPECT_EQ(EffectOf(kCall), Effect::kAct);
  EXPECT_EQ(EffectOf(kRefuse), Effect::kRefuse);
  EXPECT_EQ(EffectOf(kTold), Effect::kNone);
  EXPECT_EQ(EffectOf(kAsks), Effect::kAsk);
  EXPECT_EQ(EffectOf(kTooHot), Effect::kIllegal);
  EXPECT_EQ(EffectOf(R"({"set":{"Vehicle.Nothing":1},"say":""})"), Effect::kIllegal);
  EXPECT_EQ(EffectOf(R"({"set":"all","say":""})"), Effect::kIllegal);
  EXPECT_EQ(EffectOf(R"({"set":{},"refuse":false,"say":"hm"})"), Effect::kNone);
  EXPECT_EQ(EffectOf(R"({"set":{"Vehicle.Cabin)"), Effect::kNone) << "half an answer";
  EXPECT_EQ(EffectOf("[1]"), Effect::kNone);
  EXPECT_EQ(EffectOf("\xff\x00"), Effect::kNone);
}

TEST(AskBackTest, EachMeaningOnceTheDoubtedFirstThenByVotes) {
  const std::vector<std::string> candidates = {kHeat, kCall, kHeatLess, kHeatOtherwise, kHeatLess};
  const AskedBack asked = AskBack(candidates, "warm my seat");
  EXPECT_THAT(asked.alternatives, ElementsAre(R"({"set":{"Vehicle.Cabin.Seat.Row1.DriverSide.HeatingCooling":60}})",
                                              R"({"set":{"Vehicle.Cabin.Seat.Row1.DriverSide.HeatingCooling":20}})",
                                              R"({"call":{"contact":"Mia","name":"phone"}})"));
  const auto object = ParseObject(asked.text, "answer");
  ASSERT_TRUE(object.ok()) << asked.text;
  EXPECT_EQ((*object)["set"].size(), 0u) << "nothing is set";
  EXPECT_EQ((*object)["clarify"].size(), 3u);
  EXPECT_EQ((*object)["say"], "Did you mean: Seat heating on, or: A little heat, or: call Mia?");
  EXPECT_EQ(EffectOf(asked.text), Effect::kAsk);
}

TEST(AskBackTest, WhatItSaysTellsTheReadingsApart) {
  const auto says = [](const std::vector<std::string>& candidates, const char* request) {
    return (*ParseObject(AskBack(candidates, request).text, "answer"))["say"].get<std::string>();
  };
  EXPECT_EQ(says({R"({"set":{},"call":{"name":"navigate","to":"cafe"},"say":"Starting the route."})",
                  R"({"set":{},"call":{"name":"media","title":"Angie","artist":"Stones"},"say":"Here it comes."})"},
                 "coffee"),
            "Did you mean: navigate to cafe, or: play Angie by Stones?");
  EXPECT_EQ(says({R"({"set":{},"call":{"name":"media","title":"Angie","artist":"Stones"},"say":"好"})",
                  R"({"set":{},"call":{"name":"phone","contact":"妈妈"},"say":"好"})"},
                 "妈妈"),
            "您是想：播放Stones的Angie，还是：打电话给妈妈？");
  EXPECT_EQ(says({R"({"set":{"Vehicle.Cabin.Seat.Row1.DriverSide.HeatingCooling":60},"say":"Warm."})",
                  R"({"set":{"Vehicle.Cabin.Seat.Row1.DriverSide.HeatingCooling":20},"say":"Warm."})", kRefuse},
                 "warm"),
            "Did you mean: Row1.DriverSide.HeatingCooling 60, or: Row1.DriverSide.HeatingCooling 20, or: do nothing?");
}

TEST(AskBackTest, NoMoreThanThree) {
  std::vector<std::string> candidates;
  for (int level = 10; level <= 90; level += 10) {
    candidates.push_back(R"({"set":{"Vehicle.Cabin.Seat.Row1.DriverSide.HeatingCooling":)" + std::to_string(level) +
                         "}}");
  }
  const AskedBack asked = AskBack(candidates, "warm");
  EXPECT_EQ(asked.alternatives.size(), kMaxAlternatives);
  EXPECT_THAT(asked.text, HasSubstr("mean: Row1.DriverSide.HeatingCooling 10"))
      << "what the model did not word is described";
}

TEST(AskBackTest, DoingNothingIsAnAlternativeBesideOthersAndAloneARefusal) {
  const std::vector<std::string> beside = {kHeat, kRefuse};
  EXPECT_THAT(AskBack(beside, "座椅").alternatives,
              ElementsAre(R"({"set":{"Vehicle.Cabin.Seat.Row1.DriverSide.HeatingCooling":60}})", R"({"refuse":true})"));
  for (const std::vector<std::string>& nothing :
       {std::vector<std::string>{kTooHot, kRefuse}, {kTooHot, "{", kTold}, std::vector<std::string>{}}) {
    const AskedBack asked = AskBack(nothing, "hot");
    EXPECT_THAT(asked.alternatives, IsEmpty());
    EXPECT_EQ(EffectOf(asked.text), Effect::kRefuse) << asked.text;
  }
}

TEST(AskBackTest, AsksInTheLanguageOfTheRequestElseOfTheAnswer) {
  const std::vector<std::string> english = {kHeat};
  const std::vector<std::string> chinese = {
      R"({"set":{"Vehicle.Cabin.Seat.Row1.DriverSide.HeatingCooling":60},"say":"座椅加热已打开"})"};
  EXPECT_THAT(AskBack(english, "座椅加热").text, HasSubstr("您是想"));
  EXPECT_THAT(AskBack(chinese, "").text, HasSubstr("您是想：座椅加热已打开？"));
  EXPECT_THAT(AskBack(chinese, "heat").text, HasSubstr("Did you mean"));
  EXPECT_THAT(AskBack(english, "").text, HasSubstr("Did you mean"));
}

TEST(AskBackTest, WhatItSaysIsUtf8WhateverTheModelWrote) {
  const std::vector<std::string> candidates = {
      "{\"set\":{},\"call\":{\"name\":\"phone\",\"contact\":\"\xe6\x9d\x8e\"},\"say\":\"\"}"};
  EXPECT_TRUE(ParseObject(AskBack(candidates, "call").text, "answer").ok());
}

}  // namespace
}  // namespace updraft::cockpit
