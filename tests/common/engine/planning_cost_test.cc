// What planning costs: no allocation in a step, and nanoseconds per row.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <vector>

#include "common/engine/core.h"

namespace {
thread_local int64_t n_allocations = 0;
}  // namespace

void* operator new(size_t n) {
  ++n_allocations;
  if (void* p = std::malloc(n)) return p;
  std::abort();
}
void* operator new(size_t n, std::align_val_t align) {
  ++n_allocations;
  const size_t a = static_cast<size_t>(align);
  if (void* p = std::aligned_alloc(a, (n + a - 1) / a * a)) return p;
  std::abort();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }

namespace updraft::engine {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kIsTimed = false;
#else
constexpr bool kIsTimed = true;
#endif

struct Cost {
  int64_t n_rows = 0, n_allocations = 0;
  std::vector<double> ns_per_row = {};  // of each window
};

constexpr int kWindows = 100, kWindowSteps = 16;  // short, since other processes take the CPU away

struct World {
  int n_running, n_waiting;
  bool reuse_prefixes = false;
  bool time_comes = false;  // in every step, a time that somebody waited for: the end of a parking that is over already
};

// Sequences that decode together, after they have been taken in; a waiting queue stands behind them.
Cost Decode(const World& world) {
  const auto& [n_running, n_waiting, reuse_prefixes, time_comes] = world;
  constexpr int kTokens = 64, kTotal = 2000;
  CoreOptions options{.n_blocks = n_running * kTotal / 16 + 64,
                      .block_tokens = 16,
                      .max_running = n_running,
                      .max_step_tokens = std::max(512, n_running),
                      .reuse_prefixes = reuse_prefixes};
  Core core(options);
  SteadyTime now = SteadyTime::FromOrigin(absl::Seconds(1));
  for (int i = 0; i < n_running + n_waiting; ++i) {
    SequenceSpec spec{.tokens = {}, .n_total_max = kTotal};
    for (int t = 0; t < kTokens; ++t) spec.tokens.push_back((i * 31 + t) % 1000);
    spec.deadline = now + absl::Hours(1);
    core.Admit(i + 1, std::move(spec), now);
  }
  std::vector<Event> events;
  events.reserve(4 * n_running);
  std::vector<int32_t> sampled(n_running, 5);
  const auto step = [&] {
    events.clear();
    if (time_comes) {
      core.Park(n_running + n_waiting, now + absl::Microseconds(50));
      core.Wake(n_running + n_waiting);
    }
    const Work* work = core.Begin(now, &events);
    size_t n_sampled = 0;
    for (const RowRun& run : work->rows) n_sampled += run.n_sampled;
    now = now + absl::Microseconds(100);
    core.Commit(work->step, {.status = {}, .sampled = std::span(sampled).first(n_sampled)}, now, &events);
  };
  while (core.n_running() < n_running || core.load().queued_tokens > n_running + n_waiting * kTokens) step();
  for (int i = 0; i < 32; ++i) step();  // every list has its size

  Cost cost;
  cost.ns_per_row.reserve(kWindows);
  const int64_t rows_before = core.stats().n_rows, allocations_before = n_allocations;
  for (int window = 0; window < kWindows; ++window) {
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < kWindowSteps; ++i) step();
    const std::chrono::duration<double, std::nano> time = std::chrono::steady_clock::now() - begin;
    cost.ns_per_row.push_back(time.count() / (kWindowSteps * n_running));
  }
  cost.n_allocations = n_allocations - allocations_before;
  cost.n_rows = core.stats().n_rows - rows_before;
  std::sort(cost.ns_per_row.begin(), cost.ns_per_row.end());
  return cost;
}

TEST(PlanningCost, ARowCostsFewNanosecondsAndAStepAllocatesNothing) {
  for (const World& world : {World{8, 0},
                             {64, 0},
                             {64, 256},
                             {256, 256},
                             {64, 256, true},
                             {64, 256, false, true},
                             {8, 256, false, true},
                             {8, 4096, false, true}}) {
    const Cost cost = Decode(world);
    EXPECT_EQ(cost.n_allocations, 0) << world.n_running << " running";
    EXPECT_EQ(cost.n_rows, static_cast<int64_t>(world.n_running) * kWindows * kWindowSteps);
    const double least = cost.ns_per_row.front(), median = cost.ns_per_row[kWindows / 2];
    std::printf("%3d running, %4d waiting%s%s: Begin and Commit take %.1f ns a row, the median of %d (least %.1f)\n",
                world.n_running, world.n_waiting, world.reuse_prefixes ? ", prefixes reused" : "",
                world.time_comes ? ", a time comes in every step" : "", median, kWindows, least);
    if (kIsTimed) {
      EXPECT_LE(least, 100.0) << "the least of many, so that a busy machine is no reason";
    }
  }
}

// Preemption and return are steps, too.
TEST(PlanningCost, PreemptionAllocatesNothing) {
  Core core({.n_blocks = 64, .block_tokens = 4, .max_running = 8, .max_step_tokens = 64});
  SteadyTime now = SteadyTime::FromOrigin(absl::Seconds(1));
  for (int i = 0; i < 100; ++i) core.Admit(i + 1, {.tokens = {1, 2, 3}, .n_total_max = 200}, now);
  std::vector<Event> events;
  events.reserve(100);
  std::vector<int32_t> sampled(64, 5);
  const int64_t before = n_allocations;
  while (core.stats().n_preemptions < 20) {
    events.clear();
    const Work* work = core.Begin(now, &events);
    ASSERT_NE(work, nullptr);
    size_t n_sampled = 0;
    for (const RowRun& run : work->rows) n_sampled += run.n_sampled;
    core.Commit(work->step, {.status = {}, .sampled = std::span(sampled).first(n_sampled)}, now, &events);
  }
  EXPECT_EQ(n_allocations - before, 0);
}

}  // namespace
}  // namespace updraft::engine
