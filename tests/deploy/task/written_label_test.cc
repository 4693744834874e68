#include "deploy/task/written_label.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace updraft {
namespace {

using nlohmann::json;

AcceptList ListOf(std::string_view kind, const char* answer) {
  auto list = AcceptListOfWritten(kind, json::parse(answer));
  EXPECT_TRUE(list.ok()) << list.status();
  return *std::move(list);
}

std::string Temperature(double value) {
  return json{{"set", {{"Vehicle.Cabin.HVAC.Station.Row1.Driver.Temperature", value}}}}.dump();
}

TEST(WrittenLabelTest, WarmerIsAnyWarmerAndANumberIsThatNumber) {
  constexpr char kWarmer[] =
      R"({"set":{"Vehicle.Cabin.HVAC.Station.Row1.Driver.Temperature":25},"adjust":{"Vehicle.Cabin.HVAC.Station.Row1.Driver.Temperature":"up"}})";
  for (const char* kind : {"implicit", "levelless", "direct", "multi"}) {
    const AcceptList warmer = ListOf(kind, kWarmer);
    EXPECT_TRUE(warmer.Fits(Temperature(25))) << kind;
    EXPECT_TRUE(warmer.Fits(Temperature(23.5))) << kind;
    EXPECT_FALSE(warmer.Fits(Temperature(22))) << kind << ": that is where it rests";
    EXPECT_FALSE(warmer.Fits(Temperature(18))) << kind;
    EXPECT_FALSE(warmer.Fits(R"({"set":{}})")) << kind;
  }
  EXPECT_FALSE(ListOf("followup", kWarmer).Fits(Temperature(24))) << "the conversation shows from where";
  EXPECT_FALSE(ListOf("direct", Temperature(25).c_str()).Fits(Temperature(24)));
  constexpr char kByTwo[] =
      R"({"set":{"Vehicle.Cabin.HVAC.Station.Row1.Driver.Temperature":24},"adjust":{"Vehicle.Cabin.HVAC.Station.Row1.Driver.Temperature":"+2"}})";
  EXPECT_FALSE(ListOf("implicit", kByTwo).Fits(Temperature(25)));
}

TEST(WrittenLabelTest, WhatAWordBears) {
  const AcceptList crack = ListOf("levelless", R"({"set":{"Vehicle.Cabin.Door.Row1.DriverSide.Window.Position":15}})");
  EXPECT_TRUE(crack.Fits(R"({"set":{"Vehicle.Cabin.Door.Row1.DriverSide.Window.Position":5}})"));
  EXPECT_TRUE(crack.Fits(R"({"set":{"Vehicle.Cabin.Door.Row1.DriverSide.Window.Position":30}})"));
  EXPECT_FALSE(crack.Fits(R"({"set":{"Vehicle.Cabin.Door.Row1.DriverSide.Window.Position":0}})"));
  EXPECT_FALSE(crack.Fits(R"({"set":{"Vehicle.Cabin.Door.Row1.DriverSide.Window.Position":100}})"));
  const AcceptList off = ListOf("levelless", R"({"set":{"Vehicle.Cabin.Seat.Row1.DriverSide.HeatingCooling":0}})");
  EXPECT_FALSE(off.Fits(R"({"set":{"Vehicle.Cabin.Seat.Row1.DriverSide.HeatingCooling":5}})"));
  const AcceptList heat = ListOf("levelless", R"({"set":{"Vehicle.Cabin.Seat.Row1.DriverSide.HeatingCooling":60}})");
  EXPECT_TRUE(heat.Fits(R"({"set":{"Vehicle.Cabin.Seat.Row1.DriverSide.HeatingCooling":100}})"));
  EXPECT_FALSE(heat.Fits(R"({"set":{"Vehicle.Cabin.Seat.Row1.DriverSide.HeatingCooling":-60}})"));
  EXPECT_FALSE(heat.Fits(R"({"set":{"Vehicle.Cabin.Seat.Row1.PassengerSide.HeatingCooling":60}})"));
}

TEST(WrittenLabelTest, NamesCountWithoutCapitalsAndRefusalsAreRefusals) {
  const AcceptList call = ListOf("call", R"({"call":{"name":"phone","contact":"Anna Bell"}})");
  EXPECT_TRUE(call.Fits(R"({"set":{},"call":{"name":"phone","contact":"anna bell"},"say":"x"})"));
  EXPECT_FALSE(call.Fits(R"({"set":{},"call":{"name":"phone","contact":"anna"},"say":"x"})"));
  const AcceptList refuse = ListOf("scope", R"({"refuse":true})");
  EXPECT_TRUE(refuse.Fits(R"({"set":{},"refuse":true,"say":"no"})"));
  EXPECT_FALSE(refuse.Fits(R"({"set":{},"say":"no"})"));
}

TEST(WrittenLabelTest, PartsThatAreNoObjectsAreRefused) {
  EXPECT_FALSE(AcceptListOfWritten("direct", json::parse(R"({"set":3})")).ok());
  EXPECT_FALSE(AcceptListOfWritten("direct", json::parse(R"({"adjust":["x"]})")).ok());
}

// A label fits its own list, whatever the ranges say.
TEST(WrittenLabelTest, EveryLabelFitsItself) {
  const char* source = std::getenv("UPDRAFT_SOURCE_DIR");
  const std::filesystem::path folder = std::filesystem::path(source ? source : ".") / "deploy/train/cockpit/written";
  int n = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".jsonl") continue;
    std::ifstream in(entry.path());
    for (std::string line; std::getline(in, line);) {
      const json parsed = json::parse(line);
      if (parsed["answer"].contains("clarify")) continue;
      const auto list = AcceptListOfWritten(parsed["kind"].get<std::string>(), parsed["answer"]);
      ASSERT_TRUE(list.ok()) << line;
      EXPECT_TRUE(list->Fits(parsed["answer"].dump())) << line;
      ++n;
    }
  }
  EXPECT_GT(n, 12000);
}

}  // namespace
}  // namespace updraft
