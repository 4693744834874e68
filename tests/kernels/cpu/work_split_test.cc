// How the chunks of several targets are dealt to threads.
#include "kernels/cpu/work_split.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <set>
#include <utility>
#include <vector>

namespace updraft::kernels {
namespace {

std::vector<std::vector<int>> Targets() {
  std::vector<std::vector<int>> cases = {{1}, {8}, {8, 8}, {16, 4, 4}, {1, 1, 1}, {7, 3, 3}, {1, 40}};
  std::mt19937 random(7);
  for (int i = 0; i < 40; ++i) {
    std::vector<int> n_chunks(1 + random() % 4);
    for (int& n : n_chunks) n = 1 + static_cast<int>(random() % 50);
    cases.push_back(std::move(n_chunks));
  }
  return cases;
}

TEST(PlaceOfChunkTest, EveryChunkOfEveryTargetOnce) {
  for (const auto& n_chunks : Targets()) {
    SCOPED_TRACE(::testing::PrintToString(n_chunks));
    const int total = std::accumulate(n_chunks.begin(), n_chunks.end(), 0);
    for (const int n_threads : {1, 2, 3, 7, 64}) {
      std::set<std::pair<int, int>> seen;
      for (int chunk = 0; chunk < total; ++chunk) {
        const ChunkPlace at = PlaceOfChunk(chunk, n_chunks, n_threads);
        ASSERT_LT(at.target, static_cast<int>(n_chunks.size()));
        ASSERT_GE(at.chunk, 0);
        ASSERT_LE(at.chunk + at.n_left, n_chunks[at.target]);
        ASSERT_GE(at.n_left, 1);
        seen.emplace(at.target, at.chunk);
        if (at.n_left > 1) {
          const ChunkPlace next = PlaceOfChunk(chunk + 1, n_chunks, n_threads);
          ASSERT_EQ(next.target, at.target);
          ASSERT_EQ(next.chunk, at.chunk + 1);
          ASSERT_EQ(next.n_left, at.n_left - 1);
        }
      }
      EXPECT_EQ(static_cast<int>(seen.size()), total) << n_threads << " threads";
    }
  }
}

// What packing relies on: whatever is multiplied along with a matrix, a thread reads its own segment of it, but for
// roundings.
TEST(PlaceOfChunkTest, AThreadsSegmentHoldsItsSegmentsOfTheTargets) {
  for (const auto& n_chunks : Targets()) {
    SCOPED_TRACE(::testing::PrintToString(n_chunks));
    const int total = std::accumulate(n_chunks.begin(), n_chunks.end(), 0);
    for (const int n_threads : {1, 2, 3, 7}) {
      for (int thread = 0; thread < n_threads; ++thread) {
        int n_foreign = 0;
        for (int chunk = SegmentBegin(total, thread, n_threads); chunk < SegmentBegin(total, thread + 1, n_threads);
             ++chunk) {
          const ChunkPlace at = PlaceOfChunk(chunk, n_chunks, n_threads);
          const int n = n_chunks[at.target];
          const bool own =
              SegmentBegin(n, thread, n_threads) <= at.chunk && at.chunk < SegmentBegin(n, thread + 1, n_threads);
          n_foreign += own ? 0 : 1;
        }
        EXPECT_LT(n_foreign, static_cast<int>(n_chunks.size())) << "thread " << thread << " of " << n_threads;
      }
    }
  }
}

TEST(PlaceOfChunkTest, WholeMultiplesOfTheThreadsAreDealtExactly) {
  const std::vector<int> n_chunks = {8, 16, 8};
  for (int chunk = 0; chunk < 32; ++chunk) {
    const ChunkPlace at = PlaceOfChunk(chunk, n_chunks, 4);
    EXPECT_EQ(at.chunk / (n_chunks[at.target] / 4), chunk / 8) << "chunk " << chunk << " of target " << at.target;
  }
}

TEST(NumRangesTest, NoMoreThanUnitsNorThanIsWorthIt) {
  EXPECT_EQ(NumRanges(1000, 100, 2), 1);
  EXPECT_EQ(NumRanges(1000, int64_t{1} << 30, 2), 8);
  EXPECT_EQ(NumRanges(3, int64_t{1} << 30, 2), 3);
  EXPECT_EQ(NumRanges(1000, 3 * kMinChunkBytes, 2), 3);
}

}  // namespace
}  // namespace updraft::kernels
