// A file is there as a whole or not at all, whatever happens to who writes it.
#include "common/files/atomic_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "tests/files.h"

namespace updraft {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::ReadAll;
using testing::WriteAll;

absl::Status Append(AtomicFile& file, const std::string& text) { return file.Append(std::as_bytes(std::span(text))); }

absl::Status Replace(const std::string& path, const std::string& text, const AtomicFileOptions& options = {}) {
  absl::StatusOr<AtomicFile> file = AtomicFile::Create(path, options);
  if (!file.ok()) return file.status();
  if (absl::Status status = Append(*file, text); !status.ok()) return status;
  return file->Commit();
}

mode_t ModeOf(const std::string& path) {
  struct stat facts = {};
  EXPECT_EQ(stat(path.c_str(), &facts), 0);
  return facts.st_mode & 0777;
}

class AtomicFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    static int counter = 0;
    folder_ = ::testing::TempDir() + "updraft_atomic_" + std::to_string(getpid()) + "_" + std::to_string(counter++);
    fs::create_directories(folder_);
    path_ = folder_ + "/target";
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) names.push_back(entry.path().filename().string());
    return names;
  }

  std::string folder_, path_;
};

TEST_F(AtomicFileTest, AppearsWhenItIsComplete) {
  WriteAll(path_, "old");
  std::string text((3 << 20) + 17, 'x');
  absl::StatusOr<AtomicFile> file = AtomicFile::Create(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  for (size_t at = 0; at < text.size(); at += 100'000) {
    ASSERT_TRUE(Append(*file, text.substr(at, 100'000)).ok());
    EXPECT_EQ(ReadAll(path_), "old");
  }
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_TRUE(ReadAll(path_) == text);
  EXPECT_THAT(Names(), ElementsAre("target"));
}

TEST_F(AtomicFileTest, WithoutCommitNothingStays) {
  {
    absl::StatusOr<AtomicFile> file = AtomicFile::Create(path_);
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_TRUE(Append(*file, std::string(2 << 20, 'x')).ok());
    const AtomicFile moved = *std::move(file);
    EXPECT_EQ(Names().size(), 1u);
  }
  EXPECT_THAT(Names(), IsEmpty());
}

TEST_F(AtomicFileTest, AWriteThatFailsLeavesTheOldFileAlone) {
  WriteAll(path_, "old");
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small{(2 << 20) + 100, before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status status = Replace(path_, std::string(3 << 20, 'x'));
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(status.ToString(), HasSubstr(path_));
  EXPECT_EQ(ReadAll(path_), "old");
  EXPECT_THAT(Names(), ElementsAre("target"));
}

TEST_F(AtomicFileTest, LinksAreFollowedOrRefused) {
  const std::string link = folder_ + "/link";
  WriteAll(path_, "old");
  fs::create_symlink("target", link);
  EXPECT_THAT(Replace(link, "refused", {.refuse_links = true}).ToString(), HasSubstr("link; remove it"));
  EXPECT_EQ(ReadAll(path_), "old");
  EXPECT_TRUE(Replace(link, "new").ok());
  EXPECT_TRUE(fs::is_symlink(link));
  EXPECT_EQ(ReadAll(path_), "new");
  EXPECT_TRUE(Replace(path_, "newer", {.refuse_links = true}).ok());
  fs::remove(path_);
  EXPECT_THAT(Replace(link, "nowhere").ToString(), HasSubstr("cannot be reached"));
  EXPECT_THAT(Replace(link, "nowhere", {.refuse_links = true}).ToString(), HasSubstr("link; remove it"));
  EXPECT_THAT(Names(), ElementsAre("link"));
}

TEST_F(AtomicFileTest, WhatIsNoFileIsRefused) {
  EXPECT_EQ(Replace("", "x").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Replace(folder_, "x").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Replace(folder_ + "/", "x").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Replace("/dev/null", "x").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Replace(folder_ + "/missing/target", "x").code(), absl::StatusCode::kNotFound);
}

TEST_F(AtomicFileTest, AccessIsThatOfAnotherFile) {
  const mode_t mask = umask(027);
  ASSERT_TRUE(Replace(path_, "x").ok());
  EXPECT_EQ(ModeOf(path_), 0640u);
  struct stat facts;
  ASSERT_EQ(stat(path_.c_str(), &facts), 0);
  for (const mode_t mode : {0600u, 0660u, 0644u, 0444u}) {
    ASSERT_TRUE(Replace(path_, "x", {.access = FileAccess{mode, facts.st_gid}}).ok());
    EXPECT_EQ(ModeOf(path_), mode);
  }
  // The group's bits are for the members of another group.
  ASSERT_TRUE(Replace(path_, "x", {.access = FileAccess{0664, facts.st_gid + 1}}).ok());
  EXPECT_EQ(ModeOf(path_), 0644u);
  ASSERT_TRUE(Replace(path_, "x", {.access = FileAccess{0660, facts.st_gid + 1}}).ok());
  EXPECT_EQ(ModeOf(path_), 0600u);
  const absl::StatusOr<AtomicFile> begun = AtomicFile::Create(path_, {.access = FileAccess{0666, facts.st_gid}});
  ASSERT_TRUE(begun.ok());
  for (const std::string& name : Names()) {
    EXPECT_EQ(ModeOf(folder_ + "/" + name), 0600u) << name;
  }
  umask(mask);
}

TEST_F(AtomicFileTest, LeftoversAreRemovedUnlessSomebodyWritesThem) {
  WriteAll(path_ + ".tmp.1.0", "leftover");
  WriteAll(path_ + ".tmp.1.1", "written");
  for (const char* other : {".tmp.1", ".tmp.1.x", ".tmp.1.2.3", ".tmp..1", "2.tmp.1.0", ".tmp.1.0.gguf"}) {
    WriteAll(path_ + other, "no temporary file of the target");
  }
  fs::create_symlink("target.tmp.1.x", path_ + ".tmp.1.9");
  const size_t before = Names().size();
  const int fd = open((path_ + ".tmp.1.1").c_str(), O_WRONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(flock(fd, LOCK_EX | LOCK_NB), 0);
  EXPECT_TRUE(Replace(path_, "new").ok());
  EXPECT_FALSE(fs::exists(path_ + ".tmp.1.0"));
  EXPECT_TRUE(fs::exists(path_ + ".tmp.1.1"));
  EXPECT_EQ(Names().size(), before);  // one has gone, the target has come
  close(fd);
  EXPECT_TRUE(Replace(path_, "newer").ok());
  EXPECT_FALSE(fs::exists(path_ + ".tmp.1.1"));
  EXPECT_EQ(Names().size(), before - 1);
}

TEST_F(AtomicFileTest, TheFileOfAProcessThatEndedIsALeftover) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    absl::StatusOr<AtomicFile> file = AtomicFile::Create(path_);
    _exit(file.ok() && Append(*file, std::string(2 << 20, 'x')).ok() ? 0 : 1);  // without destructors
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  ASSERT_THAT(Names(), ElementsAre(HasSubstr("target.tmp.")));
  EXPECT_TRUE(Replace(path_, "new").ok());
  EXPECT_THAT(Names(), ElementsAre("target"));
}

TEST_F(AtomicFileTest, WritersOfOneTargetDoNotDisturbEachOther) {
  {
    std::vector<std::jthread> writers;
    for (int i = 0; i < 4; ++i) {
      writers.emplace_back([this, i] {
        for (int round = 0; round < 50; ++round) {
          const absl::Status status = Replace(path_, std::string(1000, static_cast<char>('a' + i)));
          EXPECT_TRUE(status.ok()) << status;
        }
      });
    }
  }
  EXPECT_THAT(Names(), ElementsAre("target"));
  EXPECT_EQ(ReadAll(path_).size(), 1000u);
}

}  // namespace
}  // namespace updraft
