// Threads stay where they were asked to and nowhere else is anyone confined; the bits do not depend on it.
#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu_affinity.h"
#include "kernels/cpu_topology.h"
#include "kernels/thread_pool.h"
#include "tests/kernels/cpu/test_util.h"

namespace updraft::kernels {
namespace {

using Cpus = std::vector<int>;

// Of the calling thread, as the system says; tests need no more than 1024 CPUs.
Cpus MaskOfThisThread() {
  cpu_set_t set;
  CPU_ZERO(&set);
  Cpus cpus;
  EXPECT_EQ(sched_getaffinity(0, sizeof(set), &set), 0);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

// The masks of all threads of a pool during loops; the calling thread's is the first. A pool promises no chunk to any
// thread, so each loop waits for all of them for some time only.
std::vector<Cpus> MasksOf(ThreadPool& pool) {
  const int n = pool.n_threads();
  std::vector<Cpus> masks(n);
  std::atomic<int> n_begun{0};
  for (int loop = 0; loop < 200 && n_begun < n; ++loop) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(50);
    pool.Run(n, [&](int, int thread) {
      if (masks[thread].empty()) {
        masks[thread] = MaskOfThisThread();
        if (masks[thread].size() == 1) {
          EXPECT_EQ(sched_getcpu(), masks[thread][0]) << "thread " << thread;
        }
        ++n_begun;
      }
      while (n_begun < n && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    });
  }
  EXPECT_EQ(n_begun, n) << "not every thread took part in 200 loops";
  return masks;
}

std::vector<Cpus> OneEach(const Cpus& cpus) {
  std::vector<Cpus> masks;
  for (const int cpu : cpus) masks.push_back({cpu});
  return masks;
}

Cpus Planned(const Cpus& allowed, int n_threads) { return CpusOfThreads(ReadTopology("/sys", allowed), n_threads); }

// Pinning confines whoever calls Run for good, so that nobody shall who runs other tests.
template <typename Body>
void OnThreadOfItsOwn(const Body& body) {
  std::thread(body).join();
}

class PinningTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (allowed_.empty()) GTEST_SKIP() << "the system does not say which CPUs this process may use";
  }
  void TearDown() override { EXPECT_EQ(MaskOfThisThread(), allowed_) << "the test's own thread was confined"; }
  const Cpus allowed_ = MaskOfThisThread();
};

TEST_F(PinningTest, EveryThreadStaysOnItsCpu) {
  for (const int n : {1, 2, 3, static_cast<int>(allowed_.size()), static_cast<int>(allowed_.size()) + 3}) {
    SCOPED_TRACE(std::to_string(n) + " threads");
    OnThreadOfItsOwn([&] {
      ThreadPool pool(n, /*pin_threads=*/true);
      ASSERT_EQ(pool.n_threads(), n);
      EXPECT_EQ(pool.n_pinned(), n - 1) << "workers at once, the caller when it asks for work";
      EXPECT_EQ(MaskOfThisThread(), allowed_);
      for (int loop = 0; loop < 3; ++loop) EXPECT_EQ(MasksOf(pool), OneEach(Planned(allowed_, n)));
      EXPECT_EQ(pool.n_pinned(), n);
    });
  }
}

TEST_F(PinningTest, NobodyIsConfinedUnasked) {
  for (const int n : {1, 2, 5}) {
    ThreadPool pool(n);
    EXPECT_EQ(MasksOf(pool), std::vector<Cpus>(n, allowed_)) << n << " threads";
    pool.PinCaller();
    EXPECT_EQ(MaskOfThisThread(), allowed_);
    EXPECT_EQ(pool.n_pinned(), 0);
  }
}

// As where one thread loads a model and another runs it.
TEST_F(PinningTest, EveryCallerIsPinned) {
  const std::vector<Cpus> planned = OneEach(Planned(allowed_, 2));
  ThreadPool pool(2, /*pin_threads=*/true);
  for (int caller = 0; caller < 3; ++caller) {
    OnThreadOfItsOwn([&] { EXPECT_EQ(MasksOf(pool), planned) << "caller " << caller; });
  }
}

TEST_F(PinningTest, PoolsMadeOnAPinnedThreadUseWhatItHadBefore) {
  OnThreadOfItsOwn([&] {
    const int available = AvailableCpus();
    ThreadPool first(2, /*pin_threads=*/true);
    first.PinCaller();
    const Cpus own = {Planned(allowed_, 2)[0]};
    ASSERT_EQ(MaskOfThisThread(), own);
    EXPECT_EQ(AllowedCpus(), allowed_);
    EXPECT_EQ(AvailableCpus(), available);

    ThreadPool free(3);
    EXPECT_EQ(MasksOf(free), (std::vector<Cpus>{own, allowed_, allowed_}));
    ThreadPool second(3, /*pin_threads=*/true);
    EXPECT_EQ(MasksOf(second), OneEach(Planned(allowed_, 3)));
  });
}

// A CPU that this process may not use is what refusal looks like from here.
TEST_F(PinningTest, RefusalLeavesTheThreadWhereItWas) {
  OnThreadOfItsOwn([&] {
    constexpr int kNoCpu = 1 << 19;
    for (int i = 0; i < 2; ++i) {
      EXPECT_FALSE(PinThisThread(kNoCpu));
      EXPECT_FALSE(ThisThreadIsPinned());
      EXPECT_EQ(MaskOfThisThread(), allowed_);
    }
    EXPECT_TRUE(PinThisThread(allowed_.back()));
    EXPECT_TRUE(ThisThreadIsPinned());
    EXPECT_EQ(MaskOfThisThread(), Cpus{allowed_.back()});
    EXPECT_FALSE(PinThisThread(kNoCpu));
    EXPECT_EQ(MaskOfThisThread(), Cpus{allowed_.back()});
    EXPECT_EQ(AllowedCpus(), allowed_);
  });
}

constexpr int64_t kIn = 512;
constexpr int64_t kOut[] = {1024, 80, 1536};

const std::vector<std::vector<std::byte>>& Files() {
  static const auto* const files = [] {
    auto* made = new std::vector<std::vector<std::byte>>;
    for (const int64_t n_out : kOut) made->push_back(EncodedWeights(DType::kQ8_0, n_out, kIn, 6 + n_out));
    return made;
  }();
  return *files;
}

// By three matrices that are multiplied together, two of them large enough for all threads.
std::vector<float> Products(Ops& ops, int n_tok) {
  const std::vector<float> x = Gaussian(n_tok * kIn, 5);
  std::vector<std::unique_ptr<PackedMatrix>> packed;
  std::vector<std::vector<float>> y;
  std::vector<MatMulTarget> targets;
  for (size_t i = 0; i < std::size(kOut); ++i) {
    packed.push_back(ops.Pack(DType::kQ8_0, kOut[i], kIn, Files()[i].data()));
    y.emplace_back(n_tok * kOut[i]);
    targets.push_back({.w = packed[i].get(), .y = y[i].data()});
  }
  for (int pass = 0; pass < 3; ++pass) ops.MatMul(targets, {x.data()}, n_tok);
  std::vector<float> all;
  for (const auto& part : y) all.insert(all.end(), part.begin(), part.end());
  return all;
}

TEST_F(PinningTest, PinnedOperationsGiveTheSameBits) {
  for (const Isa isa : VectorIsas()) {
    for (const int n_tok : {1, 9}) {
      const std::vector<float> one = Products(*MakeCpuOpsFor(isa, 1), n_tok);
      for (const int threads : {2, 3, 5}) {
        SCOPED_TRACE(std::string(IsaName(isa)) + ", " + std::to_string(threads) + " threads");
        EXPECT_TRUE(SameBits(Products(*MakeCpuOpsFor(isa, threads), n_tok), one));
        OnThreadOfItsOwn([&] {
          EXPECT_TRUE(SameBits(Products(*MakeCpuOpsFor(isa, threads, {.pin_threads = true}), n_tok), one)) << "pinned";
        });
      }
    }
  }
}

TEST_F(PinningTest, NameSaysSo) {
  OnThreadOfItsOwn([] {
    for (const Isa isa : {Isa::kPortable, Isa::kReference}) {
      const std::string cpu = std::string("cpu/") + IsaName(isa);
      EXPECT_EQ(MakeCpuOpsFor(isa, 2)->name(), cpu + ", 2 threads");
      const auto ops = MakeCpuOpsFor(isa, 2, {.pin_threads = true});
      EXPECT_EQ(ops->name(), cpu + ", 2 threads, 1 pinned");
      Products(*ops, 1);
      EXPECT_EQ(ops->name(), cpu + ", 2 threads, pinned");
    }
  });
}

// Products of one thread never reach the pool.
TEST_F(PinningTest, OneThreadIsPinnedToo) {
  OnThreadOfItsOwn([&] {
    const auto ops = MakeCpuOpsFor(Isa::kPortable, 1, {.pin_threads = true});
    Products(*ops, 1);
    EXPECT_EQ(MaskOfThisThread(), Cpus{Planned(allowed_, 1)});
    EXPECT_EQ(ops->name(), "cpu/portable, 1 thread, pinned");
  });
}

}  // namespace
}  // namespace updraft::kernels
