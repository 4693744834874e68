// Lists of CPUs, topologies read from trees of files like those of sysfs, and the CPUs that threads take.
#include "kernels/cpu_topology.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <numeric>
#include <string>
#include <vector>

namespace updraft::kernels {
namespace {

std::string Text(const std::optional<CpuList>& list) {
  if (!list) return "malformed";
  std::string text;
  for (const CpuRange& r : *list) text += "[" + std::to_string(r.first) + " " + std::to_string(r.last) + "]";
  return text;
}

TEST(ParseCpuListTest, ReadsWhatTheSystemWrites) {
  EXPECT_EQ(Text(ParseCpuList("0")), "[0 0]");
  EXPECT_EQ(Text(ParseCpuList("0-3,8,10-11\n")), "[0 3][8 8][10 11]");
  EXPECT_EQ(Text(ParseCpuList("\n")), "");  // a node without CPUs
  EXPECT_EQ(Text(ParseCpuList("")), "");
}

TEST(ParseCpuListTest, RefusesWhatIsNone) {
  for (const char* text : {"0-", "-", "-1", "a", "0-a", "0,", ",", "0,,1", "3-1", "0-1-2", "0x1", "+1", "0 1", " 0",
                           "0-7:1/2", "0-4294967295", "99999999999999999999", "2147483648"}) {
    EXPECT_EQ(Text(ParseCpuList(text)), "malformed") << "'" << text << "'";
  }
}

// Ranges stay ranges, or these would take gigabytes.
TEST(ParseCpuListTest, HugeRangesTakeNoMemory) {
  const auto list = ParseCpuList("0-2147483647,5-2147483646");
  EXPECT_EQ(Text(list), "[0 2147483647][5 2147483646]");
  EXPECT_TRUE(Contains(*list, 123456789));
  EXPECT_FALSE(Contains(*list, -1));
}

class TopologyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = std::filesystem::temp_directory_path() / ("updraft-sysfs-" + std::to_string(::getpid()));
    std::filesystem::remove_all(root_);
    std::filesystem::create_directories(root_);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    const auto file = root_ / "devices/system" / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  void WriteCpu(int cpu, const std::string& siblings, const std::string& package) {
    const std::string topology = "cpu/cpu" + std::to_string(cpu) + "/topology/";
    Write(topology + "thread_siblings_list", siblings);
    Write(topology + "physical_package_id", package);
  }
  // 2 nodes x 2 cores x 2 hyper-threads, numbered as servers do: hyper-threads after all cores.
  //   node 0: cores {0, 4}, {1, 5}; node 1: cores {2, 6}, {3, 7}.
  void WriteTwoNodes() {
    Write("node/node0/cpulist", "0-1,4-5\n");
    Write("node/node1/cpulist", "2-3,6-7\n");
    Write("node/possible", "0-1\n");  // a file among the folders
    Write("node/nodes_are_none/cpulist", "0-7\n");
    for (int cpu = 0; cpu < 8; ++cpu) {
      const int core = cpu % 4;
      WriteCpu(cpu, std::to_string(core) + "," + std::to_string(core + 4) + "\n", std::to_string(core / 2) + "\n");
    }
  }

  static std::vector<int> UpTo(int n) {
    std::vector<int> cpus(n);
    std::iota(cpus.begin(), cpus.end(), 0);
    return cpus;
  }
  std::vector<int> Order(const std::vector<int>& cpus, int n_threads) const {
    return CpusOfThreads(ReadTopology(root_.string(), cpus), n_threads);
  }

  std::filesystem::path root_;
};

TEST_F(TopologyTest, ReadsNodesPackagesAndSiblings) {
  WriteTwoNodes();
  const std::vector<CpuPlace> places = ReadTopology(root_.string(), UpTo(8));
  ASSERT_EQ(places.size(), 8u);
  for (int cpu = 0; cpu < 8; ++cpu) {
    EXPECT_EQ(places[cpu].cpu, cpu);
    EXPECT_EQ(places[cpu].node, cpu % 4 / 2) << cpu;
    EXPECT_EQ(places[cpu].package, cpu % 4 / 2) << cpu;
    EXPECT_EQ(places[cpu].sibling, cpu / 4) << cpu;
  }
}

TEST_F(TopologyTest, NodesTogetherAndCoresBeforeHyperThreads) {
  WriteTwoNodes();
  EXPECT_EQ(Order(UpTo(8), 8), (std::vector<int>{0, 1, 4, 5, 2, 3, 6, 7}));
  // One hyper-thread after the other, as desktops number them.
  for (int cpu = 0; cpu < 8; ++cpu) {
    WriteCpu(cpu, std::to_string(cpu / 2 * 2) + "-" + std::to_string(cpu / 2 * 2 + 1), std::to_string(cpu / 4));
  }
  Write("node/node0/cpulist", "0-3");
  Write("node/node1/cpulist", "4-7");
  EXPECT_EQ(Order(UpTo(8), 8), (std::vector<int>{0, 2, 1, 3, 4, 6, 5, 7}));
}

TEST_F(TopologyTest, FewThreadsTakeCoresOfAllNodesBeforeHyperThreads) {
  WriteTwoNodes();
  EXPECT_EQ(Order(UpTo(8), 1), (std::vector<int>{0}));
  EXPECT_EQ(Order(UpTo(8), 2), (std::vector<int>{0, 1}));
  EXPECT_EQ(Order(UpTo(8), 4), (std::vector<int>{0, 1, 2, 3}));
  EXPECT_EQ(Order(UpTo(8), 5), (std::vector<int>{0, 1, 4, 2, 3}));
}

TEST_F(TopologyTest, MoreThreadsThanCpusBeginAgain) {
  WriteTwoNodes();
  EXPECT_EQ(Order({1, 2, 5}, 8), (std::vector<int>{1, 5, 2, 1, 5, 2, 1, 5}));
  EXPECT_EQ(Order({6}, 3), (std::vector<int>{6, 6, 6}));
}

// Of a core whose first hyper-thread is not ours, the second is as good as a core.
TEST_F(TopologyTest, OnlyAllowedCpusCount) {
  WriteTwoNodes();
  EXPECT_EQ(Order({3, 4, 5, 6, 7}, 5), (std::vector<int>{4, 5, 3, 6, 7}));
  EXPECT_EQ(Order({3, 4, 5, 6, 7}, 4), (std::vector<int>{4, 5, 3, 6}));
}

TEST_F(TopologyTest, NothingStatedIsTheOrderOfNumbers) {
  EXPECT_EQ(Order(UpTo(5), 5), UpTo(5));
  EXPECT_EQ(CpusOfThreads(ReadTopology("/nonexistent", {2, 3, 9}), 3), (std::vector<int>{2, 3, 9}));
  EXPECT_EQ(Order({}, 3), (std::vector<int>{}));
  EXPECT_EQ(Order(UpTo(4), 0), (std::vector<int>{}));
}

TEST_F(TopologyTest, PackagesStandInForNodes) {
  for (int cpu = 0; cpu < 4; ++cpu) WriteCpu(cpu, std::to_string(cpu), std::to_string(1 - cpu % 2));
  EXPECT_EQ(Order(UpTo(4), 4), (std::vector<int>{1, 3, 0, 2}));
}

TEST_F(TopologyTest, MalformedFilesCountAsMissing) {
  for (const char* bad : {"0-", "a", "0-4294967295", "", "\n", "1-0", "\x00\xff", "0,1,", "-1"}) {
    SCOPED_TRACE(bad);
    for (const char* node : {"node/node0/cpulist", "node/node1/cpulist"}) Write(node, bad);
    for (int cpu = 0; cpu < 4; ++cpu) WriteCpu(cpu, bad, bad);
    for (const CpuPlace& place : ReadTopology(root_.string(), UpTo(4))) {
      EXPECT_EQ(place.node, -1) << place.cpu;
      EXPECT_EQ(place.package, -1) << place.cpu;
      EXPECT_EQ(place.sibling, 0) << place.cpu;
    }
    EXPECT_EQ(Order(UpTo(4), 4), UpTo(4));
  }
}

TEST_F(TopologyTest, OneBadFileCostsOnlyWhatItStates) {
  WriteTwoNodes();
  Write("node/node0/cpulist", "0-1,4-");  // its CPUs lie nowhere, and together by their package
  EXPECT_EQ(Order(UpTo(8), 8), (std::vector<int>{0, 1, 4, 5, 2, 3, 6, 7}));
  Write("node/node0/cpulist", "0-1,4-5");
  WriteCpu(4, "x", "0");  // a core of its own
  EXPECT_EQ(Order(UpTo(8), 5), (std::vector<int>{0, 1, 4, 2, 3}));
  WriteCpu(5, "0-1", "0");  // siblings without itself
  EXPECT_EQ(ReadTopology(root_.string(), UpTo(8))[5].sibling, 0);
}

TEST_F(TopologyTest, FilesThatAreNotOfASizeAreNotRead) {
  WriteTwoNodes();
  std::string text = "0";
  while (text.size() < (1u << 20)) text += ",0";
  Write("node/node0/cpulist", text);
  EXPECT_EQ(ReadTopology(root_.string(), {0})[0].node, -1);
  std::filesystem::remove(root_ / "devices/system/node/node1/cpulist");
  std::filesystem::create_directories(root_ / "devices/system/node/node1/cpulist");  // a folder
  EXPECT_EQ(ReadTopology(root_.string(), {2})[0].node, -1);
}

}  // namespace
}  // namespace updraft::kernels
