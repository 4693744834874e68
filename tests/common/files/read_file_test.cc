#include "common/files/read_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

namespace updraft {
namespace {

using ::testing::HasSubstr;

class ReadFileTest : public ::testing::Test {
 protected:
  ReadFileTest() : path_(::testing::TempDir() + "updraft_read_file_" + std::to_string(getpid())) {}
  ~ReadFileTest() override { std::filesystem::remove(path_); }
  std::string path_;
};

TEST_F(ReadFileTest, GivesEveryByte) {
  std::string bytes((3 << 20) + 17, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 131 >> 3);
  std::ofstream(path_, std::ios::binary) << bytes;
  auto read = ReadFile(path_);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(*read == bytes);
  EXPECT_TRUE(ReadFile(path_, bytes.size()).ok());
  EXPECT_EQ(ReadFile(path_, bytes.size() - 1).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(*ReadFile("/dev/null"), "");
}

TEST_F(ReadFileTest, ReadsWhatArrivesInPieces) {
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  std::jthread writer([this] {
    std::ofstream out(path_, std::ios::binary);
    for (int i = 0; i < 1000; ++i) out << "piece " << i << std::flush;
  });
  auto read = ReadFile(path_);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_THAT(*read, HasSubstr("piece 0piece 1piece 2"));
  EXPECT_THAT(*read, HasSubstr("piece 999"));
}

TEST_F(ReadFileTest, EndlessInputStopsAtTheLimit) {
  EXPECT_THAT(ReadFile("/dev/zero", 5 << 20).status().ToString(), HasSubstr("'/dev/zero': is larger than 5242880"));
}

TEST_F(ReadFileTest, SaysWhyItCannot) {
  EXPECT_EQ(ReadFile("/nonexistent/x").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadFile("/dev/null/x").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(ReadFile("/").status().ToString(), HasSubstr("'/': is a folder"));
  if (geteuid() == 0) GTEST_SKIP() << "root may read everything: permissions are not tested";
  std::ofstream(path_) << "x";
  chmod(path_.c_str(), 0);
  EXPECT_EQ(ReadFile(path_).status().code(), absl::StatusCode::kPermissionDenied);
}

}  // namespace
}  // namespace updraft
