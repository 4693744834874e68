// Limits of control groups, from trees of files as the kernel shows them.
#include "common/memory/available.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"

namespace updraft {
namespace {

using ::testing::HasSubstr;
constexpr uint64_t kMiB = 1 << 20;

class AvailableMemoryTest : public ::testing::Test {
 protected:
  void SetUp() override { root_ = ::testing::TempDir() + "updraft_memory_" + std::to_string(getpid()); }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  void Meminfo(uint64_t mib) {
    Write("/proc/meminfo",
          absl::StrCat("MemTotal: 99999999 kB\nMemFree:  1 kB\nMemAvailable:   ", mib * 1024, " kB\n"));
  }
  // A version 2 hierarchy at /sys/fs/cgroup; the process is in `path`.
  void V2(const std::string& path, const std::string& mount_root = "/") {
    Write("/proc/self/cgroup", absl::StrCat("0::", path, "\n"));
    Write("/proc/self/mountinfo", absl::StrCat("22 1 0:20 / /proc rw - proc proc rw\n30 23 0:26 ", mount_root,
                                               " /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"));
  }
  void Group(const std::string& path, const std::string& max, uint64_t current, uint64_t file_cache = 0,
             const std::string& high = "max") {
    const std::string folder = "/sys/fs/cgroup" + path;
    Write(folder + "/memory.max", max + "\n");
    Write(folder + "/memory.high", high + "\n");
    Write(folder + "/memory.current", absl::StrCat(current, "\n"));
    Write(folder + "/memory.stat", absl::StrCat("anon 1\nfile 7\nactive_file ", file_cache / 2, "\ninactive_file ",
                                                file_cache - file_cache / 2, "\n"));
  }
  AvailableMemory Read() const { return ReadAvailableMemory(root_); }

  std::string root_;
};

TEST_F(AvailableMemoryTest, NothingSaysNothing) {
  EXPECT_EQ(Read().bytes, AvailableMemory::kUnknown);
  EXPECT_EQ(Read().source, "");
}

TEST_F(AvailableMemoryTest, WithoutGroupsItIsWhatTheMachineHas) {
  Meminfo(300);
  EXPECT_EQ(Read().bytes, 300 * kMiB);
  EXPECT_THAT(Read().source, HasSubstr("MemAvailable"));
}

TEST_F(AvailableMemoryTest, TheAddressSpaceMayBeLimited) {
  Meminfo(10000);
  const std::string name = "Max address space         ";
  Write("/proc/self/limits", "Limit                     Soft Limit           Hard Limit           Units\n" + name +
                                 "unlimited            unlimited            bytes\n");
  Write("/proc/self/status", "Name: x\nVmPeak:  999 kB\nVmSize:\t  204800 kB\n");
  EXPECT_EQ(Read().bytes, 10000 * kMiB);
  Write("/proc/self/limits", name + absl::StrCat(512 * kMiB, "  unlimited  bytes\n"));
  EXPECT_EQ(Read().bytes, 312 * kMiB);
  EXPECT_EQ(Read().source, "the address space of this process (ulimit -v): 512.0 MiB, 200.0 MiB in use");
}

TEST_F(AvailableMemoryTest, TheLimitLessWhatIsInUse) {
  Meminfo(10000);
  V2("/app");
  Group("/app", std::to_string(512 * kMiB), 200 * kMiB, 50 * kMiB);
  EXPECT_EQ(Read().bytes, (512 - 200 + 50) * kMiB) << "pages of files are given back";
  EXPECT_EQ(Read().source, "cgroup '/app': memory.max of 512.0 MiB, 150.0 MiB in use");
}

TEST_F(AvailableMemoryTest, TheTightestLevelCounts) {
  Meminfo(10000);
  V2("/pods/pod7/app");
  Group("/pods/pod7/app", "max", 10 * kMiB);
  Group("/pods/pod7", std::to_string(256 * kMiB), 100 * kMiB);
  Group("/pods", std::to_string(1024 * kMiB), 100 * kMiB);
  EXPECT_EQ(Read().bytes, 156 * kMiB);
  EXPECT_THAT(Read().source, HasSubstr("'/pods/pod7'"));
  Group("/pods", std::to_string(1024 * kMiB), 1000 * kMiB);
  EXPECT_EQ(Read().bytes, 24 * kMiB) << "others of the same parent have taken the rest";
  Meminfo(5);
  EXPECT_EQ(Read().bytes, 5 * kMiB);
}

TEST_F(AvailableMemoryTest, MemoryHighCountsToo) {
  V2("/app");
  Group("/app", std::to_string(512 * kMiB), 0, 0, std::to_string(128 * kMiB));
  EXPECT_EQ(Read().bytes, 128 * kMiB);
  EXPECT_THAT(Read().source, HasSubstr("memory.high"));
}

TEST_F(AvailableMemoryTest, MoreInUseThanAllowedLeavesNothing) {
  V2("/app");
  Group("/app", std::to_string(64 * kMiB), 65 * kMiB);
  EXPECT_EQ(Read().bytes, 0u);
}

TEST_F(AvailableMemoryTest, InAContainerTheGroupIsTheMountsRoot) {
  // With a namespace of its own the path is "/".
  V2("/");
  Group("", std::to_string(100 * kMiB), 30 * kMiB);
  EXPECT_EQ(Read().bytes, 70 * kMiB);
  // Without one it is the host's, and so is the root of the mount.
  V2("/docker/abc/inner", "/docker/abc");
  Group("/inner", std::to_string(50 * kMiB), 30 * kMiB);
  EXPECT_EQ(Read().bytes, 20 * kMiB);
  // A group beside the namespace: its files cannot be seen.
  V2("/../other");
  EXPECT_EQ(Read().bytes, 70 * kMiB);
}

TEST_F(AvailableMemoryTest, VersionOne) {
  Meminfo(10000);
  Write("/proc/self/cgroup", "5:cpu,cpuacct:/else\n4:memory:/app\n0::/\n");
  Write("/proc/self/mountinfo",
        "30 23 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
        "31 23 0:27 / /sys/fs/cgroup/my\\040memory rw - cgroup cgroup rw,memory\n");
  const std::string folder = "/sys/fs/cgroup/my memory";
  Write(folder + "/memory.limit_in_bytes", "9223372036854771712\n");
  Write(folder + "/memory.usage_in_bytes", "123456789\n");
  EXPECT_EQ(Read().bytes, 10000 * kMiB);
  Write(folder + "/app/memory.limit_in_bytes", absl::StrCat(80 * kMiB, "\n"));
  Write(folder + "/app/memory.usage_in_bytes", absl::StrCat(60 * kMiB, "\n"));
  Write(folder + "/app/memory.stat",
        absl::StrCat("active_file 1\ntotal_active_file ", 10 * kMiB, "\ntotal_inactive_file ", 5 * kMiB, "\n"));
  EXPECT_EQ(Read().bytes, 35 * kMiB);
  EXPECT_EQ(Read().source, "cgroup '/app': memory.limit_in_bytes of 80.0 MiB, 45.0 MiB in use");
}

TEST_F(AvailableMemoryTest, OnThisMachineThereIsSome) {
  const AvailableMemory available = ReadAvailableMemory();
  EXPECT_GT(available.bytes, 0u);
}

TEST_F(AvailableMemoryTest, AnyBytesInTheFilesAreSafe) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    std::mt19937_64 rng(seed);
    const auto noise = [&] {
      std::string text;
      for (size_t n = rng() % 60; n > 0; --n) text += "0123456789 /:.-\n\\max,memory"[rng() % 27];
      return text;
    };
    V2("/a/b");
    Group("/a/b", noise(), rng());
    Write("/sys/fs/cgroup/a/b/memory.stat", noise());
    if (seed % 3 == 0) Write("/proc/self/cgroup", "0::/" + noise());
    if (seed % 5 == 0) Write("/proc/self/mountinfo", "1 2 3:4 " + noise() + " - cgroup2 " + noise());
    if (seed % 7 == 0) Write("/proc/meminfo", "MemAvailable: " + noise());
    SCOPED_TRACE(seed);
    Read();
  }
}

}  // namespace
}  // namespace updraft
