#include "common/engine/block_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <map>
#include <random>

namespace updraft::engine {
namespace {

using ::testing::ElementsAre;

TEST(BlockPool, HandsOutEachBlockOnceAndTheLastFreedFirst) {
  BlockPool pool(3);
  EXPECT_EQ(pool.Take(), 0);
  EXPECT_EQ(pool.Take(), 1);
  EXPECT_EQ(pool.Take(), 2);
  EXPECT_EQ(pool.n_available(), 0);
  EXPECT_EQ(pool.n_held(), 3);
  pool.Drop(1);
  pool.Drop(0);
  EXPECT_EQ(pool.n_free(), 2);
  EXPECT_EQ(pool.Take(), 0);
  EXPECT_TRUE(pool.CheckInvariants().ok());
}

TEST(BlockPool, ASharedBlockIsFreeWhenTheLastHolderDropsIt) {
  BlockPool pool(2);
  const int32_t block = pool.Take();
  EXPECT_FALSE(pool.read_only(block));
  pool.Share(block);
  EXPECT_TRUE(pool.read_only(block));
  pool.Drop(block);
  EXPECT_EQ(pool.n_held(), 1);
  EXPECT_FALSE(pool.read_only(block));
  pool.Drop(block);
  EXPECT_EQ(pool.n_free(), 2);
}

TEST(BlockPool, ASealedBlockIsAdoptedAgainUntilItIsEvicted) {
  BlockPool pool(3);
  const int32_t a = pool.Take(), b = pool.Take();
  EXPECT_TRUE(pool.Seal(a, 100));
  EXPECT_TRUE(pool.Seal(b, 200));
  EXPECT_TRUE(pool.read_only(a));
  pool.Drop(b);  // from the end of the table
  pool.Drop(a);
  EXPECT_EQ(pool.n_evictable(), 2);
  EXPECT_EQ(pool.n_available(), 3);

  std::vector<int32_t> held;
  EXPECT_EQ(pool.Match(std::vector<uint64_t>{100, 200, 300}, &held), 2);
  EXPECT_THAT(held, ElementsAre(a, b));
  EXPECT_EQ(pool.n_held(), 2);
  EXPECT_EQ(pool.Match(std::vector<uint64_t>{100, 999, 200}, &held), 1) << "the longest prefix, not every hit";
  EXPECT_EQ(pool.count(a), 2);
  for (const int32_t block : {b, a, a}) pool.Drop(block);

  pool.Take();  // the free one
  EXPECT_EQ(pool.Take(), b) << "the end of the prefix goes before its beginning";
  held.clear();
  EXPECT_EQ(pool.Match(std::vector<uint64_t>{100, 200}, &held), 1);
  EXPECT_FALSE(pool.sealed(b));
  EXPECT_TRUE(pool.CheckInvariants().ok());
}

TEST(BlockPool, OneHashIsOneBlock) {
  BlockPool pool(2);
  const int32_t a = pool.Take(), b = pool.Take();
  EXPECT_TRUE(pool.Seal(a, 7));
  EXPECT_FALSE(pool.Seal(b, 7));
  EXPECT_FALSE(pool.sealed(b));
  EXPECT_EQ(pool.Find(7), a);
  pool.Unseal(a);
  EXPECT_EQ(pool.Find(7), -1);
  EXPECT_TRUE(pool.Seal(b, 7));
  pool.Drop(a);
  EXPECT_EQ(pool.n_free(), 1) << "what is not sealed is not kept";
  EXPECT_TRUE(pool.CheckInvariants().ok());
}

// Against a slow model that keeps lists in the obvious way.
TEST(BlockPool, RandomHistoriesEqualASlowModel) {
  for (uint32_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    const auto draw = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
    const int n = draw(1, 12);
    BlockPool pool(n);
    std::map<int32_t, int> count, idle;  // held, and of these by idle ones
    std::map<int32_t, uint64_t> seal;
    std::list<int32_t> lru;  // evictable, least recently used first
    const auto held = [&] {
      std::vector<int32_t> result;
      for (const auto& [block, c] : count) result.push_back(block);
      return result;
    };
    for (int turn = 0; turn < 2000; ++turn) {
      const std::vector<int32_t> blocks = held();
      const int32_t some = blocks.empty() ? -1 : blocks[draw(0, static_cast<int>(blocks.size()) - 1)];
      switch (draw(0, 6)) {
        case 0: {
          if (pool.n_available() == 0) break;
          const bool evicts = static_cast<int>(count.size() + lru.size()) == n;
          const int32_t block = pool.Take();
          ASSERT_EQ(count.count(block), 0u);
          if (evicts) {
            ASSERT_EQ(block, lru.front());
            lru.pop_front();
            seal.erase(block);
          } else {
            ASSERT_EQ(std::count(lru.begin(), lru.end(), block), 0);
          }
          count[block] = 1;
          break;
        }
        case 1:
          if (some < 0) break;
          pool.Share(some);
          ++count[some];
          break;
        case 2:
          if (some < 0 || idle[some] == count[some]) break;
          pool.Drop(some);
          if (--count[some] > 0) break;
          count.erase(some);
          if (seal.count(some)) lru.push_back(some);
          break;
        case 3: {
          if (some < 0 || seal.count(some)) break;
          const uint64_t hash = static_cast<uint64_t>(draw(0, 2 * n)) << 40;
          const bool known = std::any_of(seal.begin(), seal.end(), [&](const auto& s) { return s.second == hash; });
          ASSERT_EQ(pool.Seal(some, hash), !known);
          if (!known) seal[some] = hash;
          break;
        }
        case 4:
          if (some < 0 || !seal.count(some) || draw(0, 3) != 0) break;
          pool.Unseal(some);
          seal.erase(some);
          break;
        case 5: {
          std::vector<uint64_t> chain(draw(0, 4));
          for (uint64_t& hash : chain) hash = static_cast<uint64_t>(draw(0, 2 * n)) << 40;
          std::vector<int32_t> expected, found;
          for (const uint64_t hash : chain) {
            const auto at = std::find_if(seal.begin(), seal.end(), [&](const auto& s) { return s.second == hash; });
            if (at == seal.end()) break;
            expected.push_back(at->first);
            if (count[at->first]++ == 0) lru.remove(at->first);
          }
          ASSERT_EQ(pool.Match(chain, &found), static_cast<int>(expected.size()));
          ASSERT_EQ(found, expected);
          break;
        }
        case 6:
          if (some < 0) break;
          if (idle[some] < count[some] && draw(0, 1) == 0) {
            pool.SetIdle(some);
            ++idle[some];
          } else if (idle[some] > 0) {
            pool.SetBusy(some);
            --idle[some];
          }
          break;
      }
      ASSERT_TRUE(pool.CheckInvariants().ok()) << pool.CheckInvariants();
      ASSERT_EQ(pool.n_held(), static_cast<int>(count.size()));
      ASSERT_EQ(pool.n_evictable(), static_cast<int>(lru.size()));
      int n_reclaimable = 0;
      for (const auto& [block, c] : count) {
        ASSERT_EQ(pool.count(block), c);
        n_reclaimable += idle[block] == c;
      }
      ASSERT_EQ(pool.n_reclaimable(), n_reclaimable);
    }
  }
}

}  // namespace
}  // namespace updraft::engine
