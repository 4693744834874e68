// What a router learns from published outcomes of two models: on tables beside the repository, which nothing that is
// shipped was fitted on.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "deploy/router/evaluate.h"

namespace updraft {
namespace {

std::string Published(const std::string& name) {
  const char* dir = std::getenv("UPDRAFT_SOURCE_DIR");
  return std::string(dir == nullptr ? "." : dir) + "/../shared/data/" + name;
}

absl::StatusOr<RouterReport> Measure(const std::string& path, const std::string& without) {
  auto rows = ReadOutcomes(path, without);
  if (!rows.ok()) return rows.status();
  auto report = EvaluateRouter(*rows, {});
  if (report.ok()) std::printf("%s\n", ToText(*report).c_str());
  return report;
}

#define SKIP_WITHOUT(path) \
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "not tested: " << path << " is not on this machine"

// Mixtral 8x7B and GPT-4 on GSM8K and MMLU. The figure of prompt length is that of another program over the same rows.
TEST(PublishedOutcomesTest, BeatsLengthAndWordsOnGradeSchoolMathematics) {
  const std::string path = Published("routellm/dev/gsm8k.csv");
  SKIP_WITHOUT(path);
  const auto report = Measure(path, "contaminated");
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->n, 659);
  EXPECT_EQ(report->fixable, 187);
  EXPECT_EQ(report->breakable, 44);
  EXPECT_NEAR(report->rankings[1].apgr.value, 0.5576, 0.002) << "prompts of equal length lie in another order there";
  EXPECT_GT(report->rankings[1].lead.interval.low, 0.0);
  EXPECT_GT(report->rankings[2].lead.interval.low, 0.0);
}

TEST(PublishedOutcomesTest, BeatsLengthAndWordsOnKnowledgeOfManySubjects) {
  const std::string path = Published("routellm/dev/mmlu.csv");
  SKIP_WITHOUT(path);
  const auto report = Measure(path, "contaminated");
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->n, 7043);
  EXPECT_NEAR(report->rankings[1].apgr.value, 0.5779, 0.002);
  EXPECT_GT(report->rankings[1].lead.interval.low, 0.0);
  EXPECT_GT(report->rankings[2].lead.interval.low, 0.0);
}

// 398 rows of 36 sources: an interval, no promise.
TEST(PublishedOutcomesTest, SaysHowLittleFewRowsTell) {
  const std::string path = Published("routerarena/dev/outcomes.jsonl");
  SKIP_WITHOUT(path);
  const auto report = Measure(path, "");
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->n, 398);
  EXPECT_GT(report->rankings[0].apgr.interval.high - report->rankings[0].apgr.interval.low, 0.05);
}

}  // namespace
}  // namespace updraft
