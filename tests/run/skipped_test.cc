// skipped.awk on the log of a real ctest run over a real test program: this one, whose disabled tests skip.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/files.h"

namespace {

namespace fs = std::filesystem;
using updraft::testing::ReadAll;

TEST(Sample, Passes) {}
TEST(Sample, DISABLED_Skips) { GTEST_SKIP() << "the disc is not here: /no/disc\nand more words"; }
TEST(Sample, DISABLED_SkipsSilently) { GTEST_SKIP(); }
TEST(Sample, DISABLED_Fails) { FAIL() << "as it must"; }

class SkippedTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* source = std::getenv("UPDRAFT_SOURCE_DIR");
    ASSERT_NE(source, nullptr) << "run through ctest";
    script_ = fs::path(source) / "tests/run/skipped.awk";
    folder_ = fs::path(::testing::TempDir()) / ("updraft_skipped_" + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  // A test of the inner ctest run: this program with the tests of `filter`.
  void AddSelf(const std::string& name, const std::string& filter) {
    Add(name, fs::read_symlink("/proc/self/exe").string() +
                  "\" \"--gtest_also_run_disabled_tests\" \"--gtest_filter=" + filter);
  }
  void Add(const std::string& name, const std::string& command) {
    std::ofstream(folder_ / "CTestTestfile.cmake", std::ios::app)
        << "add_test(" << name << " \"" << command << "\")\n"
        << "set_tests_properties(" << name << " PROPERTIES SKIP_RETURN_CODE 77)\n";
  }

  // Runs the inner tests; returns what the script lists.
  std::string List() {
    const std::string folder = folder_.string();
    ctest_status_ = std::system(("ctest --test-dir '" + folder + "' >'" + folder + "/out' 2>&1").c_str());
    const std::string log = folder + "/Testing/Temporary/LastTest.log";
    EXPECT_EQ(std::system(("awk -f '" + script_.string() + "' '" + log + "' >'" + folder + "/list'").c_str()), 0);
    return ReadAll(folder_ / "list");
  }

  fs::path script_, folder_;
  int ctest_status_ = -1;
};

TEST_F(SkippedTest, NamesEachWithItsReason) {
  AddSelf("one", "Sample.Passes:Sample.DISABLED_Skips*");
  Add("two", "sh\" \"-c\" \"echo building; echo 'SKIPPED: no compiler'; exit 77");
  EXPECT_EQ(List(),
            "one Sample.DISABLED_Skips: the disc is not here: /no/disc\n"
            "one Sample.DISABLED_SkipsSilently: no reason given\n"
            "two: no compiler\n");
  EXPECT_EQ(ctest_status_, 0) << ReadAll(folder_ / "out");
}

TEST_F(SkippedTest, FailingStaysFailingBesideASkip) {
  AddSelf("both", "Sample.DISABLED_Skips:Sample.DISABLED_Fails");
  EXPECT_EQ(List(), "both Sample.DISABLED_Skips: the disc is not here: /no/disc\n");
  EXPECT_NE(ctest_status_, 0);
}

TEST_F(SkippedTest, NothingSkippedListsNothing) {
  AddSelf("passes", "Sample.Passes");
  EXPECT_EQ(List(), "");
}

}  // namespace
