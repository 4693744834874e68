// What becomes of a mapping when others change its file.
#include "common/gguf/mapped_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace updraft::gguf {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

constexpr size_t kBytes = 1 << 20;

class MappedFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = ::testing::TempDir() + "updraft_mapped_" + std::to_string(getpid());
    Write(path_, 'a');
    // A time of its own, so that a write within the same tick of the system's clock is told apart.
    fs::last_write_time(path_, fs::last_write_time(path_) - std::chrono::hours(1));
    auto file = MappedFile::Open(path_);
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
  }
  void TearDown() override { fs::remove(path_); }

  static void Write(const std::string& path, char c, size_t n = kBytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << std::string(n, c);
  }
  uint64_t Sum() const {
    uint64_t sum = 0;
    for (const std::byte byte : file_.bytes()) sum += std::to_integer<uint64_t>(byte);
    return sum;
  }
  void ExpectLost() const {
    const absl::Status status = file_.CheckIntact();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(path_));
  }

  std::string path_;
  MappedFile file_;
};

TEST_F(MappedFileTest, UntouchedIsIntact) {
  EXPECT_EQ(Sum(), kBytes * 'a');
  EXPECT_TRUE(file_.CheckIntact().ok());
}

TEST_F(MappedFileTest, CutShorterReadsAsZerosAndIsTold) {
  fs::resize_file(path_, 4096);
  EXPECT_EQ(Sum(), 4096u * 'a') << "the first page is read before the fault";
  EXPECT_EQ(Sum(), 0u);
  ExpectLost();
}

TEST_F(MappedFileTest, CutShorterUnderManyThreads) {
  std::atomic<bool> cut{false};
  std::vector<std::thread> readers;
  for (int i = 0; i < 8; ++i) {
    readers.emplace_back([&] {
      while (Sum() != 0) {
        if (!cut.exchange(true)) fs::resize_file(path_, 0);
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
  ExpectLost();
}

TEST_F(MappedFileTest, EmptiedAndWrittenAgainIsTold) {
  Write(path_, 'b');
  EXPECT_EQ(fs::file_size(path_), kBytes);
  Sum();
  ExpectLost();
}

TEST_F(MappedFileTest, OverwrittenInPlaceIsTold) {
  const int fd = open(path_.c_str(), O_WRONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(pwrite(fd, "b", 1, 77), 1);
  ExpectLost();
  // For good, also when the bytes and the time are put back.
  ASSERT_EQ(pwrite(fd, "a", 1, 77), 1);
  close(fd);
  fs::last_write_time(path_, fs::file_time_type::clock::now() - std::chrono::hours(1));
  ExpectLost();
}

TEST_F(MappedFileTest, WrittenThroughAnotherMappingIsTold) {
  const int fd = open(path_.c_str(), O_RDWR | O_CLOEXEC);
  void* other = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ASSERT_NE(other, MAP_FAILED);
  static_cast<char*>(other)[5000] = 'b';
  ExpectLost();
  munmap(other, kBytes);
  close(fd);
}

TEST_F(MappedFileTest, GrownIsTold) {
  std::ofstream(path_, std::ios::app) << "more";
  ExpectLost();
}

// The right way to replace a file, and what else leaves the bytes alone.
TEST_F(MappedFileTest, RenamedOverRemovedAndReadIsIntact) {
  Write(path_ + ".new", 'b', 10);
  fs::rename(path_ + ".new", path_);
  EXPECT_TRUE(file_.CheckIntact().ok());
  fs::remove(path_);
  EXPECT_TRUE(file_.CheckIntact().ok());
  EXPECT_EQ(Sum(), kBytes * 'a');
}

TEST_F(MappedFileTest, PermissionsAndLinksAreNoChange) {
  fs::permissions(path_, fs::perms::owner_read);
  fs::create_hard_link(path_, path_ + ".link");
  fs::remove(path_ + ".link");
  EXPECT_TRUE(file_.CheckIntact().ok());
}

TEST_F(MappedFileTest, MovesWithItsObject) {
  MappedFile moved = std::move(file_);
  EXPECT_TRUE(file_.CheckIntact().ok());  // of nothing
  fs::resize_file(path_, 10);
  EXPECT_FALSE(moved.CheckIntact().ok());
}

// Guards are used again; a mapping must not inherit what befell the one before.
TEST_F(MappedFileTest, TheNextMappingBeginsAnew) {
  fs::resize_file(path_, 0);
  Sum();
  ExpectLost();
  for (int i = 0; i < 3; ++i) {
    Write(path_, 'c');
    auto next = MappedFile::Open(path_);
    ASSERT_TRUE(next.ok());
    file_ = *std::move(next);
    EXPECT_TRUE(file_.CheckIntact().ok());
    EXPECT_EQ(Sum(), kBytes * 'c');
  }
}

// A fault of a mapping that is not ours is nobody's to hide.
TEST_F(MappedFileTest, AnotherMappingsFaultStillEndsTheProcess) {
  EXPECT_EXIT(
      {
        const int fd = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
        const auto* other = static_cast<const volatile char*>(mmap(nullptr, kBytes, PROT_READ, MAP_SHARED, fd, 0));
        fs::resize_file(path_, 0);
        _exit(other[8192] == 0 ? 42 : 43);
      },
      [](int status) { return !WIFEXITED(status) || (WEXITSTATUS(status) != 42 && WEXITSTATUS(status) != 43); }, "");
}

}  // namespace
}  // namespace updraft::gguf
