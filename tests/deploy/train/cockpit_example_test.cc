#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include "deploy/train/cockpit/example.h"
#include "deploy/train/cockpit/generator.h"

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

TEST(JsonLinesTest, RoundTrip) {
  Generator generator(3, Split::kTest);
  std::vector<Example> examples;
  for (int i = 0; i < 200; ++i) examples.push_back(generator.Next());
  const std::string path = testing::TempDir() + "/cockpit_round_trip.jsonl";
  ASSERT_TRUE(WriteJsonLines(examples, path).ok());
  const absl::StatusOr<std::vector<Example>> read = ReadJsonLines(path);
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->size(), examples.size());
  for (size_t i = 0; i < examples.size(); ++i) EXPECT_EQ(ToJsonLine((*read)[i]), ToJsonLine(examples[i]));
  std::remove(path.c_str());
}

TEST(JsonLinesTest, RefusesWhatIsNotAnExample) {
  for (const char* line :
       {"", "{}", "[1]", R"({"id":"x","family":"slot","language":"fr","messages":[],"answer":""})",
        R"({"id":"x","family":"slot","language":"en","messages":[],"answer":""})",
        R"({"id":"x","family":"slot","language":"en","messages":[{"role":"user"}],"answer":""})",
        R"({"id":7,"family":"slot","language":"en","messages":[{"role":"user","content":""}],"answer":""})"}) {
    EXPECT_FALSE(FromJsonLine(line).ok()) << line;
  }
  EXPECT_EQ(ReadJsonLines("/nonexistent/file.jsonl").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace updraft::cockpit
