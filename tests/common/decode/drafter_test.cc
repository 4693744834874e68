#include "common/decode/drafter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace updraft {
namespace {

std::vector<int32_t> DraftOf(const std::vector<int32_t>& context, int n, const NgramOptions& options = {}) {
  std::vector<int32_t> drafts;
  NgramDrafter(options).Draft(context, n, drafts);
  return drafts;
}

TEST(NgramDrafterTest, GivesWhatFollowedTheLastPlaceLikeTheEnd) {
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(DraftOf({1, 2, 3, 9, 1, 2}, 3), (Ids{3, 9, 1}));
  EXPECT_EQ(DraftOf({1, 2, 3, 1, 2, 4, 1, 2}, 1), (Ids{4})) << "the later of two places";
  EXPECT_EQ(DraftOf({5, 1, 2, 3, 6, 1, 2, 4, 5, 1, 2}, 1), (Ids{3})) << "the longer of two";
  EXPECT_EQ(DraftOf({7, 7, 7}, 4), (Ids{7})) << "places may overlap, and a draft ends with the context";
  EXPECT_EQ(DraftOf({1, 2, 3, 4}, 4), Ids());
  EXPECT_EQ(DraftOf({1, 2, 1}, 4), Ids()) << "shorter than min_ngram";
  EXPECT_EQ(DraftOf({1, 2, 1}, 4, {.max_ngram = 1, .min_ngram = 1}), (Ids{2, 1}));
  EXPECT_EQ(DraftOf({}, 4), Ids());
  EXPECT_EQ(DraftOf({1}, 4), Ids());
  EXPECT_EQ(DraftOf({1, 2, 3, 1, 2}, 0), Ids());
}

TEST(NgramDrafterTest, KeepsWhatIsThereAndAppends) {
  std::vector<int32_t> drafts = {42};
  NgramDrafter().Draft(std::vector<int32_t>{1, 2, 3, 1, 2}, 1, drafts);
  EXPECT_EQ(drafts, (std::vector<int32_t>{42, 3}));
}

TEST(NgramDrafterTest, RandomContexts) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  int n_found = 0;
  for (int trial = 0; trial < 2000; ++trial) {
    std::vector<int32_t> context(random() % 40);
    for (int32_t& id : context) id = static_cast<int32_t>(random() % 4);
    const NgramOptions options = {.max_ngram = 2 + static_cast<int>(random() % 5),
                                  .min_ngram = 1 + static_cast<int>(random() % 2)};
    const int n = static_cast<int>(random() % 6);
    const std::vector<int32_t> drafts = DraftOf(context, n, options);
    ASSERT_LE(drafts.size(), static_cast<size_t>(n));
    // The longest end that occurs before.
    int longest = 0;
    for (int length = 1; length <= options.max_ngram && length < static_cast<int>(context.size()); ++length) {
      const auto end = context.end() - length;
      if (std::search(context.begin(), context.end() - 1, end, context.end()) != context.end() - 1) longest = length;
    }
    if (longest < options.min_ngram || n == 0) {
      ASSERT_TRUE(drafts.empty());
      continue;
    }
    ++n_found;
    std::vector<int32_t> want(context.end() - longest, context.end());
    want.insert(want.end(), drafts.begin(), drafts.end());
    ASSERT_FALSE(drafts.empty());
    ASSERT_NE(std::search(context.begin(), context.end(), want.begin(), want.end()), context.end());
  }
  EXPECT_GT(n_found, 500);
}

TEST(NgramOptionsTest, RefusesLengthsThatCannotBe) {
  EXPECT_TRUE(NgramOptions().Validate().ok());
  for (const NgramOptions& options :
       {NgramOptions{.min_ngram = 0}, NgramOptions{.max_ngram = 1, .min_ngram = 2}, NgramOptions{.max_ngram = 17}}) {
    EXPECT_EQ(options.Validate().code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace updraft
