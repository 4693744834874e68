// The doors between folders: every #include of ours against the table of who may use whom (docs/ARCHITECTURE.md draws
// it). A static library that is only included, not linked, would not be noticed by the linker.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>

namespace updraft {
namespace {

namespace fs = std::filesystem;

// Folder -> folders that it may include beside itself. "kernels" stands for all of kernels/, "common" for all of
// common/.
const std::map<std::string, std::set<std::string>>& Doors() {
  static const std::map<std::string, std::set<std::string>> doors = {
      {"kernels", {}},
      {"common/clock", {}},
      {"common/status", {}},
      {"common/cockpit", {}},
      {"common/files", {}},
      {"common/telemetry", {"common/sync", "common/clock"}},
      {"common/sync", {"common/clock"}},
      {"common/engine", {"common/clock"}},
      {"common/gguf", {"common/files", "kernels"}},
      {"common/text", {"common/gguf"}},
      {"common/model", {"common/engine", "common/files", "common/gguf", "kernels"}},
      {"common/decode", {"common/model", "kernels"}},
      {"common/answer", {"common/decode", "common/text"}},
      {"common/routing", {"common/decode", "common/gguf"}},
      {"common/http", {"common/clock", "common/status", "common/sync"}},
      {"common/rpc",
       {"common/clock", "common/decode", "common/files", "common/routing", "common/status", "common/sync",
        "common/text"}},
      {"common/serving",
       {"common/clock", "common/decode", "common/http", "common/model", "common/routing", "common/rpc", "common/status",
        "common/sync", "common/telemetry", "common/text"}},
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

bool MayUse(const std::string& from, const std::string& to) {
  if (from == to) return true;
  const auto it = Doors().find(from);
  if (it == Doors().end()) return false;
  return it->second.contains(to) || it->second.contains(to.substr(0, to.find('/')));
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

// The table itself: kernels <- common <- {edge, cloud, deploy}, never sideways, and no circle.
TEST(Doors, TableIsOneWay) {
  for (const auto& [from, to] : Doors()) {
    for (const std::string& room : to) {
      const std::string top_from = from.substr(0, from.find('/')), top_to = room.substr(0, room.find('/'));
      if (top_from == top_to && top_from != "common") continue;  // edge/agent on edge/answer
      EXPECT_TRUE(top_to == "kernels" || top_to == "common") << from << " -> " << room;
      EXPECT_FALSE(top_from == "kernels") << from << " -> " << room;
      EXPECT_FALSE(MayUse(room, from)) << from << " <-> " << room;
    }
  }
}

}  // namespace
}  // namespace updraft
