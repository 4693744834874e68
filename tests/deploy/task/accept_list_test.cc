#include "deploy/task/accept_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "tests/random.h"

namespace updraft {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

AcceptList Made(const std::string& alternatives) {
  auto list = AcceptList::FromJson(json::parse(alternatives));
  EXPECT_TRUE(list.ok()) << list.status();
  return *std::move(list);
}

TEST(AcceptListTest, Settings) {
  const AcceptList list = Made(R"([{"set": {"A.B": {"range": [10, 20]}}, "optional": {"C": true}}, {"refuse": true}])");
  EXPECT_TRUE(list.Fits(R"({"set": {"A.B": 10}, "say": "x"})"));
  EXPECT_TRUE(list.Fits(R"({"set": {"A.B": 20.0, "C": true}})"));
  EXPECT_TRUE(list.Fits(R"({"set": {}, "refuse": true})"));
  EXPECT_FALSE(list.Fits(R"({"set": {"A.B": 20.5}})"));
  EXPECT_FALSE(list.Fits(R"({"set": {"A.B": true}})")) << "true is no number";
  EXPECT_FALSE(list.Fits(R"({"set": {"A.B": 15, "C": false}})"));
  EXPECT_FALSE(list.Fits(R"({"set": {"A.B": 15, "D": 1}})")) << "nobody asked for D";
  EXPECT_FALSE(list.Fits(R"({"set": {"C": true}})"));
  EXPECT_FALSE(list.Fits(R"({"set": {"A.B": 15}, "refuse": true})"));
  EXPECT_FALSE(list.Fits(R"({"set": [1]})"));
  for (const char* no_object : {"", "{", "[]", "12", "\xff", "null"}) EXPECT_FALSE(list.Fits(no_object)) << no_object;
}

TEST(AcceptListTest, Matchers) {
  const AcceptList list = Made(
      R"([{"call": {"name": "media", "title": {"any": ["Blue Moon", {"contains": "ärger"}]}}, "result": {"left": 0.3}}])");
  EXPECT_TRUE(
      list.Fits(R"({"call": {"name": "media", "title": " blue moon"}, "result": {"left": 0.3, "unit": "km"}})"));
  EXPECT_TRUE(list.Fits(R"({"call": {"name": "MEDIA", "title": "Der ÄRGER"}, "result": {"left": 0.2999999}})"));
  EXPECT_TRUE(
      list.Fits(R"({"call": {"name": "media", "title": "Blue Moon", "artist": "any"}, "result": {"left": 0.3}})"));
  EXPECT_FALSE(list.Fits(R"({"call": {"name": "media", "title": "Blue Moon", "play": 1}, "result": {"left": 0.3}})"));
  EXPECT_FALSE(list.Fits(R"({"call": {"name": "media", "title": "Blue"}, "result": {"left": 0.3}})"));
  EXPECT_FALSE(list.Fits(R"({"call": {"name": "media", "title": "Blue Moon"}})"));
  EXPECT_FALSE(list.Fits(R"({"call": {"name": "media", "title": "Blue Moon"}, "result": {"left": 0.31}})"));
  EXPECT_FALSE(list.Fits(R"({"call": "media", "result": {"left": 0.3}})"));
}

TEST(AcceptListTest, AnyTextHasAnEmptyPart) {
  const AcceptList list = Made(R"([{"call": {"name": "media", "title": {"contains": ""}}}])");
  EXPECT_TRUE(list.Fits(R"({"call": {"name": "media", "title": "BBC Radio 4"}})"));
  EXPECT_TRUE(list.Fits(R"({"call": {"name": "media", "title": ""}})"));
  EXPECT_FALSE(list.Fits(R"({"call": {"name": "media", "title": 4}})"));
  EXPECT_FALSE(list.Fits(R"({"call": {"name": "media"}})"));
}

TEST(AcceptListTest, RefusesWhatIsNoList) {
  const std::pair<const char*, const char*> bad[] = {
      {"{}", "a list of alternatives"},
      {"[]", "a list of alternatives"},
      {"[1]", "alternative 1: expected an object"},
      {R"([{}, {"put": {}}])", "alternative 2: expected \"set\""},
      {R"([{"set": []}])", "\"set\": expected an object"},
      {R"([{"refuse": "yes"}])", "\"refuse\": expected true or false"},
      {R"([{"set": {"A": null}}])", "\"set\", \"A\": expected a boolean"},
      {R"([{"set": {"A": {"range": [2, 1]}}}])", "\"A\": expected a boolean"},
      {R"([{"set": {"A": {"range": ["a", "b"]}}}])", "\"A\": expected a boolean"},
      {R"([{"set": {"A": {"any": []}}}])", "\"A\": expected a boolean"},
      {R"([{"set": {"A": {"any": [1], "contains": "x"}}}])", "\"A\": expected a boolean"},
      {R"([{"set": {"A": {"contains": 1}}}])", "\"A\": expected a boolean"},
  };
  for (const auto& [text, says] : bad) {
    const auto list = AcceptList::FromJson(json::parse(text));
    EXPECT_EQ(list.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(list.status().message()), HasSubstr(says)) << text;
  }
  std::string deep = "1";
  for (int i = 0; i < 100; ++i) deep = R"({"any": [)" + deep + "]}";
  EXPECT_FALSE(AcceptList::FromJson(json::parse(R"([{"set": {"A": )" + deep + "}}]")).ok());
}

TEST(EffectTest, WhatAnAnswerDoes) {
  EXPECT_TRUE(EffectOf(R"({"set": {"A": 1}})").acts);
  EXPECT_TRUE(EffectOf(R"({"call": {"name": "phone"}})").acts);
  EXPECT_FALSE(EffectOf(R"({"set": {}, "refuse": true})").acts);
  EXPECT_TRUE(EffectOf(R"({"set": {}, "clarify": [{}]})").asks_back);
  EXPECT_FALSE(EffectOf(R"({"set": {}, "clarify": []})").asks_back);
  EXPECT_FALSE(EffectOf("{").acts);
}

// ---- Against the script by which requests from outside are judged -------------------------------------------------

// Few names and values, so that answers often fit and often just do not.
class Drawer {
 public:
  explicit Drawer(uint64_t seed) : random_(seed) {}

  json Value() {
    static const std::vector<json> values = {
        true, false, 0,      1,      21.5,    21.5000001,     -3,           "Blue", " blue ", "",
        "1",  "BLU", "wörl", "WÖRL", nullptr, json::object(), json::array()};
    return values[Below(values.size())];
  }
  json Matcher(int depth = 0) {
    switch (Below(depth < 2 ? 8 : 7)) {
      case 0: {
        const double low = static_cast<double>(Below(3));
        return {{"range", {low, low + static_cast<double>(Below(30))}}};
      }
      case 1:
        return {{"contains", std::vector<std::string>{"", "lu", "WÖ"}[Below(3)]}};
      case 7:
        return {{"any", {Matcher(depth + 1), Matcher(depth + 1)}}};
      default:
        for (;;) {
          json value = Value();
          if (value.is_boolean() || value.is_number() || value.is_string()) return value;
        }
    }
  }
  template <typename Draw>
  json Object(Draw draw) {
    static const std::vector<std::string> names = {"A", "B", "artist", "name"};
    json object = json::object();
    for (uint64_t i = Below(3); i > 0; --i) object[names[Below(names.size())]] = draw();
    return object;
  }
  json Alternative() {
    json alternative = json::object();
    for (const char* part : {"set", "optional", "call", "result"}) {
      if (Below(2) == 0) alternative[part] = Object([&] { return Matcher(); });
    }
    if (Below(4) == 0) alternative["refuse"] = Below(2) == 0;
    return alternative;
  }
  json Answer() {
    json answer = json::object();
    for (const char* part : {"set", "call", "result"}) {
      if (Below(2) == 0) answer[part] = Below(8) == 0 ? Value() : Object([&] { return Value(); });
    }
    if (Below(4) == 0) answer["refuse"] = Value();
    if (Below(8) == 0) answer["clarify"] = Value();
    return answer;
  }

 private:
  uint64_t Below(uint64_t n) { return random_.Next() % n; }

  testing::SplitMix random_;
};

TEST(AcceptListTest, JudgesAsTheScriptDoes) {
  const std::filesystem::path script =
      std::filesystem::path(std::getenv("UPDRAFT_SOURCE_DIR") ? std::getenv("UPDRAFT_SOURCE_DIR") : ".") /
      "../shared/tools/wild.py";
  if (!std::filesystem::exists(script)) GTEST_SKIP() << "reference data missing: " << script;
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("updraft_accept_" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  Drawer draw(7);
  constexpr int kItems = 4000;
  std::set<std::string> wrong;
  int acted_wrong = 0, asked_back = 0;
  {
    std::ofstream data(folder / "data.jsonl"), answers(folder / "answers.jsonl");
    for (int i = 0; i < kItems; ++i) {
      const std::string id = std::to_string(i);
      const json accept = {draw.Alternative(), draw.Alternative(), draw.Alternative()};
      const std::string answer = draw.Answer().dump();
      json item = {{"id", id}, {"kind", "drawn"}, {"accept", accept}};
      item["messages"] = json::parse(R"([{"role": "user", "content": "x"}])");
      data << item.dump() << "\n";
      answers << json{{"id", id}, {"text", answer}, {"tier", "edge"}, {"confidence", 0.5}}.dump() << "\n";
      const bool right = Made(accept.dump()).Fits(answer);
      if (!right) wrong.insert(id);
      acted_wrong += !right && EffectOf(answer).acts ? 1 : 0;
      asked_back += EffectOf(answer).asks_back ? 1 : 0;
    }
  }
  const std::string command = "python3 '" + script.string() + "' --json --show-wrong --data '" +
                              (folder / "data.jsonl").string() + "' --answers '" + (folder / "answers.jsonl").string() +
                              "' > '" + (folder / "said").string() + "'";
  ASSERT_EQ(std::system(command.c_str()), 0) << command;
  std::ifstream said(folder / "said");
  std::string line;
  ASSERT_TRUE(std::getline(said, line));
  const json summary = json::parse(line);
  std::set<std::string> wrong_there;
  while (std::getline(said, line)) wrong_there.insert(json::parse(line)["id"]);
  std::filesystem::remove_all(folder);
  EXPECT_EQ(wrong, wrong_there);
  EXPECT_GT(wrong.size(), kItems / 10u);
  EXPECT_LT(wrong.size(), kItems * 9 / 10u);
  EXPECT_NEAR(summary["acted_and_wrong"].get<double>(), 1.0 * acted_wrong / kItems, 1e-4);
  EXPECT_NEAR(summary["clarify_share"].get<double>(), 1.0 * asked_back / kItems, 1e-4);
}

}  // namespace
}  // namespace updraft
