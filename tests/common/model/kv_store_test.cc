#include "common/model/kv_store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace updraft {
namespace {

ModelConfig TinyConfig() {
  ModelConfig config;
  config.n_layer = 3;
  config.n_kv_head = 2;
  config.head_dim = 5;
  return config;
}

TEST(KvStoreTest, ABlockIsItsShareOfAllBytes) {
  const auto memory = kernels::MakeHostMemory();
  for (const kernels::KvType type : {kernels::KvType::kF16, kernels::KvType::kI8, kernels::KvType::kI4}) {
    const auto store = KvStore::Create(*memory, TinyConfig(), {.n_blocks = 7, .block_tokens = 4, .type = type}).value();
    EXPECT_EQ(store->block_bytes(), 3 * 2 * 2 * kernels::KvHeadBytes(store->shape()));
    EXPECT_EQ(store->bytes(), 7 * store->block_bytes());
    EXPECT_EQ(store->BlocksFor(0), 0);
    EXPECT_EQ(store->BlocksFor(4), 1);
    EXPECT_EQ(store->BlocksFor(5), 2);
  }
}

TEST(KvStoreTest, WhatCannotBeHadIsAnErrorAndLeavesNoFault) {
  const auto memory = kernels::MakeHostMemory();
  ModelConfig huge = TinyConfig();
  huge.head_dim = 1 << 24;
  EXPECT_EQ(KvStore::Create(*memory, huge, {.n_blocks = 1 << 20}).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(memory->TakeFault(), kernels::Fault::kNone);
  EXPECT_TRUE(KvStore::Create(*memory, TinyConfig(), {.n_blocks = 1}).ok());
}

TEST(KvStoreTest, AFaultFromBeforeIsStillTold) {
  const auto memory = kernels::MakeHostMemory();
  ModelConfig huge = TinyConfig();
  huge.head_dim = 1 << 24;
  memory->Fail(kernels::Fault::kDevice);
  EXPECT_TRUE(KvStore::Create(*memory, TinyConfig(), {.n_blocks = 1}).ok()) << "it has nothing to do with it";
  EXPECT_EQ(memory->TakeFault(), kernels::Fault::kDevice);
  memory->Fail(kernels::Fault::kDevice);
  EXPECT_FALSE(KvStore::Create(*memory, huge, {.n_blocks = 1 << 20}).ok());
  EXPECT_EQ(memory->TakeFault(), kernels::Fault::kDevice);
}

// Copies and swaps at random against blocks that are plain vectors.
TEST(KvStoreTest, MovesWholeBlocksAndNothingElse) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const auto memory = kernels::MakeHostMemory();
  constexpr int kBlocks = 5;
  const auto store = KvStore::Create(*memory, TinyConfig(), {.n_blocks = kBlocks, .block_tokens = 3}).value();
  using Bytes = std::vector<std::byte>;
  // Of a block, in the order in which the operations find them: keys and values, layer by layer.
  const auto read = [&](int block) {
    Bytes bytes;
    const size_t part = store->block_bytes() / (2 * 3);
    for (int layer = 0; layer < 3; ++layer) {
      for (const std::byte* base : {store->layer(layer).k, store->layer(layer).v}) {
        bytes.insert(bytes.end(), base + block * part, base + (block + 1) * part);
      }
    }
    return bytes;
  };
  std::vector<Bytes> want;
  for (int block = 0; block < kBlocks; ++block) {
    want.push_back(read(block));
    EXPECT_EQ(want.back(), Bytes(store->block_bytes())) << "a new store is zero";
  }
  for (int step = 0; step < 200; ++step) {
    const int block = static_cast<int>(random() % kBlocks), other = static_cast<int>(random() % kBlocks);
    if (step % 3 == 0) {
      Bytes bytes(store->block_bytes());
      for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
      store->SwapIn(bytes, block);
      Bytes back(store->block_bytes());
      store->SwapOut(block, back);
      ASSERT_EQ(back, bytes);
      want[block] = read(block);
      ASSERT_TRUE(std::is_permutation(bytes.begin(), bytes.end(), want[block].begin()));
    } else if (step % 3 == 1 && block != other) {
      store->CopyBlock(block, other);
      want[other] = want[block];
    } else {
      Bytes out(store->block_bytes());
      store->SwapOut(block, out);
      store->SwapIn(out, other);
      want[other] = want[block];
    }
    for (int i = 0; i < kBlocks; ++i) ASSERT_EQ(read(i), want[i]) << "step " << step << " block " << i;
  }
  EXPECT_EQ(memory->TakeFault(), kernels::Fault::kNone);
}

}  // namespace
}  // namespace updraft
