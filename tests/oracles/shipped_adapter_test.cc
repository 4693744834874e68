// What deploy/models/cockpit-adapter.md says of the adapter over the published model that it stands on.
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "common/gguf/reader.h"
#include "common/model/adapter.h"
#include "deploy/task/task.h"
#include "tests/oracles/packaged_model.h"

namespace updraft {
namespace {

// Measured 0.57 of all 2,377 lines: three deviations of 64 below.
constexpr double kLeastRight = 0.38;

std::string Shipped() { return (testing::SourceFolder() / "deploy/models/cockpit-adapter.gguf").string(); }

TEST(ShippedAdapterTest, IsAnAdapterThatNamesItsBaseAndWhatItNeverSaw) {
  const auto file = gguf::File::Open(Shipped());
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(IsAdapter(*file));
  EXPECT_LE(std::filesystem::file_size(Shipped()), 24'000'000u);
  const auto hash = file->GetString("updraft.adapter.base_sha256");
  ASSERT_TRUE(hash.ok()) << hash.status();
  EXPECT_EQ(*hash, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53");
  const auto held_out = file->GetStrings("updraft.training.held_out");
  ASSERT_TRUE(held_out.ok()) << held_out.status();
  EXPECT_EQ(held_out->size(), 8u);
}

// Every fortieth line of the sheets that training never saw.
TEST(ShippedAdapterTest, AnswersWritersThatItNeverRead) {
  const auto base = testing::PackagedModel();
  if (!base) GTEST_SKIP() << "no published model: run tests/oracles/make.sh";
  std::vector<TaskItem> items;
  for (const char* sheet : {"en8", "en13", "en16", "en17", "zh7", "zh11", "zh13", "zh14"}) {
    const auto lines =
        ReadTask((testing::SourceFolder() / "deploy/train/cockpit/written" / (std::string(sheet) + ".jsonl")).string());
    ASSERT_TRUE(lines.ok()) << lines.status();
    for (size_t i = 0; i < lines->size(); i += 40) items.push_back((*lines)[i]);
  }
  AnswerOptions options;
  options.adapter = Shipped();
  const auto report = EvaluateTask(*base, items, options);
  ASSERT_TRUE(report.ok()) << report.status();
  std::printf("%s\n", ToText(*report).c_str());
  EXPECT_GE(report->n, 50);
  EXPECT_GE(report->exact_match, kLeastRight);
}

}  // namespace
}  // namespace updraft
