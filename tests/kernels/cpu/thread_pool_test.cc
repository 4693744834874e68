// The pool under load, idle, oversubscribed and short-lived (run it under ThreadSanitizer too); processor limits.
#include "kernels/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "kernels/arch.h"

namespace updraft::kernels {
namespace {

TEST(ThreadPoolTest, EveryChunkRunsExactlyOnce) {
  for (const int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads);
    ASSERT_EQ(pool.n_threads(), threads);
    for (int loop = 0; loop < 2000; ++loop) {
      const int n_chunks = loop % 37;
      std::vector<int> runs(n_chunks, 0);  // not atomic: a chunk is one thread's alone
      pool.Run(n_chunks, [&](int chunk, int thread) {
        ASSERT_GE(thread, 0);
        ASSERT_LT(thread, threads);
        ++runs[chunk];
      });
      for (const int count : runs) ASSERT_EQ(count, 1);
    }
  }
}

TEST(ThreadPoolTest, WhatALoopWroteIsSeenByTheNext) {
  ThreadPool pool(3);
  std::vector<int64_t> values(64, 0);
  std::vector<int64_t> mirrored(64, 0);
  for (int loop = 0; loop < 3000; ++loop) {
    pool.Run(64, [&](int chunk, int) { mirrored[chunk] = values[63 - chunk]; });
    pool.Run(64, [&](int chunk, int) { values[chunk] = mirrored[63 - chunk] + chunk; });
  }
  for (int i = 0; i < 64; ++i) EXPECT_EQ(values[i], 3000 * i);
}

TEST(ThreadPoolTest, WakesUpAfterBeingIdle) {
  ThreadPool pool(4);
  for (int loop = 0; loop < 20; ++loop) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // beyond the time of spinning: the workers have parked
    std::atomic<int> sum{0};
    pool.Run(100, [&](int chunk, int) { sum += chunk; });
    EXPECT_EQ(sum.load(), 4950);
  }
}

// More than the state of one loop can count.
TEST(ThreadPoolTest, AnyNumberOfChunks) {
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    for (const int n_chunks : {0xfffe, 0xffff, 0x10000, 0x10001, 200'000}) {
      std::vector<int> runs(n_chunks, 0);
      pool.Run(n_chunks, [&](int chunk, int) { ++runs[chunk]; });
      EXPECT_EQ(std::count(runs.begin(), runs.end(), 1), n_chunks);
    }
  }
}

TEST(ThreadPoolTest, EveryThreadBeginsWithItsOwnSegment) {
  constexpr int kThreads = 4;
  ThreadPool pool(kThreads);
  for (const int n_chunks : {1, 3, 4, 50}) {
    EXPECT_EQ(pool.SegmentBegin(n_chunks, 0), 0);
    EXPECT_EQ(pool.SegmentBegin(n_chunks, kThreads), n_chunks);
  }
  ASSERT_EQ(pool.n_threads(), kThreads);
  // A worker that wakes up while a loop is being published may find another's segment first, so not every loop counts;
  // threads that always began elsewhere would be seen nowhere.
  int n_own = 0;
  for (int loop = 0; loop < 50; ++loop) {
    std::vector<int> first(kThreads, -1);
    std::atomic<int> n_begun{0};
    pool.Run(40, [&](int chunk, int thread) {
      if (first[thread] >= 0) return;
      first[thread] = chunk;
      ++n_begun;
      while (n_begun < kThreads) std::this_thread::yield();  // so that nobody helps before all have begun
    });
    bool own = true;
    for (int thread = 0; thread < kThreads; ++thread) own = own && first[thread] == pool.SegmentBegin(40, thread);
    n_own += own ? 1 : 0;
  }
  EXPECT_GE(n_own, 10);
}

TEST(ThreadPoolTest, AThreadThatIsHeldUpIsHelped) {
  ThreadPool pool(3);
  ASSERT_EQ(pool.n_threads(), 3);
  std::atomic<int> n_done{0};
  pool.Run(30, [&](int chunk, int) {
    if (chunk == pool.SegmentBegin(30, 1)) {
      while (n_done < 29) std::this_thread::yield();  // until others have done all the rest of its segment
    }
    ++n_done;
  });
  EXPECT_EQ(n_done.load(), 30);
}

TEST(ThreadPoolTest, AsksForMemoryThatNeedNotExist) {
  MemoryAhead ahead(3);
  ThreadPool pool(3);
  for (int thread = 0; thread < 3; ++thread) {
    ahead.Add(thread, {reinterpret_cast<const void*>(uintptr_t{0x1000}), int64_t{1} << 20});
    ahead.Add(thread, {nullptr, 0});  // nothing
    for (int i = 0; i < 2 * MemoryAhead::kMaxRanges; ++i) ahead.Add(thread, {&ahead, 1});
    EXPECT_EQ(ahead.of(thread).size(), size_t{MemoryAhead::kMaxRanges});
  }
  std::atomic<int> sum{0};
  for (int loop = 0; loop < 500; ++loop)
    pool.Run(
        7, [&](int chunk, int) { sum += chunk; }, loop % 2 ? &ahead : nullptr);
  EXPECT_EQ(sum.load(), 500 * 21);
}

// Each loop hands over ranges that were made a moment ago (run under ThreadSanitizer).
TEST(ThreadPoolTest, RangesMayBeNewWithEveryLoop) {
  std::vector<std::unique_ptr<MemoryAhead>> all;
  ThreadPool pool(3);
  std::atomic<int> sum{0};
  for (int loop = 0; loop < 500; ++loop) {
    all.push_back(std::make_unique<MemoryAhead>(3));
    for (int thread = 0; thread < 3; ++thread) all.back()->Add(thread, {&sum, 1 << 16});
    pool.Run(
        5, [&](int, int) { ++sum; }, all.back().get());
  }
  EXPECT_EQ(sum.load(), 2500);
}

TEST(ThreadPoolTest, StartsAndStopsManyTimes) {
  for (int i = 0; i < 200; ++i) {
    ThreadPool pool(1 + i % 5);
    if (i % 3 == 0) continue;  // stopped without having worked
    std::atomic<int> sum{0};
    pool.Run(8, [&](int, int) { ++sum; });
    EXPECT_EQ(sum.load(), 8);
  }
}

TEST(ThreadPoolTest, SeveralPoolsAtOnce) {
  std::vector<std::thread> callers;
  std::atomic<int> total{0};
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&total] {
      ThreadPool pool(3);
      for (int loop = 0; loop < 300; ++loop) pool.Run(5, [&](int, int) { ++total; });
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(total.load(), 4 * 300 * 5);
}

TEST(CpuLimitTest, AtLeastOneAndNoMoreThanTheMachineHas) {
  EXPECT_GE(AvailableCpus(), 1);
  EXPECT_LE(AvailableCpus(), static_cast<int>(std::thread::hardware_concurrency()));
}

TEST(CpuLimitTest, ParsesCpuMax) {
  EXPECT_EQ(ParseCpuMax("max 100000\n"), std::nullopt);
  EXPECT_EQ(ParseCpuMax("150000 100000\n"), 1.5);
  EXPECT_EQ(ParseCpuMax("-1\n 100000\n"), std::nullopt);  // cgroup v1, unlimited
  for (const char* bad : {"", "5", "x y", "100000 0", "0 100000", "1e400 1"}) {
    EXPECT_EQ(ParseCpuMax(bad), std::nullopt) << bad;
  }
}

class CgroupTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = std::filesystem::temp_directory_path() / ("updraft-cgroup-" + std::to_string(::getpid()));
    std::filesystem::create_directories(root_);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  std::filesystem::path root_;
};

TEST_F(CgroupTest, TightestLimitUpTheTree) {
  Write("cpu.max", "800000 100000");
  Write("a/cpu.max", "200000 100000");
  Write("a/b/cpu.max", "max 100000");
  EXPECT_EQ(CgroupCpus(root_.string(), "0::/a/b\n"), 2.0);
  EXPECT_EQ(CgroupCpus(root_.string(), "0::/\n"), 8.0);
  EXPECT_EQ(CgroupCpus(root_.string(), "0::/elsewhere\n"), 8.0);
}

TEST_F(CgroupTest, Version1) {
  Write("cpu/box/cpu.cfs_quota_us", "250000\n");
  Write("cpu/box/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(CgroupCpus(root_.string(), "5:memory:/box\n4:cpu,cpuacct:/box\n"), 2.5);
  EXPECT_EQ(CgroupCpus(root_.string(), "5:memory:/box\n"), std::nullopt);
}

TEST_F(CgroupTest, NonsenseIsNoLimit) {
  for (const char* text : {"", "\n\n", "nonsense", "0:", "::", "0::"}) {
    EXPECT_EQ(CgroupCpus(root_.string(), text), std::nullopt) << text;
  }
}

TEST(IsaTest, NamesAndForcing) {
  for (const Isa isa : SupportedIsas()) {
    EXPECT_EQ(ParseIsa(IsaName(isa)), isa);
    ASSERT_EQ(::setenv("UPDRAFT_FORCE_ISA", IsaName(isa), 1), 0);
    EXPECT_EQ(ChooseIsa(), isa);
  }
  const Isa best = SupportedIsas().back();
  for (const char* name : {"sparc", "", "AVX2"}) {
    ASSERT_EQ(::setenv("UPDRAFT_FORCE_ISA", name, 1), 0);
    EXPECT_EQ(ChooseIsa(), best) << name;
  }
  ::unsetenv("UPDRAFT_FORCE_ISA");
  EXPECT_EQ(ChooseIsa(), best);
}

}  // namespace
}  // namespace updraft::kernels
