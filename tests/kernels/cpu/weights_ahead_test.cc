// The order of products is learned, and what is learned stays valid for threads that still look at it.
#include "kernels/cpu/weights_ahead.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "kernels/cpu/tile_matmul/pack.h"
#include "tests/kernels/cpu/test_util.h"

namespace updraft::kernels {
namespace {

struct Matrix : PackedMatrix {
  Matrix() : PackedMatrix(DType::kQ4_0, 32, 32, 1) {}
};

class WeightsAheadTest : public ::testing::Test {
 protected:
  // What came after the product that begins with m the last time; the beginnings of m are its own address.
  const void* Begin(const Matrix& m, int n_chunks = 8) {
    const MemoryAhead* next = ahead_.Begin(&m, n_chunks, 2, [&](MemoryAhead& begins) {
      ++n_described_;
      begins.Add(1, {&m, n_chunks});
    });
    if (next == nullptr) return nullptr;
    EXPECT_TRUE(next->of(0).empty());
    return next->of(1)[0].from;
  }

  WeightsAhead ahead_;
  int n_described_ = 0;
};

TEST_F(WeightsAheadTest, KnowsTheOrderFromTheSecondPassOn) {
  const Matrix a, b, c;
  for (const Matrix* m : {&a, &b, &c}) EXPECT_EQ(Begin(*m), nullptr);
  for (int pass = 0; pass < 3; ++pass) {
    EXPECT_EQ(Begin(a), &b);
    EXPECT_EQ(Begin(b), &c);
    EXPECT_EQ(Begin(c), &a);
  }
  EXPECT_EQ(n_described_, 3);  // once each
}

TEST_F(WeightsAheadTest, ForgettingSeparates) {
  const Matrix a, b;
  Begin(a);
  ahead_.Forget();
  Begin(b);
  EXPECT_EQ(Begin(a), nullptr);  // b did not follow a; a does follow b
  EXPECT_EQ(Begin(b), &a);
}

TEST_F(WeightsAheadTest, GivesUpWhatKeepsChanging) {
  const Matrix a, b, c;
  for (int i = 0; i < 100; ++i) {
    Begin(a);
    Begin(i % 2 == 0 ? b : c);
  }
  EXPECT_EQ(Begin(a), nullptr);
  EXPECT_LT(n_described_, 20);
  EXPECT_EQ(Begin(b), &a);
}

TEST_F(WeightsAheadTest, AnotherCutIsAnotherProduct) {
  const Matrix a, b;
  Begin(a);
  Begin(b, 8);
  Begin(a);
  Begin(b, 16);
  const int described = n_described_;
  EXPECT_EQ(Begin(a), &b);
  Begin(b, 16);
  EXPECT_EQ(n_described_, described);
}

// The ranges lie in the planes, begin at the tile asked for, and together are about as long as asked for.
TEST(TiledWeightsTest, RangesOfATileLieInItsPlanes) {
  ThreadPool pool(1);
  for (const DType type : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_K, DType::kQ6_K, DType::kTQ2_0}) {
    SCOPED_TRACE(Info(type).name);
    const int64_t n_out = 96, n_in = 512;
    const auto file = EncodedWeights(type, n_out, n_in, 3);
    const TiledWeights weights(type, TileKindOf(type), n_out, n_in, file.data(), pool);
    const TileFormat format = TileFormatOf(TileKindOf(type));
    const TileView view = weights.view();
    const auto tile_bytes = static_cast<int64_t>(weights.bytes()) / weights.n_tiles();
    for (const int64_t tile : {0, 2, 4}) {
      for (const int64_t bytes : {tile_bytes / 2, 2 * tile_bytes, 100 * tile_bytes}) {
        MemoryAhead ahead(1);
        weights.AddRanges(tile, bytes, 0, ahead);
        const auto ranges = ahead.of(0);
        ASSERT_FALSE(ranges.empty());
        EXPECT_EQ(ranges[0].from, view.low + tile * view.n_blocks * format.low_bytes());
        int64_t total = 0;
        for (const MemoryAhead::Range& range : ranges) {
          const auto* from = static_cast<const uint8_t*>(range.from);
          EXPECT_GE(from, view.low);
          EXPECT_LE(from + range.bytes, view.low + weights.bytes());
          total += range.bytes;
        }
        const int64_t left = (weights.n_tiles() - tile) * tile_bytes;
        EXPECT_LE(total, std::min(bytes, left));
        EXPECT_GE(total, std::min(bytes, left) - 4);  // one rounding per plane
      }
    }
  }
}

}  // namespace
}  // namespace updraft::kernels
