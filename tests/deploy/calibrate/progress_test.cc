// What is read of prompts, and what a run that was broken off still knows.
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "deploy/calibrate/progress_file.h"
#include "deploy/task/task.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/deploy/calibrate/pair.h"

namespace updraft {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::TempFile;

// ---- Prompts ----

TEST(ReadPromptsTest, AnswersMayBeMissing) {
  const TempFile file("prompts.jsonl");
  file.Write(R"({"prompt":"one"})"
             "\n\n"
             R"({"messages":[{"role":"system","content":"s"},{"role":"user","content":"one"}],"answer":"1","id":"x"})"
             "\n"
             R"({"prompt":"colder","answer":{"set":{"Vehicle.Cabin.HVAC.AmbientAirTemperature":18}}})"
             "\n");
  const auto items = ReadPrompts(file.path());
  ASSERT_TRUE(items.ok()) << items.status();
  ASSERT_EQ(items->size(), 3u);
  EXPECT_FALSE((*items)[0].labelled);
  EXPECT_TRUE((*items)[1].labelled);
  EXPECT_TRUE(IsCorrect((*items)[1], " 1."));
  EXPECT_TRUE((*items)[2].labelled);
  EXPECT_TRUE((*items)[2].accept.has_value());
}

TEST(ReadPromptsTest, RefusesByLine) {
  const TempFile file("bad.jsonl");
  const std::pair<const char*, const char*> cases[] = {
      {"not json", "JSON"},
      {R"({"prompt":" \n"})", "empty"},
      {R"({"prompt":"fine"})", "the same prompt as line 1"},
      {R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]})", "'assistant'"},
      {R"({"prompt":"x","answer":3})", "answer"},
      {R"({"answer":"x"})", "messages"}};
  for (const auto& [line, words] : cases) {
    file.Write(absl::StrCat(R"({"prompt":"fine"})", "\n", line, "\n"));
    EXPECT_THAT(ReadPrompts(file.path()).status().ToString(), AllOf(HasSubstr("line 2"), HasSubstr(words))) << line;
  }
  file.Write("\n \n");
  EXPECT_THAT(ReadPrompts(file.path()).status().ToString(), HasSubstr("found none"));
}

// ---- Progress ----

TEST(ProgressFileTest, GoesOnAfterABreak) {
  const TempFile file("progress.jsonl");
  {
    auto progress = ProgressFile::Open(file.path(), "run a");
    ASSERT_TRUE(progress.ok()) << progress.status();
    ASSERT_TRUE((*progress)->Add("kind", "3", "three\nlines \"x\"").ok());
    ASSERT_TRUE((*progress)->Add("other", "3", "3").ok());
  }
  std::ofstream(file.path(), std::ios::app) << R"({"kind":"kind","key":"4","finding":"torn)";  // no end of line
  {
    auto progress = ProgressFile::Open(file.path(), "run a");
    ASSERT_TRUE(progress.ok()) << progress.status();
    EXPECT_EQ((*progress)->n_found_at_start(), 2);
    EXPECT_EQ((*progress)->Find("kind", "3"), "three\nlines \"x\"");
    EXPECT_EQ((*progress)->Find("kind", "4"), std::nullopt);
    ASSERT_TRUE((*progress)->Add("kind", "4", "four").ok());
  }
  {
    auto progress = ProgressFile::Open(file.path(), "run a");
    ASSERT_TRUE(progress.ok()) << progress.status();
    EXPECT_EQ((*progress)->Find("kind", "4"), "four");
    EXPECT_EQ((*progress)->n_found_at_start(), 3);
  }
  auto other = ProgressFile::Open(file.path(), "run b");
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ((*other)->n_found_at_start(), 0) << "of another run";
  (*other)->Remove();
  EXPECT_FALSE(std::filesystem::exists(file.path()));
}

TEST(ProgressFileTest, SaysWhereItCannotWrite) {
  EXPECT_THAT(ProgressFile::Open("/nonexistent/progress.jsonl", "run").status().ToString(),
              HasSubstr("/nonexistent/progress.jsonl"));
  const TempFile file("full.jsonl");
  std::filesystem::create_symlink("/dev/full", file.path() + ".new");
  EXPECT_THAT(ProgressFile::Open(file.path(), "run").status().ToString(), HasSubstr("No space left"));
  std::filesystem::remove(file.path() + ".new");
}

}  // namespace
}  // namespace updraft
