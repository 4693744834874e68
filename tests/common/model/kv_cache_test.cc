#include "common/model/kv_cache.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace updraft {
namespace {

ModelConfig TinyConfig() {
  ModelConfig config;
  config.n_layer = 2;
  config.n_kv_head = 3;
  config.head_dim = 4;
  return config;
}

TEST(KvPoolTest, RefusesImpossibleOptions) {
  const ModelConfig config = TinyConfig();
  EXPECT_EQ(KvPool::Create(config, {.n_blocks = 0}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(KvPool::Create(config, {.n_blocks = -5}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(KvPool::Create(config, {.n_blocks = 1, .block_tokens = 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(KvPool::Create(config, {.n_blocks = 1, .block_tokens = 1 << 20}).status().code(),
            absl::StatusCode::kInvalidArgument);
  ModelConfig huge = config;
  huge.n_layer = huge.n_kv_head = huge.head_dim = 1 << 30;
  EXPECT_EQ(KvPool::Create(huge, {.n_blocks = 1 << 30}).status().code(), absl::StatusCode::kInvalidArgument);
  huge = config;
  huge.head_dim = 1 << 24;
  EXPECT_EQ(KvPool::Create(huge, {.n_blocks = 1 << 20}).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(KvPoolTest, LayersDoNotOverlap) {
  auto pool = KvPool::Create(TinyConfig(), {.n_blocks = 3, .block_tokens = 5}).value();
  const size_t plane = 3 * 3 * 5 * 4 * sizeof(uint16_t);
  EXPECT_EQ(pool->bytes(), 2 * 2 * plane);
  EXPECT_EQ(pool->layer(0).v, pool->layer(0).k + plane);
  EXPECT_EQ(pool->layer(1).k, pool->layer(0).v + plane);
  EXPECT_EQ(pool->shape().n_kv_head, 3);
  EXPECT_EQ(pool->shape().head_dim, 4);
  EXPECT_EQ(pool->shape().block_tokens, 5);
  EXPECT_EQ(pool->shape().type, kernels::KvType::kF16);
}

TEST(KvPoolTest, FewerBitsTakeLessMemory) {
  ModelConfig config = TinyConfig();
  config.head_dim = 64;
  const auto bytes = [&](kernels::KvType type) {
    auto pool = KvPool::Create(config, {.n_blocks = 10, .block_tokens = 16, .type = type}).value();
    EXPECT_EQ(pool->layer(1).k - pool->layer(0).k, static_cast<ptrdiff_t>(pool->bytes() / 2));
    return pool->bytes();
  };
  const size_t numbers = 2 * 2 * 3 * 10 * 16 * 64;  // keys and values, layers, heads, blocks, positions, dimensions
  EXPECT_EQ(bytes(kernels::KvType::kF16), numbers * 2);
  EXPECT_EQ(bytes(kernels::KvType::kI8), numbers * 34 / 32);
  EXPECT_EQ(bytes(kernels::KvType::kI4), numbers * 18 / 32);
}

TEST(SequenceKvTest, AFailedReserveChangesNothing) {
  auto pool = KvPool::Create(TinyConfig(), {.n_blocks = 3, .block_tokens = 4}).value();
  SequenceKv kv(pool.get());
  ASSERT_TRUE(kv.Reserve(6).ok());
  SequenceKv other(pool.get());
  const absl::Status status = other.Reserve(5);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(std::string(status.message()).find("needs 2 more blocks"), std::string::npos) << status;
  EXPECT_EQ(other.n_tokens(), 0);
  EXPECT_EQ(pool->n_free(), 1);
  // The copy of a shared last block counts as well: a fork that grows within it needs the last free block, a second has
  // none.
  SequenceKv first_fork = kv.Fork();
  SequenceKv second_fork = kv.Fork();
  EXPECT_TRUE(first_fork.Reserve(7).ok());
  const std::vector<int32_t> before(second_fork.blocks().begin(), second_fork.blocks().end());
  EXPECT_EQ(second_fork.Reserve(7).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(std::vector<int32_t>(second_fork.blocks().begin(), second_fork.blocks().end()), before);
  EXPECT_EQ(second_fork.n_tokens(), 6);
}

TEST(SequenceKvTest, MovesHandOverTheirBlocks) {
  auto pool = KvPool::Create(TinyConfig(), {.n_blocks = 4, .block_tokens = 4}).value();
  {
    SequenceKv a(pool.get());
    ASSERT_TRUE(a.Reserve(8).ok());
    SequenceKv b = std::move(a);
    EXPECT_EQ(b.n_tokens(), 8);
    SequenceKv c(pool.get());
    ASSERT_TRUE(c.Reserve(4).ok());
    c = std::move(b);
    EXPECT_EQ(pool->n_free(), 2);
    EXPECT_EQ(c.n_tokens(), 8);
  }
  EXPECT_EQ(pool->n_free(), 4);
}

// Against a model in which every sequence owns a plain vector: random reserving, writing, forking, adopting, truncating
// and dropping. The value of a position is written to every layer's k and v at the block and slot that the table names.
TEST(SequenceKvTest, BehavesLikeSequencesThatOwnTheirMemory) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  constexpr int kBlocks = 24;
  constexpr int kBlockTokens = 4;
  auto pool = KvPool::Create(TinyConfig(), {.n_blocks = kBlocks, .block_tokens = kBlockTokens}).value();

  struct Pair {
    SequenceKv kv;
    std::vector<uint16_t> naive;
  };
  std::map<int, Pair> sequences;
  int next_id = 0;
  const auto element = [&](const SequenceKv& kv, int position) {
    return (size_t{static_cast<size_t>(kv.blocks()[position / kBlockTokens])} * 3 * kBlockTokens +
            position % kBlockTokens) *
           4 * sizeof(uint16_t);
  };
  const auto write = [](std::byte* to, uint16_t value) { std::memcpy(to, &value, sizeof(value)); };
  const auto read = [](const std::byte* from) {
    uint16_t value;
    std::memcpy(&value, from, sizeof(value));
    return value;
  };
  const auto any = [&] { return std::next(sequences.begin(), static_cast<long>(random() % sequences.size())); };

  int n_refused = 0;
  for (int step = 0; step < 20000; ++step) {
    const uint64_t action = random() % 6;
    if (sequences.empty() || action == 0) {
      if (sequences.size() < 8) sequences.try_emplace(next_id++, Pair{SequenceKv(pool.get()), {}});
    } else if (action <= 2) {
      Pair& s = any()->second;
      const int n = static_cast<int>(s.naive.size() + 1 + random() % 9);
      if (s.kv.Reserve(n).ok()) {
        for (int p = static_cast<int>(s.naive.size()); p < n; ++p) {
          const uint16_t value = static_cast<uint16_t>(random());
          s.naive.push_back(value);
          for (int layer = 0; layer < 2; ++layer) {
            write(pool->layer(layer).k + element(s.kv, p), value);
            write(pool->layer(layer).v + element(s.kv, p), static_cast<uint16_t>(~value));
          }
        }
      } else {
        ++n_refused;
        ASSERT_EQ(s.kv.n_tokens(), static_cast<int>(s.naive.size()));
      }
    } else if (action == 3) {
      if (sequences.size() < 8) {
        Pair& s = any()->second;
        Pair fork{s.kv.Fork(), s.naive};
        sequences.try_emplace(next_id++, std::move(fork));
      }
    } else if (action == 4) {
      Pair& s = any()->second;
      const size_t n = random() % (s.naive.size() + 1);
      s.kv.Truncate(static_cast<int>(n));
      s.naive.resize(n);
    } else {
      sequences.erase(any());
    }

    std::map<int32_t, int> references;
    for (const auto& [id, s] : sequences) {
      ASSERT_EQ(s.kv.n_tokens(), static_cast<int>(s.naive.size()));
      ASSERT_EQ(static_cast<int>(s.kv.blocks().size()), pool->BlocksFor(s.kv.n_tokens()));
      for (const int32_t block : s.kv.blocks()) ++references[block];
      for (size_t p = 0; p < s.naive.size(); ++p) {
        ASSERT_EQ(read(pool->layer(1).k + element(s.kv, static_cast<int>(p))), s.naive[p])
            << "step " << step << " position " << p;
        ASSERT_EQ(read(pool->layer(0).v + element(s.kv, static_cast<int>(p))), static_cast<uint16_t>(~s.naive[p]));
      }
    }
    for (int32_t block = 0; block < kBlocks; ++block) ASSERT_EQ(pool->ref_count(block), references[block]);
    ASSERT_EQ(pool->n_free(),
              kBlocks - static_cast<int>(std::erase_if(references, [](auto& r) { return r.second > 0; })));
  }
  EXPECT_GT(n_refused, 0) << "the pool was never full, so running out was not tested";
  sequences.clear();
  EXPECT_EQ(pool->n_free(), kBlocks);
}

TEST(SequenceKvTest, AdoptedBlocksAreSharedUntilTheyGrow) {
  auto pool = KvPool::Create(TinyConfig(), {.n_blocks = 6, .block_tokens = 4}).value();
  SequenceKv a(pool.get());
  ASSERT_TRUE(a.Reserve(8).ok());
  SequenceKv b(pool.get());
  b.AdoptPrefix(a.blocks().first(1), 4);
  EXPECT_EQ(pool->ref_count(a.blocks()[0]), 2);
  ASSERT_TRUE(b.Reserve(5).ok());  // full blocks are shared for good; only a partial one is copied
  EXPECT_EQ(b.blocks()[0], a.blocks()[0]);
  b.Truncate(0);
  EXPECT_EQ(pool->ref_count(a.blocks()[0]), 1);
}

}  // namespace
}  // namespace updraft
