#include "common/text/byte_bpe.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace updraft::text {
namespace {

TEST(ByteMapTest, IsOneToOneAndPrints) {
  std::set<char32_t> seen;
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t c = PrintableOfByte(static_cast<uint8_t>(byte));
    EXPECT_TRUE(seen.insert(c).second) << byte;
    EXPECT_EQ(ByteOfPrintable(c), byte);
    EXPECT_GT(c, 0x20u);
  }
  EXPECT_EQ(PrintableOfByte(' '), U'Ġ');
  EXPECT_EQ(PrintableOfByte('\n'), U'Ċ');
  EXPECT_EQ(PrintableOfByte('A'), U'A');
  EXPECT_EQ(PrintableOfByte(0xAD), U'Ń');  // the last stand-in, U+0143
  EXPECT_EQ(ByteOfPrintable(0x144), std::nullopt);
  EXPECT_EQ(ByteOfPrintable(' '), std::nullopt);
}

TEST(ByteMapTest, StringsRoundTrip) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  EXPECT_EQ(BytesOfPrintable(PrintableOfBytes(all)), all);
  EXPECT_EQ(PrintableOfBytes(" hi"), "Ġhi");
  EXPECT_EQ(BytesOfPrintable("a b"), std::nullopt);
  EXPECT_EQ(BytesOfPrintable("\xFF"), std::nullopt);
  EXPECT_EQ(BytesOfPrintable("我"), std::nullopt);
}

// The definition, word for word: find the lowest rank, the leftmost of equals, merge it, start over.
std::vector<int32_t> MergeSlowly(const std::vector<BpeMerge>& merges, std::vector<int32_t> symbols) {
  std::map<std::pair<int32_t, int32_t>, size_t> rank;
  for (size_t i = 0; i < merges.size(); ++i) rank.try_emplace({merges[i].left, merges[i].right}, i);
  while (true) {
    size_t best_rank = std::numeric_limits<size_t>::max();
    size_t best_at = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto it = rank.find({symbols[i], symbols[i + 1]});
      if (it != rank.end() && it->second < best_rank) {
        best_rank = it->second;
        best_at = i;
      }
    }
    if (best_rank == std::numeric_limits<size_t>::max()) return symbols;
    symbols[best_at] = merges[best_rank].result;
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best_at) + 1);
  }
}

TEST(BpeMergerTest, EqualsTheDefinitionOnRandomMerges) {
  for (uint64_t seed = 1; seed <= 3000; ++seed) {
    std::mt19937_64 rng(seed);
    const auto below = [&](int32_t n) { return static_cast<int32_t>(rng() % static_cast<uint64_t>(n)); };
    std::vector<BpeMerge> merges;
    const int32_t n_base = 1 + below(4);
    int32_t n_symbols = n_base;
    const bool cycles = seed % 3 == 0;  // results that are symbols already, which no vocabulary has
    for (int i = below(30); i > 0; --i) {
      merges.push_back({below(n_symbols), below(n_symbols), cycles ? below(n_symbols) : n_symbols});
      ++n_symbols;
    }
    std::vector<int32_t> symbols(static_cast<size_t>(below(120)));
    for (int32_t& s : symbols) s = below(n_base) - (below(40) == 0 ? n_base : 0);  // now and then an unknown byte
    const auto merger = BpeMerger::Create(merges);
    ASSERT_TRUE(merger.ok()) << merger.status();
    std::vector<int32_t> merged = symbols;
    merger->Apply(&merged);
    ASSERT_EQ(merged, MergeSlowly(merges, symbols)) << "seed " << seed;
  }
}

TEST(BpeMergerTest, FirstOfTwoMergesOfOnePairCounts) {
  const auto merger = BpeMerger::Create(std::vector<BpeMerge>{{1, 2, 3}, {1, 2, 4}});
  ASSERT_TRUE(merger.ok());
  std::vector<int32_t> symbols = {1, 2};
  merger->Apply(&symbols);
  EXPECT_EQ(symbols, std::vector<int32_t>{3});
  EXPECT_EQ(merger->size(), 1u);
}

TEST(BpeMergerTest, RefusesNegativeSymbols) {
  const auto merger = BpeMerger::Create(std::vector<BpeMerge>{{1, 2, 3}, {-1, 2, 4}});
  EXPECT_EQ(merger.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(merger.status().message().find("merge 1"), std::string::npos) << merger.status();
}

TEST(BpeMergerTest, NoMergesLeaveThePieceAsItIs) {
  std::vector<int32_t> symbols = {5, 6, 7};
  BpeMerger().Apply(&symbols);
  EXPECT_EQ(symbols, (std::vector<int32_t>{5, 6, 7}));
  symbols.clear();
  BpeMerger().Apply(&symbols);
  EXPECT_TRUE(symbols.empty());
}

TEST(BpeMergerTest, AMillionEqualSymbolsMergeFast) {
  std::vector<BpeMerge> merges;
  for (int32_t i = 0; i < 10; ++i) merges.push_back({i, i, i + 1});  // aa, aaaa, ...
  const auto merger = BpeMerger::Create(merges);
  ASSERT_TRUE(merger.ok());
  std::vector<int32_t> symbols(1 << 20, 0);
  const auto start = std::chrono::steady_clock::now();
  merger->Apply(&symbols);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(symbols, std::vector<int32_t>(1 << 10, 10));
  EXPECT_LT(took.count(), 20.0);  // quadratic work would take hours
}

}  // namespace
}  // namespace updraft::text
