// The doors between folders: every #include of ours against the table of who may use whom (docs/ARCHITECTURE.md draws
// it). A static library that is only included, not linked, would not be noticed by the linker.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace updraft {
namespace {

namespace fs = std::filesystem;

// Folder -> folders that it may include beside itself. "kernels" stands for all of kernels/, "common" for all of
// common/.
using Table = std::map<std::string, std::set<std::string>>;

const Table& Doors() {
  static const Table doors = {
      {"kernels", {}},
      {"common/clock", {}},
      {"common/status", {}},
      {"common/json", {}},
      {"common/cockpit", {"common/json"}},
      {"common/files", {}},
      {"common/memory", {}},
      {"common/telemetry", {"common/sync", "common/clock"}},
      {"common/sync", {"common/clock"}},
      {"common/engine", {"common/clock"}},
      {"common/gguf", {"common/files", "kernels"}},
      {"common/jinja", {}},
      {"common/text", {"common/gguf", "common/jinja"}},
      {"common/model", {"common/engine", "common/files", "common/gguf", "kernels"}},
      {"common/decode", {"common/model", "kernels"}},
      {"common/answer", {"common/decode", "common/text"}},
      {"common/routing", {"common/decode", "common/gguf"}},
      {"common/http", {"common/clock", "common/json", "common/status", "common/sync"}},
      {"common/rpc",
       {"common/clock", "common/decode", "common/files", "common/routing", "common/status", "common/sync",
        "common/text"}},
      {"common/serving",
       {"common/clock", "common/decode", "common/http", "common/memory", "common/model", "common/routing", "common/rpc",
        "common/status", "common/sync", "common/telemetry", "common/text"}},
      {"edge/answer",
       {"common/answer", "common/clock", "common/decode", "common/routing", "common/rpc", "common/serving",
        "common/status", "common/text"}},
      {"edge/agent", {"common", "edge/answer"}},
      {"cloud/engine",
       {"common/answer", "common/clock", "common/decode", "common/engine", "common/model", "common/status",
        "common/sync", "kernels"}},
      {"cloud/service", {"common", "cloud/engine"}},
      {"deploy", {"common", "kernels"}},
  };
  return doors;
}

// "common/gguf/reader.h" -> "common/gguf"; of kernels and deploy the room is the whole.
std::string RoomOf(const std::string& path) {
  const size_t first = path.find('/');
  const std::string top = path.substr(0, first);
  if (top == "kernels" || top == "deploy") return top;
  return path.substr(0, path.find('/', first + 1));
}

std::string TopOf(const std::string& room) { return room.substr(0, room.find('/')); }

bool MayUse(const std::string& from, const std::string& to) {
  if (from == to) return true;
  const auto it = Doors().find(from);
  if (it == Doors().end()) return false;
  return it->second.contains(to) || it->second.contains(TopOf(to));
}

// Rooms that may not know the wire: engine, model and text are the same whoever asks.
bool MayKnowTheWire(const std::string& room) {
  static const std::set<std::string> without = {"kernels",     "common/answer", "common/decode", "common/engine",
                                                "common/gguf", "common/jinja",  "common/model",  "common/routing",
                                                "common/text", "cloud/engine"};
  return !without.contains(room);
}

bool IncludesTheWire(const std::string& line) {
  static const std::regex include(R"re(^\s*#\s*include\s*["<]([^">]*/)?v\d+/[^">]*\.pb\.h[">])re");
  return std::regex_search(line, include);
}

// What is wrong with a door by itself: kernels <- common <- {edge, cloud, deploy}, and never sideways. Empty: nothing.
std::string WrongWith(const std::string& from, const std::string& to) {
  const std::string below = TopOf(from), above = TopOf(to);
  if (above == "kernels" && below != "kernels") return "";
  if (above == "common" && below != "kernels") return "";
  if (above == below && (below == "edge" || below == "cloud")) return "";  // edge/agent on edge/answer
  return from + " -> " + to;
}

// A way through the doors that leads back to where it began ("a -> b -> a"); empty when there is none.
std::string CircleIn(const Table& doors) {
  enum class Mark { kNew, kOnTheWay, kDone };
  std::map<std::string, Mark> marks;
  std::vector<std::string> way;
  std::string circle;
  const std::function<bool(const std::string&)> visit = [&](const std::string& room) {
    way.push_back(room);
    if (marks[room] == Mark::kOnTheWay) {
      for (auto at = std::find(way.begin(), way.end(), room); at != way.end(); ++at) {
        circle += (circle.empty() ? "" : " -> ") + *at;
      }
      return true;
    }
    if (marks[room] == Mark::kNew) {
      marks[room] = Mark::kOnTheWay;
      const auto it = doors.find(room);
      if (it != doors.end()) {
        for (const std::string& to : it->second) {
          // A name without a folder stands for all rooms in it.
          if (to == "kernels" || to.find('/') != std::string::npos) {
            if (visit(to)) return true;
            continue;
          }
          for (const auto& [other, unused] : doors) {
            if (TopOf(other) == to && visit(other)) return true;
          }
        }
      }
      marks[room] = Mark::kDone;
    }
    way.pop_back();
    return false;
  };
  for (const auto& [room, unused] : doors) {
    if (visit(room)) return circle;
  }
  return "";
}

TEST(Doors, EveryIncludeGoesThroughOne) {
  const char* root = std::getenv("UPDRAFT_SOURCE_DIR");
  ASSERT_NE(root, nullptr) << "ctest sets it to the tree's root";
  const std::regex include(R"re(^\s*#include "((kernels|common|edge|cloud|deploy|tests)/[^"]+)")re");
  int n_includes = 0;
  for (const char* top : {"kernels", "common", "edge", "cloud", "deploy"}) {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(fs::path(root) / top)) {
      const std::string extension = entry.path().extension();
      if (extension != ".h" && extension != ".cc" && extension != ".cu") continue;
      const std::string file = fs::relative(entry.path(), root);
      std::ifstream in(entry.path());
      std::smatch match;
      for (std::string line; std::getline(in, line);) {
        EXPECT_TRUE(MayKnowTheWire(RoomOf(file)) || !IncludesTheWire(line)) << file << " knows the wire: " << line;
        if (!std::regex_search(line, match, include)) continue;
        ++n_includes;
        const std::string from = RoomOf(file), to = RoomOf(match[1]);
        EXPECT_TRUE(Doors().contains(from)) << file << ": its folder is not in the table of doors";
        EXPECT_TRUE(MayUse(from, to)) << file << " includes " << match[1] << ": there is no door from " << from
                                      << " to " << to;
      }
    }
  }
  EXPECT_GT(n_includes, 500) << "the includes were not found";
}

// The table itself.
TEST(Doors, TableIsOneWay) {
  for (const auto& [from, to] : Doors()) {
    for (const std::string& room : to) EXPECT_EQ(WrongWith(from, room), "");
  }
  EXPECT_EQ(CircleIn(Doors()), "");
}

TEST(Doors, WhatTheTableMayNotSayIsFound) {
  EXPECT_EQ(WrongWith("edge/agent", "edge/answer"), "");
  EXPECT_EQ(WrongWith("cloud/service", "common"), "");
  EXPECT_NE(WrongWith("common/model", "cloud/engine"), "");
  EXPECT_NE(WrongWith("edge/agent", "cloud/engine"), "");
  EXPECT_NE(WrongWith("deploy", "edge/agent"), "");
  EXPECT_NE(WrongWith("kernels", "common/clock"), "");
  EXPECT_EQ(CircleIn({{"common/a", {"common/b"}}, {"common/b", {"kernels"}}, {"edge/c", {"common"}}}), "");
  EXPECT_NE(CircleIn({{"common/a", {"common/b"}}, {"common/b", {"common/a"}}}), "");
  EXPECT_EQ(CircleIn({{"common/a", {"common/b"}}, {"common/b", {"common/c"}}, {"common/c", {"common/a"}}}),
            "common/a -> common/b -> common/c -> common/a");
  EXPECT_NE(CircleIn({{"edge/a", {"common", "edge/b"}}, {"edge/b", {"edge/c"}}, {"edge/c", {"edge/a"}}}), "");
  EXPECT_NE(CircleIn({{"common/a", {"common"}}, {"common/b", {"common/a"}}}), "");
}

TEST(Doors, TheWireIsRecognised) {
  EXPECT_TRUE(IncludesTheWire("#include \"updraft/v1/inference.pb.h\""));
  EXPECT_TRUE(IncludesTheWire("#include <updraft/v1/inference.grpc.pb.h>"));
  EXPECT_FALSE(IncludesTheWire("#include \"common/engine/core.h\""));
  EXPECT_FALSE(MayKnowTheWire("common/engine"));
  EXPECT_TRUE(MayKnowTheWire("common/rpc"));
}

}  // namespace
}  // namespace updraft
