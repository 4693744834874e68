// Drafts that are all wrong: what is preempted, evicted, admitted and run of known tokens is what it is without them,
// on pools of all kinds, with half-run rows, with parked sequences and with shared prefixes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <ostream>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "common/engine/core.h"

namespace updraft::engine {
namespace {

constexpr int kSequences = 4;
constexpr int32_t kChosen = 7, kWrong = 9;

struct World {
  CoreOptions options;
  int n_prompt = 1, n_answer = 1;
  bool half_run = false;  // the executor leaves rows half-run, some without a choice
  bool parks = false;     // owners park and wake
  uint64_t seed = 0;
};

// What a step does for known tokens.
struct StepPlan {
  std::vector<std::tuple<Ticket, int, int>> runs;      // ticket, first row, rows of known tokens
  std::vector<std::pair<Event::Kind, Ticket>> events;  // of Begin
  // What became of the cache: tokens adopted so far, blocks that known tokens have.
  int64_t n_cached_tokens = 0;
  int n_held = 0;
  bool PartsFrom(const StepPlan& other) const {
    return n_cached_tokens != other.n_cached_tokens || n_held != other.n_held;
  }
  bool operator==(const StepPlan&) const = default;
  friend void PrintTo(const StepPlan& plan, std::ostream* out) {
    for (const auto& [ticket, first, n_rows] : plan.runs) {
      *out << ticket << ": [" << first << ", " << first + n_rows << ") ";
    }
    for (const auto& [kind, ticket] : plan.events)
      *out << "event " << static_cast<int>(kind) << " of " << ticket << " ";
    *out << plan.n_cached_tokens << " cached, " << plan.n_held << " held";
  }
};

class Runner {
 public:
  Runner(const World& world, bool drafts) : world_(world), drafts_(drafts), core_(world.options) {}

  std::vector<StepPlan> Run() {
    std::vector<StepPlan> plans;
    while (plans.size() < 400 && (n_admitted_ < kSequences || !core_.idle() || core_.n_parked() > 0)) {
      AdmitNext();
      ParkAndWake();
      for (Ticket t = 1; drafts_ && t <= kSequences; ++t) {
        if (core_.contains(t)) core_.Grow(t, std::vector<int32_t>(20, kWrong));
      }
      plans.push_back(Step());
      ++n_steps_;
    }
    return plans;
  }
  const CoreStats& stats() const { return core_.stats(); }
  int64_t n_half_run_drafts() const { return n_half_run_drafts_; }

 private:
  // The same with and without drafts, and for `period` steps.
  int Draw(int n, uint64_t what, int period = 1) const {
    uint64_t hash = world_.seed * 0x9e3779b97f4a7c15ull + n_steps_ / period * 131 + what;
    for (int i = 0; i < 2; ++i) hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccdull;
    return static_cast<int>((hash >> 20) % static_cast<uint64_t>(n));
  }

  void AdmitNext() {
    if (n_admitted_ == kSequences || (n_steps_ > 0 && Draw(3, 1) > 0)) return;
    const int n_tokens = world_.n_prompt + n_admitted_;
    SequenceSpec spec{.tokens = std::vector<int32_t>(n_tokens, 1), .n_total_max = n_tokens + world_.n_answer};
    if (n_admitted_ % 2 == 1) spec.tokens.back() = 2;
    ++n_admitted_;
    if (core_.Check(spec).ok()) core_.Admit(n_admitted_, std::move(spec), now_);
  }

  void ParkAndWake() {
    if (!world_.parks) return;
    for (Ticket t = 1; t <= kSequences; ++t) {
      const int what = core_.contains(t) ? Draw(16, 10 + t) : 0;
      if (what == 1) core_.Park(t, now_ + absl::Milliseconds(1 + Draw(12, 20 + t)));
      if (what == 2) core_.Wake(t);
    }
  }

  int Blocks(std::span<const int32_t> tokens) const {
    const int block_tokens = world_.options.block_tokens;
    return (static_cast<int>(tokens.size()) + block_tokens - 1) / block_tokens;
  }

  StepPlan Step() {
    std::vector<Event> events;
    const Work* work = core_.Begin(now_, &events);
    StepPlan plan;
    for (const Event& event : events) plan.events.emplace_back(event.kind, event.ticket);
    plan.n_cached_tokens = core_.stats().n_cached_tokens;
    for (Ticket t = 1; t <= kSequences; ++t) {
      if (core_.contains(t)) plan.n_held += std::min(Blocks(core_.tokens(t)), static_cast<int>(core_.blocks(t).size()));
    }
    now_ = now_ + absl::Milliseconds(1);
    if (work != nullptr) {
      std::vector<int32_t> sampled, n_complete;
      for (const RowRun& run : work->rows) {
        const int n_known = std::min(run.n_rows, static_cast<int>(core_.tokens(run.ticket).size()) - run.first);
        plan.runs.emplace_back(run.ticket, run.first, n_known);
        Execute(run, n_known, &sampled, &n_complete);
      }
      if (world_.parks && Draw(4, 2) == 0) core_.Park(work->rows.back().ticket, now_ + absl::Milliseconds(3));
      core_.Commit(work->step, {.status = {}, .sampled = sampled, .n_complete = n_complete}, now_, &events);
    }
    EXPECT_TRUE(core_.CheckInvariants().ok()) << core_.CheckInvariants();
    return plan;
  }

  void Execute(const RowRun& run, int n_known, std::vector<int32_t>* sampled, std::vector<int32_t>* n_complete) {
    int n_done = n_known;
    bool chooses = true;
    if (world_.half_run) {
      if (Draw(2, 30 + run.ticket) == 0) n_done = Draw(n_known + 1, 40 + run.ticket);
      // For a while, so that others need the blocks of its drafts.
      chooses = Draw(3, 50 + run.ticket, 6) > 0;
    }
    for (int i = 0; i < run.n_sampled; ++i) sampled->push_back(chooses && i == 0 ? kChosen : kNoToken);
    n_complete->push_back(n_done == n_known ? run.n_rows : n_done);
    n_half_run_drafts_ += chooses ? 0 : run.n_rows - n_known;
  }

  const World world_;
  const bool drafts_;
  Core core_;
  SteadyTime now_ = SteadyTime::FromOrigin(absl::Seconds(1000));
  int n_admitted_ = 0, n_steps_ = 0;
  int64_t n_half_run_drafts_ = 0;
};

struct Sums {
  int64_t n_worlds = 0, n_preemptions = 0, n_evictions = 0, n_cached_tokens = 0, n_half_run_drafts = 0, n_parted = 0;
};

void Compare(const World& world, Sums* sums) {
  Runner without(world, /*drafts=*/false), with(world, /*drafts=*/true);
  const std::vector<StepPlan> plain = without.Run(), drafted = with.Run();
  sums->n_worlds += plain.size() > 1;
  sums->n_preemptions += without.stats().n_preemptions;
  sums->n_evictions += without.stats().n_evictions;
  sums->n_cached_tokens += without.stats().n_cached_tokens;
  sums->n_half_run_drafts += with.n_half_run_drafts();
  for (size_t i = 0; i < std::min(plain.size(), drafted.size()); ++i) {
    // Cached blocks are nobody's: drafts may have taken one that somebody would have adopted. From there on they part.
    if (world.options.reuse_prefixes && drafted[i].PartsFrom(plain[i])) {
      ++sums->n_parted;
      return;
    }
    ASSERT_EQ(drafted[i], plain[i]) << "step " << i;
  }
  ASSERT_EQ(drafted.size(), plain.size());
}

TEST(WrongDrafts, ChangeNothingOfThePlanOfKnownTokens) {
  Sums sums;
  uint64_t seed = 0;
  for (const int n_blocks : {3, 4, 5, 7, 9, 12}) {
    for (const int block_tokens : {1, 2, 3, 4}) {
      for (int n_answer = 4; n_answer < 30; n_answer += 3) {
        for (int n_prompt = 1; n_prompt < 8; ++n_prompt) {
          for (int features = 0; features < 8; ++features) {
            if (features != 0 && features != 1 + static_cast<int>(seed % 7)) continue;
            const World world{.options = {.n_blocks = n_blocks,
                                          .block_tokens = block_tokens,
                                          .max_running = 4,
                                          .max_step_tokens = 24,
                                          .reuse_prefixes = (features & 4) != 0},
                              .n_prompt = n_prompt,
                              .n_answer = n_answer,
                              .half_run = (features & 1) != 0,
                              .parks = (features & 2) != 0,
                              .seed = ++seed};
            Compare(world, &sums);
            ASSERT_FALSE(testing::Test::HasFailure())
                << n_blocks << " blocks of " << block_tokens << ", prompts " << n_prompt << ", answers " << n_answer
                << ", features " << features << ", seed " << seed;
          }
        }
      }
    }
  }
  std::printf(
      "%lld worlds: %lld preemptions, %lld evictions, %lld cached tokens, %lld rows of drafts left half-run; %lld "
      "parted "
      "over the cache\n",
      static_cast<long long>(sums.n_worlds), static_cast<long long>(sums.n_preemptions),
      static_cast<long long>(sums.n_evictions), static_cast<long long>(sums.n_cached_tokens),
      static_cast<long long>(sums.n_half_run_drafts), static_cast<long long>(sums.n_parted));
  EXPECT_GT(sums.n_worlds, 2000);
  EXPECT_GT(sums.n_preemptions, 500);
  EXPECT_GT(sums.n_evictions, 500);
  EXPECT_GT(sums.n_cached_tokens, 1000);
  EXPECT_GT(sums.n_half_run_drafts, 1000);
  EXPECT_LT(sums.n_parted, sums.n_worlds / 10);
}

}  // namespace
}  // namespace updraft::engine
