#include "deploy/bench/peers.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace updraft {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kTwoTests[] = R"([{"n_prompt":512,"n_gen":0,"avg_ts":100.0},{"n_prompt":0,"n_gen":128,"avg_ts":%s}])";

std::string Output(const std::string& decode) {
  std::string text = kTwoTests;
  return text.replace(text.find("%s"), 2, decode);
}

class PeersTest : public ::testing::Test {
 protected:
  PeersTest() : folder_(fs::temp_directory_path() / ("updraft_peers_" + std::to_string(getpid()))) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~PeersTest() override { fs::remove_all(folder_); }

  // An executable that logs its arguments and prints `output`.
  std::string Program(const std::string& path, const std::string& output, int status = 0) {
    const fs::path file = folder_ / path;
    fs::create_directories(file.parent_path());
    std::ofstream(file) << "#!/bin/sh\necho \"" << path << " $*\" >> '" << (folder_ / "log").string()
                        << "'\ncat <<'E'\n"
                        << output << "\nE\nexit " << status << "\n";
    fs::permissions(file, fs::perms::owner_all);
    return file.string();
  }
  std::vector<std::string> Log() const {
    std::ifstream in(folder_ / "log");
    std::vector<std::string> lines;
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
  }
  std::string Self(const std::string& prefill, const std::string& decode) {
    return Program("self",
                   R"({"prefill_tok_s":{"median":)" + prefill + R"(},"decode_tok_s":{"median":)" + decode + "}}");
  }

  fs::path folder_;
};

TEST_F(PeersTest, FindsExecutablesAndNamesThemByProject) {
  Program("llama.cpp/build/bin/llama-bench", "");
  Program("forks/ik_llama.cpp/build/bin/llama-bench", "");
  std::ofstream(folder_ / "llama-bench") << "a text file of that name";
  auto peers = FindPeers(folder_.string());
  ASSERT_TRUE(peers.ok()) << peers.status();
  ASSERT_EQ(peers->size(), 2u);
  EXPECT_EQ((*peers)[0].name, "forks/ik_llama.cpp");
  EXPECT_EQ((*peers)[1].name, "llama.cpp");
}

TEST_F(PeersTest, AFolderWithoutAnyIsSaidSo) {
  EXPECT_THAT(std::string(FindPeers(folder_.string()).status().message()), HasSubstr(folder_.string()));
  EXPECT_FALSE(FindPeers("/nonexistent").ok());
}

TEST_F(PeersTest, RunsInTurnAndComparesRoundByRound) {
  PeerBenchOptions options;
  options.self = Self("150", "20");
  options.model = "m o d e l.gguf";
  options.n_threads = 2;
  options.rounds = 2;
  options.peer_args = {"-fa", "1"};
  const std::vector<Peer> peers = {{"other", Program("llama-bench", Output("40"))}};
  auto speeds = RunPeers(peers, options, nullptr);
  ASSERT_TRUE(speeds.ok()) << speeds.status();
  const std::string self =
      "self bench model --model m o d e l.gguf --prefill 512 --decode 128 --threads 2 --repeat 1 --json";
  const std::string peer = "llama-bench -m m o d e l.gguf -p 512 -n 128 -t 2 -r 1 -o json -fa 1";
  EXPECT_THAT(Log(), ElementsAre(self, peer, peer, self)) << "each round starts with another program";
  const Ratio prefill = RatioOf((*speeds)[0], (*speeds)[1], &Speed::prefill_tok_s);
  EXPECT_DOUBLE_EQ(prefill.median, 1.5);
  EXPECT_DOUBLE_EQ(RatioOf((*speeds)[0], (*speeds)[1], &Speed::decode_tok_s).median, 0.5);
}

TEST_F(PeersTest, RatiosPairTheRounds) {
  const PeerSpeeds ours{"a", {{10, 1}, {20, 1}, {30, 1}}};
  const PeerSpeeds theirs{"b", {{10, 1}, {10, 1}, {60, 1}}};
  const Ratio ratio = RatioOf(ours, theirs, &Speed::prefill_tok_s);
  EXPECT_DOUBLE_EQ(ratio.median, 1.0);
  EXPECT_DOUBLE_EQ(ratio.min, 0.5);
  EXPECT_DOUBLE_EQ(ratio.max, 2.0);
}

TEST_F(PeersTest, AProgramThatFailsOrPrintsSomethingElseIsNamed) {
  PeerBenchOptions options;
  options.self = Self("1", "1");
  const std::vector<Peer> failing = {{"other", Program("a/llama-bench", Output("1"), 3)}};
  EXPECT_THAT(std::string(RunPeers(failing, options, nullptr).status().message()), HasSubstr("status 3"));
  const std::vector<Peer> odd = {{"other", Program("b/llama-bench", "usage: ...")}};
  EXPECT_THAT(std::string(RunPeers(odd, options, nullptr).status().message()), HasSubstr("b/llama-bench"));
  const std::vector<Peer> absent = {{"other", (folder_ / "c").string()}};
  EXPECT_THAT(std::string(RunPeers(absent, options, nullptr).status().message()), HasSubstr("cannot run"));
}

TEST(ParseLlamaBench, WantsBothTests) {
  auto speed = ParseLlamaBench(Output("4.5"));
  ASSERT_TRUE(speed.ok()) << speed.status();
  EXPECT_EQ(speed->prefill_tok_s, 100.0);
  EXPECT_EQ(speed->decode_tok_s, 4.5);
  for (const char* bad : {"", "{}", "[]", "[1]", R"([{"n_prompt":512,"n_gen":0,"avg_ts":100.0}])",
                          R"([{"n_prompt":"x","n_gen":0,"avg_ts":null}])"}) {
    EXPECT_FALSE(ParseLlamaBench(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace updraft
