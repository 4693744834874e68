// What planning costs: no allocation in a step, and nanoseconds per row.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "common/engine/core.h"
#include "tests/common/count_allocations.h"
#include "tests/common/engine/random_options.h"

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
  int n_parked = 0;         // sequences, each with its blocks
  // At the head of the queue stands one that does not fit. Where prefixes are reused, it begins with a long cached one,
  // and those who run live on the blocks of that: nothing else is left.
  bool head_is_stuck = false;

  std::string Name() const {
    return absl::StrFormat("%3d running, %4d waiting, %4d parked%s%s%s", n_running, n_waiting, n_parked,
                           reuse_prefixes ? ", prefixes reused" : "", time_comes ? ", a time comes in every step" : "",
                           head_is_stuck ? ", the head does not fit" : "");
  }
};

// Sequences that decode together, after they have been taken in; a waiting queue stands behind them.
class Decoding {
 public:
  explicit Decoding(const World& world) : world_(world), core_(Options(world)), sampled_(world.n_running + 1, 5) {
    events_.reserve(4 * core_.options().max_running + world.n_parked);
    if (IsStuckOnCache()) {
      Admit(Tokens(0, kCached), kCached + 1);
      while (!core_.idle()) Step();
    }
    for (int i = 0; i < world.n_parked; ++i) {
      Admit(Tokens(i, kTokens), kTotal);
      Step();
      core_.Park(n_admitted_, SteadyTime::InfiniteFuture());
    }
    for (int i = 0; i < world.n_running; ++i) Admit(Tokens(i + 1, kTokens), kTotal);
    while (core_.n_running() < world.n_running || core_.load().queued_tokens > world.n_running) Step();
    if (world.head_is_stuck) {
      std::vector<int32_t> tokens = Tokens(0, IsStuckOnCache() ? kCached : 0);
      tokens.resize(core_.options().n_blocks * kBlockTokens - 1, 3);
      Admit(std::move(tokens), core_.options().n_blocks * kBlockTokens);
    }
    for (int i = 0; i < world.n_waiting; ++i) Admit(Tokens(i, kTokens), kTotal);
    for (int i = 0; i < 32; ++i) Step();  // every list has its size
  }

  void Step() {
    events_.clear();
    if (world_.time_comes) {
      core_.Park(n_admitted_, now_ + absl::Microseconds(50));
      core_.Wake(n_admitted_);
    }
    const Work* work = core_.Begin(now_, &events_);
    size_t n_sampled = 0;
    for (const RowRun& run : work->rows) n_sampled += run.n_sampled;
    now_ = now_ + absl::Microseconds(100);
    core_.Commit(work->step, {.status = {}, .sampled = std::span(sampled_).first(n_sampled)}, now_, &events_);
  }
  const Core& core() const { return core_; }

 private:
  static constexpr int kTokens = 64, kTotal = 2000, kBlockTokens = 16, kCached = 4000 * kBlockTokens;

  bool IsStuckOnCache() const { return world_.head_is_stuck && world_.reuse_prefixes; }

  static CoreOptions Options(const World& world) {
    const bool lives_on_cache = world.head_is_stuck && world.reuse_prefixes;
    const int n_own = lives_on_cache ? kTokens / kBlockTokens + 1 : kTotal / kBlockTokens;
    return {.n_blocks = world.n_running * n_own + world.n_parked * (kTokens / kBlockTokens + 1) +
                        (lives_on_cache ? kCached / kBlockTokens : 64),
            .block_tokens = kBlockTokens,
            .max_running = world.n_running + (world.head_is_stuck ? 1 : 0),
            .max_step_tokens = std::max(512, world.n_running + 1),
            .reuse_prefixes = world.reuse_prefixes};
  }
  static std::vector<int32_t> Tokens(int seed, int n) {
    std::vector<int32_t> tokens;
    for (int t = 0; t < n; ++t) tokens.push_back((seed * 31 + t) % 1000);
    return tokens;
  }
  void Admit(std::vector<int32_t> tokens, int n_total_max) {
    SequenceSpec spec{.tokens = std::move(tokens), .n_total_max = n_total_max};
    spec.deadline = now_ + absl::Hours(1);
    ASSERT_TRUE(core_.Check(spec).ok()) << core_.Check(spec);
    core_.Admit(++n_admitted_, std::move(spec), now_);
  }

  const World world_;
  Core core_;
  SteadyTime now_ = SteadyTime::FromOrigin(absl::Seconds(1));
  Ticket n_admitted_ = 0;
  std::vector<Event> events_;
  std::vector<int32_t> sampled_;
};

Cost Measure(const World& world) {
  Decoding decoding(world);
  Cost cost;
  cost.ns_per_row.reserve(kWindows);
  const int64_t rows_before = decoding.core().stats().n_rows, allocations_before = NumAllocations();
  for (int window = 0; window < kWindows; ++window) {
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < kWindowSteps; ++i) decoding.Step();
    const std::chrono::duration<double, std::nano> time = std::chrono::steady_clock::now() - begin;
    cost.ns_per_row.push_back(time.count() / (kWindowSteps * world.n_running));
  }
  cost.n_allocations = NumAllocations() - allocations_before;
  cost.n_rows = decoding.core().stats().n_rows - rows_before;
  std::sort(cost.ns_per_row.begin(), cost.ns_per_row.end());
  return cost;
}

// A row costs at most 100 ns, and what waits, is parked or does not fit does not count by its number: at most four
// times a plain row, which is a matter of the core and not of the machine. Measured: twice, where a time comes in every
// step.
TEST(PlanningCost, ARowCostsFewNanosecondsWhateverWaitsAndAStepAllocatesNothing) {
  constexpr double kMostPlain_ns = 100.0, kMostTimesPlain = 4.0;
  std::map<int, double> plain;  // by the number that run, with nothing beside them
  for (const World& world : {World{8, 0},
                             {64, 0},
                             {256, 0},
                             {64, 256},
                             {256, 256},
                             {64, 256, true},
                             {64, 256, false, true},
                             {8, 256, false, true},
                             {8, 4096, false, true},
                             {8, 256, false, false, 4096, true},
                             {8, 256, true, false, 0, true}}) {
    const Cost cost = Measure(world);
    EXPECT_EQ(cost.n_allocations, 0) << world.Name();
    EXPECT_EQ(cost.n_rows, static_cast<int64_t>(world.n_running) * kWindows * kWindowSteps) << world.Name();
    // The least of many windows, so that a busy machine is no reason.
    const double least = cost.ns_per_row.front(), median = cost.ns_per_row[kWindows / 2];
    const auto [reference, is_plain] = plain.emplace(world.n_running, least);
    std::printf("%s: Begin and Commit take %.1f ns a row, the median of %d (least %.1f; wanted: 100)\n",
                world.Name().c_str(), median, kWindows, least);
    if (kIsTimed) {
      EXPECT_LE(least, is_plain ? kMostPlain_ns : kMostTimesPlain * reference->second) << world.Name();
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
  const int64_t before = NumAllocations();
  while (core.stats().n_preemptions < 20) {
    events.clear();
    const Work* work = core.Begin(now, &events);
    ASSERT_NE(work, nullptr);
    size_t n_sampled = 0;
    for (const RowRun& run : work->rows) n_sampled += run.n_sampled;
    core.Commit(work->step, {.status = {}, .sampled = std::span(sampled).first(n_sampled)}, now, &events);
  }
  EXPECT_EQ(NumAllocations() - before, 0);
}

// Ends of parking that are moved, again and again, mean nothing any more; the list of times is made anew in its place.
TEST(PlanningCost, TimesThatAreMovedTakeNoMemory) {
  Core core({.n_blocks = 64, .block_tokens = 4, .max_running = 8, .max_step_tokens = 64});
  const SteadyTime now = SteadyTime::FromOrigin(absl::Seconds(1));
  for (int i = 0; i < 10; ++i) {
    core.Admit(i + 1, {.tokens = {1, 2, 3}, .n_total_max = 20, .deadline = now + absl::Hours(1 + i * 7 % 10)}, now);
  }
  for (int i = 0; i < 2000; ++i) {
    const int64_t before = NumAllocations();
    core.Park(1 + i % 10, now + absl::Seconds(10) - absl::Milliseconds(i % 1000));
    if (i % 3 == 0) core.Wake(1 + i % 10);
    ASSERT_EQ(NumAllocations() - before, 0);
    ASSERT_TRUE(core.CheckInvariants().ok()) << core.CheckInvariants();
  }
}

// Whatever may happen to a core, drawn at random: nothing but Admit takes memory, if the list of events has room for
// two of each sequence.
class AnyStep {
 public:
  explicit AnyStep(uint32_t seed) : random_(seed), core_(RandomOptions(random_)) {}

  void Operate() {
    const Ticket some = n_admitted_ == 0 ? 0 : Draw(std::max(1, n_admitted_ - 30), n_admitted_);
    const int what = Draw(0, 19);
    if (what < 4) {
      Admit();
    } else if (what < 14) {
      Turn();
    } else if (what < 15) {
      now_ = now_ + absl::Milliseconds(Draw(0, 20));
    } else if (!core_.contains(some)) {
      return;
    } else {
      const std::vector<int32_t> drafts(Draw(0, 8), 5);
      const int64_t before = NumAllocations();
      if (what < 16) core_.Park(some, now_ + absl::Milliseconds(20));
      if (what == 16) core_.Wake(some);
      if (what == 17) core_.Finish(some, absl::OkStatus());
      if (what > 17) core_.Grow(some, drafts);
      EXPECT_EQ(NumAllocations() - before, 0) << "call " << what;
    }
  }
  const CoreStats& stats() const { return core_.stats(); }
  int n_expired() const { return n_expired_; }

 private:
  int Draw(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }

  void Admit() {
    if (core_.n_waiting() + core_.n_parked() > 60) return;
    SequenceSpec spec{.tokens = std::vector<int32_t>(Draw(1, 30), 5), .priority = Draw(-1, 1)};
    spec.n_total_max = static_cast<int>(spec.tokens.size()) + Draw(1, 30);
    if (Draw(0, 2) == 0) spec.deadline = now_ + absl::Milliseconds(Draw(0, 60));
    if (core_.Check(spec).ok()) core_.Admit(++n_admitted_, std::move(spec), now_);
  }

  void Turn() {
    const size_t n_events = 2 * (core_.n_running() + core_.n_waiting() + core_.n_parked());
    events_.clear();
    events_.reserve(n_events);
    const absl::Status fault = absl::InternalError("a fault");
    int64_t before = NumAllocations();
    const Work* work = core_.Begin(now_, &events_);
    EXPECT_EQ(NumAllocations() - before, 0) << "Begin";
    EXPECT_LE(events_.size(), n_events);
    for (const Event& event : events_) n_expired_ += event.kind == Event::Kind::kEnded;
    if (work == nullptr) return;
    sampled_.clear();
    n_complete_.clear();
    for (const RowRun& run : work->rows) {
      for (int i = 0; i < run.n_sampled; ++i) sampled_.push_back(Draw(0, 9) == 0 ? kNoToken : Draw(4, 5));
      n_complete_.push_back(Draw(0, 2) > 0 ? run.n_rows : Draw(0, run.n_rows));
    }
    const bool fails = Draw(0, 60) == 0;
    now_ = now_ + absl::Milliseconds(1);
    events_.clear();
    before = NumAllocations();
    core_.Commit(
        work->step,
        {.status = fails ? fault : absl::OkStatus(), .kv_lost = fails, .sampled = sampled_, .n_complete = n_complete_},
        now_, &events_);
    EXPECT_EQ(NumAllocations() - before, 0) << "Commit";
    EXPECT_LE(events_.size(), n_events);
  }

  std::mt19937 random_;
  Core core_;
  SteadyTime now_ = SteadyTime::FromOrigin(absl::Seconds(1));
  int n_admitted_ = 0, n_expired_ = 0;
  std::vector<Event> events_;
  std::vector<int32_t> sampled_, n_complete_;
};

TEST(PlanningCost, NothingButAdmitTakesMemory) {
  CoreStats sum;
  int n_expired = 0;
  for (uint32_t seed = 1; seed <= 60; ++seed) {
    AnyStep any(seed);
    for (int i = 0; i < 1500; ++i) any.Operate();
    ASSERT_FALSE(testing::Test::HasFailure()) << "seed " << seed;
    sum.n_preemptions += any.stats().n_preemptions;
    sum.n_evictions += any.stats().n_evictions;
    sum.n_cached_tokens += any.stats().n_cached_tokens;
    sum.n_drafts_accepted += any.stats().n_drafts_accepted;
    n_expired += any.n_expired();
  }
  EXPECT_GT(sum.n_preemptions, 100);
  EXPECT_GT(sum.n_evictions, 100);
  EXPECT_GT(sum.n_cached_tokens, 1000);
  EXPECT_GT(sum.n_drafts_accepted, 100);
  EXPECT_GT(n_expired, 100);
}

}  // namespace
}  // namespace updraft::engine
