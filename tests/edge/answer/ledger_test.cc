#include "edge/answer/ledger.h"

#include <gmock/gmock.h>

namespace updraft {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

v1::Chunk Chunk(const std::string& tier, const std::string& text, std::vector<int32_t> tokens) {
  v1::Chunk chunk;
  chunk.set_tier(tier);
  chunk.set_text(text);
  chunk.mutable_tokens()->Add(tokens.begin(), tokens.end());
  return chunk;
}

std::string Joined(const std::vector<v1::Chunk>& chunks) {
  std::string text;
  for (const v1::Chunk& chunk : chunks) text += chunk.text();
  return text;
}

TEST(LedgerTest, NothingOfADraftIsGivenBeforeItIsDecided) {
  Ledger ledger({7});
  ledger.Draft(Chunk("edge", "a", {1}), 1, IdSpace::kOurs);
  ledger.Draft(Chunk("edge", "b", {2}), 1, IdSpace::kOurs);
  EXPECT_THAT(ledger.Give(), IsEmpty());
  EXPECT_FALSE(ledger.given_any());
  EXPECT_THAT(ledger.Ids(), ElementsAre(7)) << "the accepted prefix alone stands";
  EXPECT_THAT(ledger.Spans(), IsEmpty());
  ledger.Decide("edge");
  EXPECT_EQ(Joined(ledger.Give()), "ab");
  EXPECT_THAT(ledger.Give(), IsEmpty()) << "nothing twice";
  EXPECT_THAT(ledger.Ids(), ElementsAre(7, 1, 2));
  EXPECT_EQ(ledger.given_bytes(), 2u);
  EXPECT_EQ(ledger.given_tokens(), 2);
}

TEST(LedgerTest, WithdrawnDraftLeavesNoTrace) {
  Ledger ledger({});
  ledger.Draft(Chunk("cloud", "x", {1}), 1, IdSpace::kOurs);
  ledger.Decide("cloud");
  ledger.Draft(Chunk("edge", "draft", {2, 3}), 2, IdSpace::kOurs);
  ledger.Withdraw();
  EXPECT_EQ(Joined(ledger.Give()), "x");
  ledger.Draft(Chunk("cloud", "y", {4}), 1, IdSpace::kOurs);
  ledger.Decide("cloud");
  EXPECT_EQ(ledger.Text(), "xy");
  ASSERT_EQ(ledger.entries().size(), 1u) << "one writer, one decider: one entry";
  EXPECT_THAT(ledger.Ids(), ElementsAre(1, 4));
}

TEST(LedgerTest, DecidedByOthersIsAnEntryOfItsOwn) {
  Ledger ledger({});
  ledger.Draft(Chunk("edge", "a", {1}), 1, IdSpace::kOurs);
  ledger.Decide("cloud");  // verified there
  ledger.Draft(Chunk("edge", "b", {2}), 1, IdSpace::kOurs);
  ledger.Decide("edge");
  ASSERT_EQ(ledger.entries().size(), 2u);
  EXPECT_EQ(ledger.entries()[0].decided_by, "cloud");
  ASSERT_EQ(ledger.Spans().size(), 1u) << "spans tell the writer";
  EXPECT_EQ(ledger.Spans()[0].n_tokens(), 2);
}

TEST(LedgerTest, ForeignIdsAreTextAlone) {
  Ledger ledger({});
  ledger.Draft(Chunk("cloud", "a", {70000}), 1, IdSpace::kForeign);
  ledger.Decide("cloud");
  const auto given = ledger.Give();
  ASSERT_EQ(given.size(), 1u);
  EXPECT_EQ(given[0].tokens_size(), 0);
  EXPECT_FALSE(ledger.ids_known());
  EXPECT_EQ(ledger.given_tokens(), 1) << "counted as the writer counts";
}

TEST(LedgerTest, EmptyChunksAddNothing) {
  Ledger ledger({});
  ledger.Draft(Chunk("edge", "", {}), 0, IdSpace::kOurs);
  ledger.Decide("edge");
  EXPECT_THAT(ledger.Give(), IsEmpty());
  EXPECT_THAT(ledger.entries(), IsEmpty());
}

}  // namespace
}  // namespace updraft
