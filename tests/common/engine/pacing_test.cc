// Prompts read beside answers at a pace that keeps the answers' time between tokens: the arithmetic, and a machine on a
// fake clock whose steps cost what rows, positions and chance make of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <vector>

#include "common/engine/core.h"
#include "common/engine/step_pacer.h"

namespace updraft::engine {
namespace {

TEST(StepPacer, RowsAreWhatTheTargetLeaves) {
  StepPacer none(absl::ZeroDuration());
  EXPECT_EQ(none.PromptRows(), std::numeric_limits<int>::max());
  StepPacer pacer(absl::Milliseconds(50));
  EXPECT_EQ(pacer.PromptRows(), StepPacer::kFirstRows);
  pacer.OnStep(8, 0, absl::Milliseconds(10));
  EXPECT_EQ(pacer.PromptRows(), StepPacer::kFirstRows) << "what a row of a prompt costs is not known yet";
  pacer.OnStep(8, 100, absl::Milliseconds(30));
  EXPECT_EQ(pacer.PromptRows(), 175);  // (0.9 * 50 - 10) ms of 0.2 ms each
  // Dearer rows say so at once, and a short step less loudly than a long one.
  pacer.OnStep(8, 10, absl::Milliseconds(16));
  EXPECT_NEAR(pacer.PromptRows(), 35 / ((0.75 * 20 + 6) / (0.75 * 100 + 10)), 1.0);
  for (int i = 0; i < 50; ++i) pacer.OnStep(8, 100, absl::Milliseconds(60));
  EXPECT_NEAR(pacer.PromptRows(), 70, 1);
}

TEST(StepPacer, SomeRowsAlwaysGo) {
  StepPacer pacer(absl::Milliseconds(20));
  for (int i = 0; i < 50; ++i) pacer.OnStep(64, 0, absl::Milliseconds(100));
  pacer.OnStep(64, 64, absl::Milliseconds(200));
  EXPECT_EQ(pacer.PromptRows(), StepPacer::kMinRows);
}

// A process that was stopped for a second, and no bare step for ever after.
TEST(StepPacer, OneSlowBareStepIsForgottenBesidePrompts) {
  for (const bool first : {true, false}) {
    StepPacer pacer(absl::Milliseconds(50));
    if (!first) pacer.OnStep(8, 0, absl::Milliseconds(9));
    pacer.OnStep(8, 0, absl::Seconds(1));
    for (int i = 0; i < 40; ++i) {
      const int n_rows = pacer.PromptRows();
      pacer.OnStep(8, n_rows, absl::Milliseconds(9 + 0.15 * n_rows));
    }
    EXPECT_GE(pacer.PromptRows(), 180) << "of the 240 that fit";
    EXPECT_LE(pacer.PromptRows(), 300);
  }
}

TEST(StepPacer, WithoutABareStepAllRowsCountAlike) {
  StepPacer pacer(absl::Milliseconds(100));
  pacer.OnStep(50, 50, absl::Milliseconds(100));
  EXPECT_EQ(pacer.PromptRows(), 90);
}

// 9 ms for 8 answers; a prompt's row 0.15 ms at its start, twice that at 4,096.
class Machine {
 public:
  explicit Machine(uint32_t seed) : random_(seed) {}
  absl::Duration TimeOf(const Work& work) {
    double ms = 5.0;
    for (const RowRun& run : work.rows) {
      if (run.n_rows == 1) {
        ms += 0.5;
      } else {
        for (int i = 0; i < run.n_rows; ++i) ms += 0.15 * (1.0 + (run.first + i) / 4096.0);
      }
    }
    return absl::Milliseconds(ms * std::uniform_real_distribution<double>(0.97, 1.03)(random_));
  }

 private:
  std::mt19937 random_;
};

struct Outcome {
  std::vector<double> gaps_s;  // of the chats, sorted
  double prompt_tokens_per_s = 0.0;
  double quantile(double q) const { return gaps_s.at(static_cast<size_t>(q * static_cast<double>(gaps_s.size() - 1))); }
};

// A minute of 8 chats beside prompts of 4,096 tokens, the next of which arrives after `every`; zero: as soon as the
// last one is through.
Outcome Simulate(absl::Duration target, absl::Duration every, uint32_t seed) {
  constexpr int kChats = 8, kPrompt = 4096;
  CoreOptions options{.n_blocks = 4096, .max_running = 32, .max_step_tokens = 512, .itl_target = target};
  Core core(options);
  Machine machine(seed);
  std::mt19937 random(seed + 1);
  SteadyTime now = SteadyTime::FromOrigin(absl::Seconds(100));
  const SteadyTime begin = now, end = now + absl::Minutes(1);
  Ticket next = 1;
  std::map<Ticket, SteadyTime> last;  // of chats: the last token
  int n_chats = 0, n_prompts = 0;
  int64_t n_read = 0;
  SteadyTime prompt_at = now;
  std::vector<Event> events;
  std::vector<int32_t> sampled;
  Outcome outcome;
  while (now < end) {
    for (; n_chats < kChats; ++n_chats) {
      const int n_answer = std::uniform_int_distribution<int>(50, 400)(random);
      last[next] = SteadyTime();
      core.Admit(next++, {.tokens = std::vector<int32_t>(32, 1), .n_total_max = 32 + n_answer}, now);
    }
    const bool due = every == absl::ZeroDuration() ? n_prompts == 0 : now >= prompt_at;
    if (due) {
      core.Admit(next++, {.tokens = std::vector<int32_t>(kPrompt, 1), .n_total_max = kPrompt + 1}, now);
      ++n_prompts;
      prompt_at = prompt_at + every;
    }
    events.clear();
    const Work* work = core.Begin(now, &events);
    if (work == nullptr) return outcome;
    sampled.assign(static_cast<size_t>(work->n_rows), 2);
    now = now + machine.TimeOf(*work);
    events.clear();
    int n_sampled = 0;
    for (const RowRun& run : work->rows) n_sampled += run.n_sampled;
    core.Commit(work->step, {.sampled = std::span<const int32_t>(sampled).first(static_cast<size_t>(n_sampled))}, now,
                &events);
    for (const Event& event : events) {
      const auto chat = last.find(event.ticket);
      if (event.kind == Event::Kind::kTokens && chat != last.end()) {
        if (chat->second != SteadyTime()) outcome.gaps_s.push_back(absl::ToDoubleSeconds(now - chat->second));
        chat->second = now;
      } else if (event.kind == Event::Kind::kEnded && chat != last.end()) {
        last.erase(chat);
        --n_chats;
      } else if (event.kind == Event::Kind::kEnded) {
        --n_prompts;
        n_read += kPrompt;
      }
    }
  }
  std::sort(outcome.gaps_s.begin(), outcome.gaps_s.end());
  outcome.prompt_tokens_per_s = static_cast<double>(n_read) / absl::ToDoubleSeconds(now - begin);
  return outcome;
}

TEST(Pacing, TheTargetHoldsWhilePromptsComeAtHalfOfWhatIsPossible) {
  for (const uint32_t seed : {1u, 2u, 3u}) {
    SCOPED_TRACE(seed);
    const Outcome unlimited = Simulate(absl::ZeroDuration(), absl::ZeroDuration(), seed);
    const absl::Duration every = absl::Seconds(2 * 4096 / unlimited.prompt_tokens_per_s);
    EXPECT_GT(Simulate(absl::ZeroDuration(), every, seed).quantile(0.99), 0.1) << "without a target they stall";
    for (const int target_ms : {50, 100, 200}) {
      const Outcome paced = Simulate(absl::Milliseconds(target_ms), every, seed);
      printf("target %d ms: p50 %.1f, p99 %.1f ms; prompts %.0f of %.0f tokens/s\n", target_ms,
             1e3 * paced.quantile(0.5), 1e3 * paced.quantile(0.99), paced.prompt_tokens_per_s,
             unlimited.prompt_tokens_per_s);
      EXPECT_LE(paced.quantile(0.99), 1.2e-3 * target_ms) << target_ms;
      EXPECT_GE(paced.prompt_tokens_per_s, 0.45 * unlimited.prompt_tokens_per_s) << "they keep up with what comes";
    }
  }
}

TEST(Pacing, ALooseTargetCostsPromptsLittle) {
  const Outcome unlimited = Simulate(absl::ZeroDuration(), absl::ZeroDuration(), 4);
  const Outcome loose = Simulate(absl::Milliseconds(250), absl::ZeroDuration(), 4);
  EXPECT_GE(loose.prompt_tokens_per_s, 0.85 * unlimited.prompt_tokens_per_s);
}

}  // namespace
}  // namespace updraft::engine
