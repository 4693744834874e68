// Every history keeps every rule: random ones on pools from roomy to barely enough, and all short ones of a tiny world.
#include "tests/common/engine/history.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <random>

#include "tests/common/engine/random_options.h"

namespace updraft::engine {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kIsSlow = true;
#else
constexpr bool kIsSlow = false;
#endif

// The seed picks the whole configuration, faults included.
class RandomHistory {
 public:
  explicit RandomHistory(uint32_t seed) : random_(seed), history_(RandomOptions(random_)) {
    if (Draw(0, 2) > 0) return;  // an executor that exits early
    history_.model().n_complete = [this](const RowRun& run) {
      return Draw(0, 2) == 0 ? run.n_rows : Draw(std::max(0, run.n_rows - 4), run.n_rows);
    };
    if (Draw(0, 1) == 0) return;
    history_.model().n_chosen = [this](const RowRun& run) {
      return Draw(0, 3) > 0 ? run.n_sampled : Draw(0, run.n_sampled);
    };
  }

  void Operate() {
    const std::vector<Ticket> alive = history_.Alive();
    const Ticket some = alive.empty() ? 0 : alive[Draw(0, static_cast<int>(alive.size()) - 1)];
    const int what = Draw(0, 19);
    if (what < 4) {
      AdmitSome();
    } else if (what < 14) {
      Turn();
    } else if (what < 15) {
      history_.Advance(absl::Milliseconds(Draw(0, 30)));
    } else if (some == 0) {
      return;
    } else if (what < 16) {
      history_.Park(some,
                    Draw(0, 2) == 0 ? SteadyTime::InfiniteFuture() : history_.now() + absl::Milliseconds(Draw(0, 40)));
    } else if (what < 17) {
      history_.Wake(some);
    } else if (what < 18) {
      if (Draw(0, 2) == 0) history_.Finish(some);
    } else {
      GrowSome(some);
    }
  }

  History& history() { return history_; }

 private:
  int Draw(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }

  void AdmitSome() {
    if (history_.Alive().size() > 12) return;
    SequenceSpec spec;
    // Prompts share their beginnings.
    for (int n = Draw(1, 40), i = 0; i < n; ++i) spec.tokens.push_back(Draw(0, 9) == 0 ? Draw(0, 3) : i % 4);
    spec.n_total_max = static_cast<int>(spec.tokens.size()) + Draw(1, 40);
    spec.priority = Draw(0, 3) == 0 ? Draw(-2, 2) : 0;
    spec.cache_salt = Draw(0, 4) == 0 ? 1 : 0;
    if (Draw(0, 4) == 0) spec.deadline = history_.now() + absl::Milliseconds(Draw(0, 60));
    history_.Admit(++n_admitted_, std::move(spec));
  }

  void Turn() {
    if (!history_.under_way()) {
      history_.Begin();
      if (!history_.under_way()) return;
      if (Draw(0, 3) == 0) return;  // other things happen while it runs
    }
    history_.Advance(absl::Milliseconds(1));
    const int fault = Draw(0, 120);
    history_.Commit(fault < 2 ? absl::InternalError("a fault") : absl::OkStatus(), /*kv_lost=*/fault == 0);
  }

  // A right beginning, then anything.
  void GrowSome(Ticket ticket) {
    const History::Case& c = history_.cases().at(ticket);
    std::vector<int32_t> drafts;
    for (int n = Draw(0, 6), i = 0; i < n && c.tokens.size() + i < c.alone.size(); ++i) {
      drafts.push_back(c.alone[c.tokens.size() + i]);
    }
    for (int n = Draw(0, 6); n > 0; --n) drafts.push_back(Draw(0, 3));
    history_.Grow(ticket, drafts);
  }

  std::mt19937 random_;
  History history_;
  Ticket n_admitted_ = 0;
};

TEST(History, RandomOnesKeepEveryRule) {
  constexpr int kSeeds = kIsSlow ? 30 : 100, kOperations = 1200;  // more than 10^5 in all
  CoreStats sum;
  int64_t n_events = 0;
  for (uint32_t seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    RandomHistory random(seed);
    for (int i = 0; i < kOperations && !testing::Test::HasFailure(); ++i) random.Operate();
    if (!testing::Test::HasFailure()) random.history().RunToEnd();
    ASSERT_FALSE(testing::Test::HasFailure()) << "seed " << seed;
    const CoreStats& stats = random.history().core().stats();
    n_events += random.history().n_events();
    sum.n_steps += stats.n_steps;
    sum.n_rows += stats.n_rows;
    sum.n_preemptions += stats.n_preemptions;
    sum.n_evictions += stats.n_evictions;
    sum.n_cached_tokens += stats.n_cached_tokens;
    sum.n_drafts_accepted += stats.n_drafts_accepted;
    sum.n_drafts_rejected += stats.n_drafts_rejected;
  }
  std::printf(
      "seeds 1 to %d, %d operations each: %lld steps, %lld rows, %lld events, %lld preemptions, %lld evictions, %lld "
      "cached tokens, %lld drafts accepted, %lld rejected\n",
      kSeeds, kOperations, static_cast<long long>(sum.n_steps), static_cast<long long>(sum.n_rows),
      static_cast<long long>(n_events), static_cast<long long>(sum.n_preemptions),
      static_cast<long long>(sum.n_evictions), static_cast<long long>(sum.n_cached_tokens),
      static_cast<long long>(sum.n_drafts_accepted), static_cast<long long>(sum.n_drafts_rejected));
  // The histories were meant to go everywhere.
  EXPECT_GT(sum.n_preemptions, 100);
  EXPECT_GT(sum.n_evictions, 100);
  EXPECT_GT(sum.n_cached_tokens, 1000);
  EXPECT_GT(sum.n_drafts_accepted, 1000);
  EXPECT_GT(sum.n_drafts_rejected, 1000);
}

// All histories of six events (five where it is slow) with up to three sequences on four blocks.
TEST(History, AllShortOnesOfATinyWorldKeepEveryRule) {
  constexpr int kEvents = kIsSlow ? 5 : 6;
  enum Action { kAdmit, kStep, kStepFails, kStepLosesKv, kStepHalf, kPark, kWake, kFinish, kGrow, kLate, kActions };
  const CoreOptions options{
      .n_blocks = 4, .block_tokens = 2, .max_running = 2, .max_step_tokens = 4, .class_rise = absl::Milliseconds(1)};
  int64_t n_histories = 0, n_preemptions = 0, n_evictions = 0;
  std::vector<int> actions(kEvents, 0);
  for (const bool reuse_prefixes : {false, true}) {
    std::fill(actions.begin(), actions.end(), 0);
    while (true) {
      CoreOptions with = options;
      with.reuse_prefixes = reuse_prefixes;
      History history(with);
      Ticket n_admitted = 0;
      for (const int action : actions) {
        const std::vector<Ticket> alive = history.Alive();
        const bool half = action == kStepHalf;
        history.model().n_complete = [half](const RowRun& run) { return half ? run.n_rows - 1 : run.n_rows; };
        switch (action) {
          case kAdmit:
            if (n_admitted == 3) break;
            ++n_admitted;
            history.Admit(n_admitted, {.tokens = {1, 2, 3},
                                       .n_total_max = 6 + static_cast<int>(n_admitted),
                                       .priority = n_admitted == 2 ? 1 : 0,
                                       .deadline = n_admitted == 3 ? history.now() + absl::Milliseconds(4)
                                                                   : SteadyTime::InfiniteFuture()});
            break;
          case kStep:
          case kStepHalf:
            if (history.Begin()) history.Commit();
            history.Advance(absl::Milliseconds(1));
            break;
          case kStepFails:
            if (history.Begin()) history.Commit(absl::InternalError("no memory"));
            break;
          case kStepLosesKv:
            if (history.Begin()) history.Commit(absl::InternalError("device lost"), /*kv_lost=*/true);
            break;
          case kPark:
            if (!alive.empty()) history.Park(alive.front(), history.now() + absl::Milliseconds(2));
            break;
          case kWake:
            if (!alive.empty()) history.Wake(alive.front());
            break;
          case kFinish:
            if (!alive.empty()) history.Finish(alive.back());
            break;
          case kGrow:
            if (alive.empty()) break;
            history.Grow(alive.back(), std::vector<int32_t>{history.cases().at(alive.back()).alone[4], 0});
            break;
          case kLate:
            history.Advance(absl::Milliseconds(5));
            break;
        }
      }
      history.RunToEnd();
      if (testing::Test::HasFailure()) {
        std::string text;
        for (const int action : actions) absl::StrAppend(&text, " ", action);
        FAIL() << "events" << text << ", reuse_prefixes " << reuse_prefixes;
      }
      ++n_histories;
      n_preemptions += history.core().stats().n_preemptions;
      n_evictions += history.core().stats().n_evictions;
      size_t i = 0;
      while (i < actions.size() && ++actions[i] == kActions) actions[i++] = 0;
      if (i == actions.size()) break;
    }
  }
  std::printf("%lld histories, %lld preemptions, %lld evictions\n", static_cast<long long>(n_histories),
              static_cast<long long>(n_preemptions), static_cast<long long>(n_evictions));
  EXPECT_GT(n_preemptions, 0);
  EXPECT_GT(n_evictions, 0);
}

}  // namespace
}  // namespace updraft::engine
