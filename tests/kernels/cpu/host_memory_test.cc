#include "kernels/cpu/host_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/ops.h"

namespace updraft::kernels {
namespace {

constexpr size_t kImpossible = std::numeric_limits<size_t>::max() / 4;

TEST(HostMemoryTest, BuffersHoldWhatIsPutThere) {
  const auto memory = MakeHostMemory();
  for (const MemoryUse use : {MemoryUse::kActivations, MemoryUse::kCache}) {
    Buffer a = memory->Allocate(40 * sizeof(float), use);
    Buffer b = memory->Allocate(40 * sizeof(float), use);
    ASSERT_TRUE(a && b);
    EXPECT_EQ(a.n_floats(), 40u);
    std::vector<float> numbers(40), back(40);
    std::iota(numbers.begin(), numbers.end(), 1.0f);
    memory->Upload(numbers.data(), a.bytes(), a.floats());
    memory->Copy(a.floats(), a.bytes(), b.floats());
    memory->Zero(a.floats() + 3, 2 * sizeof(float));
    memory->Download(b.floats(), b.bytes(), back.data());
    EXPECT_EQ(back, numbers);
    memory->Download(a.floats(), a.bytes(), back.data());
    numbers[3] = numbers[4] = 0;
    EXPECT_EQ(back, numbers);

    Buffer moved = std::move(a);
    EXPECT_FALSE(a);
    std::vector<float> staging;
    const std::span<float> view = memory->HostView(moved.floats() + 5, 3, staging);
    EXPECT_EQ(view.data(), moved.floats() + 5) << "the CPU's view is the memory itself";
    EXPECT_EQ(view.size(), 3u);
    EXPECT_EQ(view[0], 6.0f);
  }
  EXPECT_EQ(memory->TakeFault(), Fault::kNone);
}

TEST(HostMemoryTest, ACacheIsZero) {
  const auto memory = MakeHostMemory();
  const Buffer cache = memory->Allocate(size_t{3} << 20, MemoryUse::kCache);
  EXPECT_TRUE(std::all_of(cache.data(), cache.data() + cache.bytes(), [](std::byte b) { return b == std::byte{0}; }));
}

TEST(HostMemoryTest, GathersAndScattersRows) {
  const auto memory = MakeHostMemory();
  std::vector<float> from(5 * 3), some(2 * 3), to(5 * 3, -1.0f);
  std::iota(from.begin(), from.end(), 0.0f);
  const std::vector<int32_t> rows = {4, 1};
  memory->GatherRows(from.data(), rows, 3, some.data());
  EXPECT_EQ(some, (std::vector<float>{12, 13, 14, 3, 4, 5}));
  memory->ScatterRows(some.data(), rows, 3, to.data());
  EXPECT_EQ(to, (std::vector<float>{-1, -1, -1, 3, 4, 5, -1, -1, -1, -1, -1, -1, 12, 13, 14}));
}

TEST(HostMemoryTest, TheFirstFaultStopsWhatFollowsUntilItIsTaken) {
  const auto memory = MakeHostMemory();
  float number = 7.0f, other = 8.0f;
  for (const MemoryUse use : {MemoryUse::kActivations, MemoryUse::kCache}) {
    EXPECT_FALSE(memory->Allocate(kImpossible, use));
    EXPECT_FALSE(memory->Allocate(4, use)) << "nothing works after a fault";
    memory->Zero(&number, sizeof(number));
    memory->Upload(&other, sizeof(other), &number);
    memory->GatherRows(&other, std::vector<int32_t>{0}, 1, &number);
    memory->ScatterRows(&other, std::vector<int32_t>{0}, 1, &number);
    EXPECT_EQ(number, 7.0f);
    std::vector<float> staging;
    EXPECT_TRUE(memory->HostView(&number, 1, staging).empty());
    EXPECT_EQ(memory->TakeFault(), Fault::kOutOfMemory);
    EXPECT_EQ(memory->TakeFault(), Fault::kNone);
    EXPECT_TRUE(memory->Allocate(4, use));
    EXPECT_EQ(memory->HostView(&number, 1, staging).size(), 1u);
  }
}

TEST(HostMemoryTest, OfTwoFaultsTheGraverIsTaken) {
  const auto memory = MakeHostMemory();
  for (const auto& [first, second] :
       {std::pair(Fault::kOutOfMemory, Fault::kDevice), {Fault::kDevice, Fault::kOutOfMemory}}) {
    memory->Fail(first);
    memory->Fail(second);
    EXPECT_EQ(memory->TakeFault(), Fault::kDevice);
    EXPECT_EQ(memory->TakeFault(), Fault::kNone);
  }
}

TEST(HostMemoryTest, BuffersGrowAndNeverShrink) {
  const auto memory = MakeHostMemory();
  Buffer buffer;
  EXPECT_TRUE(GrowTo(*memory, 100, buffer));
  const std::byte* const data = buffer.data();
  EXPECT_TRUE(GrowTo(*memory, 40, buffer));
  EXPECT_EQ(buffer.data(), data);
  EXPECT_TRUE(GrowTo(*memory, 4000, buffer));
  EXPECT_EQ(buffer.bytes(), 4000u);
  EXPECT_FALSE(GrowTo(*memory, kImpossible, buffer));
  EXPECT_FALSE(buffer);
  EXPECT_EQ(memory->TakeFault(), Fault::kOutOfMemory);
  EXPECT_TRUE(GrowTo(*memory, 8, buffer));
}

}  // namespace
}  // namespace updraft::kernels
