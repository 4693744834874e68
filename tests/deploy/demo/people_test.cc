// What people say: results files are read, matched with the files that they were measured with, and shown.
#include "deploy/demo/people.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "deploy/demo/demo.h"
#include "tests/deploy/demo/synthetic_report.h"

namespace updraft {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// As `updraft evaluate pair --results` writes it.
constexpr char kResults[] = R"([
 {"edge": {"file": "e.gguf", "bytes": 10}, "cloud": {"file": "c.gguf", "bytes": 20}, "sets": [
  {"set": "wild/<dev>", "edge": {"exact_match": 0.25}, "cloud": {"exact_match": 0.5},
   "together": {"n": 40, "exact_match": 0.475, "exact_match_ci95": [0.33, 0.62], "kept_share": 0.2,
                "wrong_among_kept": 0.125, "wrong_among_kept_ci95": [0.02, 0.47], "kept_stated_confidence": 0.91,
                "acted_and_wrong": 0.05, "asked_back": 0.3}}]},
 {"edge": {"file": "e.gguf", "bytes": 10}, "cloud": {"file": "c.gguf", "bytes": 20, "adapter": {"file": "a.gguf", "bytes": 3}},
  "sets": []}])";

std::string Written(const std::string& text) {
  const auto path = std::filesystem::temp_directory_path() / ("updraft_people_" + std::to_string(getpid()) + ".json");
  std::ofstream(path) << text;
  return path;
}

TEST(PeopleTest, OnlyWhatWasMeasuredWithTheseFilesIsTheirs) {
  const std::string path = Written(kResults);
  const auto all = ReadPeopleResults(path);
  ASSERT_TRUE(all.ok()) << all.status();
  ASSERT_EQ(all->size(), 2u);
  const MeasuredFile edge{"e.gguf", 10}, cloud{"c.gguf", 20}, adapter{"a.gguf", 3};
  const auto plain = ResultsOfPair(*all, edge, cloud, std::nullopt);
  ASSERT_TRUE(plain);
  ASSERT_EQ(plain->sets.size(), 1u);
  EXPECT_EQ(plain->sets[0].n, 40);
  EXPECT_EQ(plain->sets[0].together, 0.475);
  EXPECT_EQ(plain->sets[0].wrong_interval.high, 0.47);
  EXPECT_EQ(ResultsOfPair(*all, edge, cloud, adapter)->sets.size(), 0u);
  EXPECT_FALSE(ResultsOfPair(*all, {"e.gguf", 11}, cloud, std::nullopt)) << "another file of that name";
  EXPECT_FALSE(ResultsOfPair(*all, edge, {"d.gguf", 20}, std::nullopt));
  std::filesystem::remove(path);
}

TEST(PeopleTest, AllFormsOfTheReportHaveItBesideTheGeneratedOnes) {
  const std::string path = Written(kResults);
  DemoReport report = testing::SyntheticReport(60, 3);
  EXPECT_THAT(ToText(report), Not(HasSubstr("What people say")));
  report.people = (*ReadPeopleResults(path))[0];
  EXPECT_THAT(ToText(report), AllOf(HasSubstr("What people say"), HasSubstr("wild/<dev>"), HasSubstr("47.5")));
  EXPECT_THAT(ToHtml(report),
              AllOf(HasSubstr("What people say"), HasSubstr("wild/&lt;dev&gt;"), HasSubstr("12.5 (2 to 47)")));
  EXPECT_THAT(ToJson(report), AllOf(HasSubstr("\"people\""), HasSubstr("0.475")));
  std::filesystem::remove(path);
}

TEST(PeopleTest, WhatCannotBeReadSaysWhatIsMissing) {
  EXPECT_EQ(ReadPeopleResults("/no/such/people.json").status().code(), absl::StatusCode::kNotFound);
  for (const char* bad : {"", "3", "{", R"({"edge":{"file":"e","bytes":1}})", R"([{"edge":3,"cloud":4,"sets":5}])",
                          R"({"edge":{"file":"e","bytes":1},"cloud":{"file":"c","bytes":"x"},"sets":[]})"}) {
    const std::string path = Written(bad);
    const absl::Status status = ReadPeopleResults(path).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << bad;
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(path), HasSubstr("bench --wild")));
    std::filesystem::remove(path);
  }
}

}  // namespace
}  // namespace updraft
