// Shared prefixes by example: what is sealed, adopted, copied and lost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "tests/common/engine/core_fixture.h"

namespace updraft::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::IsEmpty;

class PrefixTest : public CoreTest {
 protected:
  void SetUp() override {
    Make({.n_blocks = 16, .block_tokens = 4, .max_running = 4, .max_step_tokens = 64, .reuse_prefixes = true});
  }
};

TEST_F(PrefixTest, APrefixIsAdoptedAndNotComputedAgain) {
  Admit(1, Spec(10, 4));
  RunToIdle();
  EXPECT_EQ(core_->pool().n_evictable(), 3) << "positions 0 to 12 were computed";
  EXPECT_EQ(core_->pool().n_held(), 0);
  SequenceSpec longer = Spec(10, 4);
  longer.tokens.push_back(3);
  longer.n_total_max = 20;
  Admit(2, longer);
  EXPECT_THAT(Plan(), ElementsAre(Rows{2, 3})) << "8 of 11 were there";
  EXPECT_EQ(core_->n_cached_tokens(2), 8);
  Commit();
  RunToIdle();
  EXPECT_THAT(answers_[2], ElementsAreArray(Alone(longer)));
  EXPECT_EQ(core_->stats().n_cached_tokens, 8);
}

// The edge of a full hit: somebody has to choose the next token.
TEST_F(PrefixTest, AFullHitStillRunsItsLastRow) {
  Admit(1, Spec(8, 4));
  RunToIdle();
  Admit(2, Spec(8, 4));
  EXPECT_THAT(Plan(), ElementsAre(Rows{2, 1}));
  EXPECT_EQ(work_.rows[0].first, 7);
  EXPECT_THAT(work_.moves, IsEmpty()) << "it is the only holder, so it may write in place";
  Commit();
  RunToIdle();
  EXPECT_THAT(answers_[2], ElementsAreArray(Alone(Spec(8, 4))));
}

TEST_F(PrefixTest, ABlockThatOthersHoldIsCopiedBeforeItIsWritten) {
  Admit(1, Spec(8, 9));
  Step();
  Admit(2, Spec(8, 9));
  const int32_t shared = core_->blocks(1)[1];
  EXPECT_THAT(Plan(), ElementsAre(Rows{1, 1}, Rows{2, 1}));
  ASSERT_EQ(work_.moves.size(), 1u);
  EXPECT_EQ(work_.moves[0].from, shared);
  EXPECT_EQ(work_.moves[0].to, core_->blocks(2)[1]);
  EXPECT_EQ(core_->blocks(1)[0], core_->blocks(2)[0]);
  Commit();
  EXPECT_EQ(core_->blocks(2)[1], shared) << "what turned out the same is one block again";
  RunToIdle();
  EXPECT_THAT(answers_[1], ElementsAreArray(Alone(Spec(8, 9))));
  EXPECT_THAT(answers_[2], ElementsAreArray(Alone(Spec(8, 9))));
}

// Its last row is written in place: what others computed behind the block stays within reach.
// The copy is needed only as long as the parked one holds the block, too; so its going brings a block.
TEST_F(PrefixTest, ABlockSharedWithAParkedOneAloneCanBeHadInstead) {
  Make({.n_blocks = 4, .block_tokens = 4, .max_running = 4, .max_step_tokens = 64, .reuse_prefixes = true});
  Admit(1, Spec(8, 2));
  Step();
  core_->Park(1, SteadyTime::InfiniteFuture());
  Admit(3, Spec(2, 6, 9));
  Step();
  EXPECT_EQ(core_->pool().n_available(), 1) << "and this is kept for the next tokens of the third";
  Admit(2, Spec(8, 2));
  EXPECT_THAT(Plan(), ElementsAre(Rows{3, 1}, Rows{2, 1}));
  EXPECT_THAT(Of(Event::Kind::kEvicted), ElementsAre(1));
  EXPECT_THAT(work_.moves, IsEmpty());
  Commit();
  core_->Wake(1);
  RunToIdle();
  for (const Ticket ticket : {1, 2}) EXPECT_THAT(answers_[ticket], ElementsAreArray(Alone(Spec(8, 2))));
}

TEST_F(PrefixTest, AShortPromptLeavesTheLongOneThatBeginsWithItCached) {
  const auto cached = [&](Ticket ticket, int n_tokens) {
    Admit(ticket, Spec(n_tokens, 2));
    Plan();
    const int n_cached = core_->n_cached_tokens(ticket);
    Commit();
    RunToIdle();
    return n_cached;
  };
  EXPECT_EQ(cached(1, 17), 0);
  EXPECT_EQ(cached(2, 17), 16);
  EXPECT_EQ(cached(3, 4), 3);
  EXPECT_EQ(cached(4, 17), 16);
  // It ends while the block is open, so that the block itself is lost; what stands behind it is sealed anew.
  Admit(5, Spec(4, 2));
  Plan();
  core_->Finish(5, absl::CancelledError("test"));
  Commit();
  EXPECT_EQ(cached(6, 17), 0);
  EXPECT_EQ(cached(7, 17), 16);
}

TEST_F(PrefixTest, AnotherSaltSharesNothing) {
  Admit(1, Spec(10, 4));
  RunToIdle();
  SequenceSpec other = Spec(10, 4);
  other.cache_salt = 7;
  Admit(2, other);
  EXPECT_THAT(Plan(), ElementsAre(Rows{2, 10}));
  Commit();
  RunToIdle();
  Admit(3, other);
  EXPECT_THAT(Plan(), ElementsAre(Rows{3, 2})) << "each salt has its own";
}

TEST_F(PrefixTest, EachSaltIsCachedWhenTheyRunAtOnce) {
  SequenceSpec other = Spec(10, 4);
  other.cache_salt = 7;
  for (const Ticket ticket : {1, 3}) {
    Admit(ticket, Spec(10, 4));
    Admit(ticket + 1, other);
    const int n_rows = ticket == 1 ? 10 : 2;
    EXPECT_THAT(Plan(), ElementsAre(Rows{ticket, n_rows}, Rows{ticket + 1, n_rows}));
    Commit();
    RunToIdle();
  }
}

TEST_F(PrefixTest, DraftsAreNotSealed) {
  const std::vector<int32_t> answer = Alone(Spec(3, 12));
  Admit(1, Spec(3, 12));
  core_->Grow(1, std::vector<int32_t>{answer[0], (answer[1] + 1) % kVocab, 5, 6, 7, 8, 9});
  Step();
  EXPECT_EQ(core_->tokens(1).size(), 5u);
  EXPECT_EQ(core_->blocks(1).size(), 1u) << "blocks of refuted drafts are free again";
  EXPECT_TRUE(core_->pool().sealed(core_->blocks(1)[0])) << "positions 0 to 3 are final";
  RunToIdle();
  EXPECT_THAT(answers_[1], ElementsAreArray(answer));
}

TEST_F(PrefixTest, HalfRunBlocksAreNotSealed) {
  Admit(1, Spec(8, 4));
  model_->n_complete = [](const RowRun&) { return 5; };
  Step();
  EXPECT_TRUE(core_->pool().sealed(core_->blocks(1)[0]));
  EXPECT_FALSE(core_->pool().sealed(core_->blocks(1)[1]));
}

// Adopted blocks that are taken from a sequence before it ran are no event: it never had anything of its own.
TEST_F(PrefixTest, WhoNeverStartedIsNotEvicted) {
  Admit(1, Spec(16, 1, 1));
  RunToIdle();
  Admit(2, Spec(30, 30, 2));
  Step();
  SequenceSpec like_first = Spec(16, 1, 1);
  like_first.tokens.resize(40, 3);
  like_first.n_total_max = 44;
  Admit(3, like_first);
  Step();
  ASSERT_EQ(core_->n_waiting(), 1);
  ASSERT_EQ(core_->blocks(3).size(), 4u) << "it holds what it adopted";
  for (bool lost = false; core_->contains(2);) {
    Step();
    EXPECT_THAT(Of(Event::Kind::kEvicted), IsEmpty());
    lost |= core_->contains(3) && core_->blocks(3).size() < 4;
    EXPECT_TRUE(lost || core_->contains(2)) << "the case was meant to be met";
  }
  RunToIdle();
  EXPECT_EQ(core_->stats().n_evictions, 0);
  EXPECT_THAT(answers_[3], ElementsAreArray(Alone(like_first)));
}

TEST_F(PrefixTest, ThePreemptedAdoptWhatIsLeftOfTheirOwn) {
  Make({.n_blocks = 6, .block_tokens = 4, .max_running = 4, .max_step_tokens = 64, .reuse_prefixes = true});
  Admit(1, Spec(5, 15, 1));
  Admit(2, Spec(2, 15, 2));
  Admit(3, Spec(6, 15, 3));
  RunToIdle();
  EXPECT_GT(core_->stats().n_preemptions, 0);
  for (const Ticket ticket : {1, 2, 3}) EXPECT_TRUE(ended_.at(ticket).ok());
  EXPECT_THAT(answers_[3], ElementsAreArray(Alone(Spec(6, 15, 3))));
}

// Cached blocks are nobody's, so drafts may have them; a wrong draft's block is free afterwards and goes first.
TEST_F(PrefixTest, WrongDraftsCostTheCacheNoMoreThanTheyHoldAtOnce) {
  Make({.n_blocks = 16, .block_tokens = 4, .max_running = 4, .max_step_tokens = 64, .reuse_prefixes = true});
  Admit(1, Spec(52, 2));
  RunToIdle();
  ASSERT_EQ(core_->pool().n_evictable(), 13);
  Admit(2, Spec(2, 44, 8));
  Step();
  for (int i = 0; i < 10; ++i) {
    core_->Grow(2, std::vector<int32_t>(16, (Alone(Spec(2, 44, 8))[i + 1] + 1) % kVocab));
    EXPECT_THAT(Plan(), ElementsAre(Rows{2, 17})) << "a warm cache does not stop drafts";
    Commit();
  }
  EXPECT_EQ(core_->blocks(2).size(), 3u);
  EXPECT_EQ(core_->pool().n_evictable(), 13 - 4) << "7 blocks at once, of which 3 were free";
  core_->Finish(2, absl::OkStatus());
  Admit(3, Spec(52, 2));
  Step();
  EXPECT_EQ(core_->stats().n_cached_tokens, 4 * (13 - 4)) << "the end of the prefix went first";
}

// What only adopted blocks lose goes from the end: the rest stays adopted.
TEST_F(PrefixTest, AWaitingHeadGivesUpWhatItAdoptedBlockByBlock) {
  Make({.n_blocks = 16, .block_tokens = 4, .max_running = 4, .max_step_tokens = 64, .reuse_prefixes = true});
  Admit(1, Spec(48, 1));
  RunToIdle();
  Admit(2, Spec(7, 40, 8));
  Step();
  SequenceSpec longer = Spec(48, 1);
  longer.tokens.resize(60, 3);
  longer.n_total_max = 61;
  Admit(3, longer);
  Step();
  ASSERT_EQ(core_->blocks(3).size(), 12u);
  while (core_->pool().n_available() > 0) Step();
  ASSERT_EQ(core_->blocks(3).size(), 12u);
  for (size_t n_blocks = 11; n_blocks > 9; --n_blocks) {
    for (int i = 0; i < 4; ++i) Step();
    EXPECT_EQ(core_->blocks(3).size(), n_blocks);
  }
  EXPECT_EQ(core_->stats().n_evictions, 0);
  core_->Finish(2, absl::OkStatus());
  Plan();
  EXPECT_EQ(core_->n_cached_tokens(3), 40);
  Commit();
  RunToIdle();
  EXPECT_THAT(answers_[3], ElementsAreArray(Alone(longer)));
}

// A hash is no proof. Two contents that pass for one: the index tells them apart by tokens, by salt and by what is
// before.
TEST(PrefixIndex, AHitIsOneOfTokensNotOfHashes) {
  PrefixIndex index(4, 2);
  const std::vector<int32_t> a = {1, 2}, b = {1, 3};
  index.Record(0, -1, 0, a);
  index.Record(1, 0, 0, b);
  EXPECT_TRUE(index.Holds(0, -1, 0, a));
  EXPECT_FALSE(index.Holds(0, -1, 0, b)) << "other tokens";
  EXPECT_FALSE(index.Holds(0, -1, 9, a)) << "another salt";
  EXPECT_TRUE(index.Holds(1, 0, 0, b));
  EXPECT_FALSE(index.Holds(1, 2, 0, b)) << "after another block";
  index.Record(0, -1, 0, a);
  EXPECT_TRUE(index.Holds(1, 0, 0, b)) << "sealed again with the same";
  index.Record(0, -1, 0, b);
  EXPECT_FALSE(index.Holds(1, 0, 0, b)) << "after the same block, which holds something else by now";
}

// Two blocks of two tokens with one hash. The hash takes the tokens in one by one, so it is enough that the states
// after two first tokens lie so close to each other that the second ones make up for it.
std::pair<std::vector<int32_t>, std::vector<int32_t>> TwoBlocksWithOneHash(uint64_t before) {
  std::vector<std::pair<uint64_t, int32_t>> states;
  for (int32_t token = 0; token < 1 << 18; ++token) {
    states.emplace_back(PrefixIndex::Hash(before, std::vector<int32_t>{token}) * 0x9e3779b97f4a7c15ull, token);
  }
  std::sort(states.begin(), states.end());
  for (size_t i = 1; i < states.size(); ++i) {
    const uint64_t distance = states[i].first - states[i - 1].first;
    if (distance < uint64_t{1} << 31) {
      return {{states[i - 1].second, static_cast<int32_t>(distance)}, {states[i].second, 0}};
    }
  }
  return {};
}

TEST_F(CoreTest, WhoSharesAHashSharesNoBlock) {
  const auto [a, b] = TwoBlocksWithOneHash(~uint64_t{0});
  ASSERT_EQ(a.size(), 2u);
  ASSERT_NE(a, b);
  ASSERT_EQ(PrefixIndex::Hash(~uint64_t{0}, a), PrefixIndex::Hash(~uint64_t{0}, b));
  const auto spec = [](std::vector<int32_t> tokens) {
    tokens.push_back(7);
    return SequenceSpec{.tokens = tokens, .n_total_max = 9};
  };
  const CoreOptions options{
      .n_blocks = 32, .block_tokens = 2, .max_running = 4, .max_step_tokens = 64, .reuse_prefixes = true};
  for (const bool at_once : {true, false}) {  // the one's block is held, or evictable, when the other is complete
    SCOPED_TRACE(at_once);
    Make(options);
    Admit(1, spec(a));
    if (!at_once) RunToIdle();
    Admit(2, spec(b));
    Plan();
    EXPECT_EQ(core_->n_cached_tokens(2), 0);
    Commit();
    EXPECT_TRUE(!at_once || !core_->pool().sealed(core_->blocks(2)[0])) << "the hash is taken";
    RunToIdle();
    for (const Ticket ticket : {3, 4}) {
      Admit(ticket, spec(b));
      RunToIdle();
    }
    for (const auto& [ticket, tokens] : {std::pair(1, a), {2, b}, {3, b}, {4, b}}) {
      EXPECT_THAT(answers_[ticket], ElementsAreArray(Alone(spec(tokens)))) << ticket;
    }
    EXPECT_GT(core_->stats().n_cached_tokens, 0) << "its own is adopted all the same";
  }
}

// Three sequences with one prompt of two blocks, each with a block of its own behind it: one that is preempted frees
// one block, not three.
TEST_F(CoreTest, SharedBlocksAreNotCountedAsFreed) {
  Make({.n_blocks = 7, .block_tokens = 4, .max_running = 4, .max_step_tokens = 64, .reuse_prefixes = true});
  for (const Ticket ticket : {1, 2, 3}) {
    Admit(ticket, Spec(8, 16));
    Step();
  }
  Step();
  EXPECT_EQ(core_->n_running(), 3);
  EXPECT_EQ(core_->pool().n_held(), 2 + 3);
  while (Of(Event::Kind::kPreempted).empty()) {
    Plan();
    if (!Of(Event::Kind::kPreempted).empty()) break;
    Commit();
  }
  EXPECT_THAT(Of(Event::Kind::kPreempted), ElementsAre(3));
  EXPECT_EQ(core_->pool().n_held(), 7) << "the last of 7 blocks went to a third one's row";
  Commit();
  RunToIdle();
  for (const Ticket ticket : {1, 2, 3}) EXPECT_THAT(answers_[ticket], ElementsAreArray(Alone(Spec(8, 16))));
}

}  // namespace
}  // namespace updraft::engine
