#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include "deploy/train/cockpit/example.h"
#include "deploy/train/cockpit/generator.h"

namespace updraft::cockpit {
namespace {

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
