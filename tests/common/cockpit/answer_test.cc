#include "common/cockpit/answer.h"

#include <gtest/gtest.h>

#include <string>

namespace updraft::cockpit {
namespace {

TEST(ExactMatchTest, ComparesMeaningAndNothingElse) {
  const std::string expected = R"({"work":"1+1=2","set":{"a":22,"b":true},"call":{"name":"phone"},"say":"OK"})";
  EXPECT_TRUE(ExactMatch(expected, expected));
  EXPECT_TRUE(ExactMatch(expected, R"({"call":{"name":"phone"},"set":{"b":true,"a":22.0},"say":"Sure"})"));
  EXPECT_FALSE(ExactMatch(expected, R"({"set":{"a":22,"b":true},"say":"OK"})"));
  EXPECT_FALSE(ExactMatch(expected, R"({"set":{"a":22.5,"b":true},"call":{"name":"phone"}})"));
  EXPECT_FALSE(ExactMatch(expected, R"({"set":{"a":22,"b":1},"call":{"name":"phone"}})"));
  EXPECT_FALSE(ExactMatch(expected, R"({"set":{"a":22,"b":true,"c":0},"call":{"name":"phone"}})"));
  EXPECT_TRUE(ExactMatch(R"({"set":{},"refuse":true,"say":"No"})", R"({"refuse":true})"));
  EXPECT_FALSE(ExactMatch(R"({"set":{},"refuse":true,"say":"No"})", R"({"set":{},"say":"No"})"));
  EXPECT_TRUE(ExactMatch(R"({"result":{"x":28.8}})", R"({"result":{"x":28.80},"refuse":false})"));
}

TEST(PartsTest, WhatActsEndsWhereTheReplyBegins) {
  const std::string acting = R"({"set":{"Vehicle.A":1,"Vehicle.B":"x"},"call":{"name":"media","title":"say"},)";
  const Parts whole = PartsOf(acting + R"("say":"\"Vehicle.C\" \"refuse\":"})");
  EXPECT_EQ(whole.acting_bytes, acting.size());
  EXPECT_EQ(whole.n_settings, 2);
  EXPECT_TRUE(whole.calls);
  EXPECT_FALSE(whole.refuses);
  const Parts begun = PartsOf(acting.substr(0, 22));
  EXPECT_EQ(begun.acting_bytes, std::string_view::npos);
  EXPECT_EQ(begun.n_settings, 1);
  EXPECT_FALSE(begun.calls);
  EXPECT_TRUE(PartsOf(R"({"set":{},"refuse":true,"say":"No."})").refuses);
  for (const std::string any : {"", "\xff\"say\":", "\"Vehicle.\"Vehicle.", "{\"say\":"}) PartsOf(any);
}

TEST(ExactMatchTest, MalformedNeverMatches) {
  const std::string deep = std::string(5000, '[') + std::string(5000, ']');
  const std::string cases[] = {"",
                               "null",
                               "[]",
                               "{",
                               "{}x",
                               "{\"set\":3}",
                               "{\"refuse\":\"yes\"}",
                               "{\"call\":[]}",
                               "{\"set\":" + deep + "}",
                               std::string(100000, ' ')};
  for (const std::string& text : cases) {
    EXPECT_FALSE(ExactMatch(text, text)) << text.substr(0, 40);
    EXPECT_FALSE(CanonicalSettings(text).ok()) << text.substr(0, 40);
  }
}

TEST(CheckLegalTest, LegalAndIllegalAnswers) {
  const auto set = [](const std::string& pair) { return CheckLegal("{\"set\":{" + pair + "}}"); };
  EXPECT_TRUE(set(R"("Vehicle.Cabin.HVAC.Station.Row1.Driver.FanSpeed":40)").ok());
  EXPECT_FALSE(set(R"("Vehicle.Cabin.HVAC.Station.Row1.Driver.FanSpeed":101)").ok());
  EXPECT_FALSE(set(R"("Vehicle.Cabin.HVAC.Station.Row1.Driver.FanSpeed":40.5)").ok());
  EXPECT_FALSE(set(R"("Vehicle.Cabin.HVAC.Station.Row1.Driver.FanSpeed":"40")").ok());
  EXPECT_FALSE(set(R"("Vehicle.Cabin.HVAC.Station.Row9.Driver.FanSpeed":40)").ok());
  EXPECT_FALSE(set(R"("Vehicle.Body.Windshield.Front.Wiping.Mode":"FASTER")").ok());
  EXPECT_TRUE(set(R"("Vehicle.Body.Windshield.Front.Wiping.Mode":"FAST")").ok());
  EXPECT_TRUE(set(R"("Vehicle.Cabin.Seat.Row2.DriverSide.HeatingCooling":-100)").ok());
  EXPECT_FALSE(CheckLegal("{\"call\":{\"name\":\"shell\"}}").ok());
  EXPECT_FALSE(CheckLegal("not json").ok());
  // What it says of a value must not walk down to the bottom of it.
  const std::string deep = std::string(400000, '[') + std::string(400000, ']');
  EXPECT_FALSE(set("\"Vehicle.Cabin.Light.IsDomeOn\":" + deep).ok());
}

}  // namespace
}  // namespace updraft::cockpit
