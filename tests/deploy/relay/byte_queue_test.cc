#include "deploy/relay/byte_queue.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace updraft::relay::internal {
namespace {

TEST(ByteQueueTest, GivesBackWhatWasAppendedInAnyPieces) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 rng(seed);
    const auto below = [&rng](size_t n) { return static_cast<size_t>(rng() % n); };
    ByteQueue queue;
    std::string expected, taken;
    size_t n_in = 0;
    for (int i = 0; i < 300; ++i) {
      std::string bytes(below(3) == 0 ? below(50'000) : below(20), '\0');
      for (char& c : bytes) c = static_cast<char>(rng());
      queue.Append(bytes);
      expected += bytes;
      n_in += bytes.size();
      for (size_t n = below(4); n > 0 && !queue.Front().empty(); --n) {
        const std::string_view front = queue.Front();
        const size_t some = below(2) == 0 ? front.size() : 1 + below(front.size());
        taken += front.substr(0, some);
        queue.Pop(some);
      }
      ASSERT_EQ(queue.size(), n_in - taken.size());
    }
    while (!queue.Front().empty()) {
      taken += queue.Front();
      queue.Pop(queue.Front().size());
    }
    ASSERT_EQ(taken, expected);
    ASSERT_EQ(queue.size(), 0u);
    ASSERT_EQ(queue.n_blocks(), 0u);
  }
}

TEST(ByteQueueTest, SmallPiecesShareABlock) {
  ByteQueue queue;
  for (int i = 0; i < 4 << 20; ++i) queue.Append("x");
  EXPECT_EQ(queue.size(), size_t{4} << 20);
  EXPECT_EQ(queue.n_blocks(), (size_t{4} << 20) / ByteQueue::kBlockBytes);
  queue.Clear();
  EXPECT_EQ(queue.size(), 0u);
  EXPECT_TRUE(queue.Front().empty());
}

}  // namespace
}  // namespace updraft::relay::internal
