// The doors between folders: every #include of ours, and what every folder's README says of it, against the one table
// of docs/ARCHITECTURE.md. A static library that is only included, not linked, would not be noticed by the linker.
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
#include <sstream>
#include <string>
#include <vector>

namespace updraft {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;

// Folder -> what it may include beside itself: folders with all that is below them, and single headers. "proto" and
// "proto/grpc" are the generated messages and services.
using Table = std::map<std::string, std::set<std::string>>;

fs::path Root() {
  const char* root = std::getenv("UPDRAFT_SOURCE_DIR");
  EXPECT_NE(root, nullptr) << "ctest sets it to the tree's root";
  return root == nullptr ? "." : root;
}

std::string Read(const fs::path& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

std::string TopOf(const std::string& path) { return path.substr(0, path.find('/')); }

bool IsTop(const std::string& name) {
  static const std::set<std::string> tops = {"kernels", "proto", "common", "edge", "cloud", "deploy"};
  return tops.contains(name);
}

// What is in `backquotes`, "a/{b,c}.h" as "a/b.h" and "a/c.h".
std::vector<std::string> Quoted(const std::string& text) {
  static const std::regex quoted("`([^`]+)`"), braces(R"(([^{]*)\{([^}]*)\}(.*))");
  std::vector<std::string> names;
  for (std::sregex_iterator it(text.begin(), text.end(), quoted), end; it != end; ++it) {
    const std::string name = (*it)[1];
    std::smatch parts;
    if (!std::regex_match(name, parts, braces)) {
      names.push_back(name);
      continue;
    }
    std::istringstream alternatives(parts[2]);
    for (std::string one; std::getline(alternatives, one, ',');) {
      names.push_back(parts[1].str() + one + parts[3].str());
    }
  }
  return names;
}

// The rows under the head "| folder | what | may include |" of a page.
Table TableOf(const std::string& page) {
  Table table;
  std::istringstream lines(page);
  std::string line;
  while (std::getline(lines, line) && line != "| folder | what | may include |") {
  }
  std::getline(lines, line);  // |---|
  static const std::regex row(R"(\|([^|]*)\|([^|]*)\|([^|]*)\|)");
  std::smatch cells;
  while (std::getline(lines, line) && std::regex_match(line, cells, row)) {
    const std::vector<std::string> folder = Quoted(cells[1]);
    if (folder.size() != 1 || table.contains(folder[0])) {
      ADD_FAILURE() << "expected one new folder in: " << line;
      continue;
    }
    std::set<std::string>& doors = table[folder[0]];
    for (const std::string& name : Quoted(cells[3])) doors.insert(IsTop(TopOf(name)) ? name : "common/" + name);
  }
  return table;
}

const Table& Doors() {
  static const Table doors = TableOf(Read(Root() / "docs/ARCHITECTURE.md"));
  return doors;
}

bool LiesIn(const std::string& path, const std::string& folder) {
  return path == folder || path.compare(0, folder.size() + 1, folder + "/") == 0;
}

// The folder of the table in which a file lies; empty: none.
std::string RoomOf(const std::string& path, const Table& table) {
  std::string room;
  for (const auto& [folder, doors] : table) {
    if (LiesIn(path, folder) && folder.size() > room.size()) room = folder;
  }
  return room;
}

bool MayInclude(const std::string& room, const std::string& path, const Table& table) {
  if (LiesIn(path, room)) return true;
  const auto row = table.find(room);
  if (path == "proto/grpc")
    return row != table.end() && row->second.contains(path);  // not the services with the messages
  return row != table.end() && std::any_of(row->second.begin(), row->second.end(),
                                           [&path](const std::string& door) { return LiesIn(path, door); });
}

// What a line includes of ours: a path, or what stands for generated headers; empty: nothing.
std::string IncludeOf(const std::string& line) {
  static const std::regex ours(R"re(^\s*#\s*include\s*["<]((kernels|common|edge|cloud|deploy|tests)/[^">]+)[">].*)re");
  static const std::regex wire(R"re(^\s*#\s*include\s*["<]([^">]*/)?v\d+/[^">]*?(\.grpc)?\.pb\.h[">].*)re");
  std::smatch match;
  if (line.find('#') == std::string::npos) return "";
  if (std::regex_match(line, match, ours)) return match[1];
  if (std::regex_match(line, match, wire)) return match[2].matched ? "proto/grpc" : "proto/messages";
  return "";
}

// What is wrong with a door by itself: kernels <- common <- {edge, cloud, deploy}, and never sideways. Empty: nothing.
std::string WrongWith(const std::string& from, const std::string& to) {
  const std::string below = TopOf(from), above = TopOf(to);
  if (above == "proto" && below != "kernels") return "";
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
      const auto row = doors.find(room);
      for (const auto& [other, unused] : doors) {
        // Of a door into a part of a room the room counts; a name that stands for many rooms leads to all of them.
        const auto leads_there = [&other](const std::string& door) {
          return LiesIn(door, other) || LiesIn(other, door);
        };
        if (row != doors.end() && std::any_of(row->second.begin(), row->second.end(), leads_there) && visit(other)) {
          return true;
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

// Calls see(file, line) for every line of ours.
void ForEachLine(const std::function<void(const std::string& file, const std::string& line)>& see) {
  for (const char* top : {"kernels", "common", "edge", "cloud", "deploy"}) {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(Root() / top)) {
      const std::string extension = entry.path().extension();
      if (extension != ".h" && extension != ".cc" && extension != ".cu") continue;
      const std::string file = fs::relative(entry.path(), Root());
      std::ifstream in(entry.path());
      for (std::string line; std::getline(in, line);) see(file, line);
    }
  }
}

TEST(Doors, EveryIncludeGoesThroughOne) {
  int n_includes = 0;
  ForEachLine([&](const std::string& file, const std::string& line) {
    const std::string included = IncludeOf(line);
    if (included.empty()) return;
    ++n_includes;
    const std::string room = RoomOf(file, Doors());
    EXPECT_NE(room, "") << file << ": its folder is not in the table of docs/ARCHITECTURE.md";
    EXPECT_TRUE(MayInclude(room, included, Doors()))
        << file << ": " << line << ": there is no door for " << room << " to " << included;
  });
  EXPECT_GT(n_includes, 500) << "the includes were not found";
}

// From "May include" to the end of the sentence, or of the page.
std::string MayIncludeOf(const std::string& readme) {
  const size_t begin = readme.find("May include");
  if (begin == std::string::npos) return "";
  static const std::regex end(R"([.;]\s|[.;]$|, never)");
  std::smatch match;
  const std::string rest = readme.substr(begin);
  return std::regex_search(rest, match, end) ? rest.substr(0, static_cast<size_t>(match.position())) : rest;
}

TEST(Doors, ReadmesSayWhatTheTableSays) {
  for (const auto& [room, doors] : Doors()) {
    if (room == "kernels" || room == "proto") continue;  // they include nothing of ours, and say so in their own words
    const std::string sentence = MayIncludeOf(Read(Root() / room / "README.md"));
    EXPECT_NE(sentence, "") << room << "/README.md does not say what it may include";
    std::set<std::string> said;
    for (const std::string& name : Quoted(sentence)) {
      if (IsTop(TopOf(name))) said.insert(name);
    }
    EXPECT_EQ(said, doors) << room << "/README.md";
  }
}

// Steady time is common/clock's; who reads the wall clock is few and known.
TEST(Doors, TheWallClockIsReadForLogsAndDatesAlone) {
  const std::set<std::string> may = {"common/http/connection.cc",     // HTTP's Date
                                     "common/serving/http_front.cc",  // OpenAI's created
                                     "common/text/chat_template.cc",  // the date that a template writes into its prompt
                                     "deploy/demo/demo.cc"};          // when a report was made
  const char* const readers[] = {
      "absl::Now(", "absl::GetCurrentTimeNanos", "system_clock", "gettimeofday(", "CLOCK_REALTIME", "time(nullptr)"};
  std::set<std::string> found;
  ForEachLine([&](const std::string& file, const std::string& line) {
    const auto reads = [&line](const char* reader) { return line.find(reader) != std::string::npos; };
    if (std::none_of(std::begin(readers), std::end(readers), reads)) return;
    found.insert(file);
    EXPECT_TRUE(may.contains(file)) << file << ": " << line << ": expected SteadyNow() of common/clock/steady.h";
  });
  EXPECT_EQ(found, may) << "the list above is too long";
}

// ---- The table and this test themselves -----------------------------------------------------------------------------

TEST(Doors, TableIsOneWay) {
  EXPECT_GT(Doors().size(), 20u);
  for (const auto& [from, doors] : Doors()) {
    EXPECT_TRUE(fs::is_directory(Root() / from)) << from;
    for (const std::string& to : doors) {
      EXPECT_EQ(WrongWith(from, to), "");
      EXPECT_TRUE(to == "proto/grpc" || fs::exists(Root() / to)) << from << " -> " << to;
    }
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
  EXPECT_NE(WrongWith("kernels", "proto"), "");
  EXPECT_EQ(CircleIn({{"common/a", {"common/b"}}, {"common/b", {"kernels"}}, {"edge/c", {"common"}}}), "");
  EXPECT_NE(CircleIn({{"common/a", {"common/b"}}, {"common/b", {"common/a"}}}), "");
  EXPECT_EQ(CircleIn({{"common/a", {"common/b"}}, {"common/b", {"common/c"}}, {"common/c", {"common/a"}}}),
            "common/a -> common/b -> common/c -> common/a");
  EXPECT_NE(CircleIn({{"edge/a", {"common", "edge/b"}}, {"edge/b", {"edge/c"}}, {"edge/c", {"edge/a"}}}), "");
  EXPECT_NE(CircleIn({{"common/a", {"common"}}, {"common/b", {"common/a"}}}), "");
  EXPECT_NE(CircleIn({{"common/a", {"common/b/one.h"}}, {"common/b", {"common/a"}}}), "") << "a header is a door, too";
}

TEST(Doors, TablesAreRead) {
  const Table table = TableOf(
      "# Page\n| folder | what | may include |\n|---|---|---|\n| `common/a` | some | `b`, `c/one.h`, `kernels/formats` "
      "|\n"
      "| `edge/x` | | `proto`, `common` |\n\n| `common/z` | no row of it | |\n");
  ASSERT_EQ(table.size(), 2u);
  EXPECT_THAT(table.at("common/a"), ElementsAre("common/b", "common/c/one.h", "kernels/formats"));
  EXPECT_EQ(RoomOf("common/a/deep/file.h", table), "common/a");
  EXPECT_EQ(RoomOf("common/ab/file.h", table), "");
  EXPECT_TRUE(MayInclude("common/a", "common/a/own.h", table));
  EXPECT_TRUE(MayInclude("common/a", "common/b/deep/file.h", table));
  EXPECT_TRUE(MayInclude("common/a", "common/c/one.h", table));
  EXPECT_FALSE(MayInclude("common/a", "common/c/two.h", table));
  EXPECT_FALSE(MayInclude("common/a", "kernels/ops.h", table));
  EXPECT_FALSE(MayInclude("common/a", "proto/messages", table));
  EXPECT_TRUE(MayInclude("edge/x", "proto/messages", table));
  EXPECT_FALSE(MayInclude("edge/x", "proto/grpc", table));
}

TEST(Doors, IncludesAreRecognised) {
  EXPECT_EQ(IncludeOf("#include \"common/engine/core.h\"  // why"), "common/engine/core.h");
  EXPECT_EQ(IncludeOf("#include \"updraft/v1/inference.pb.h\""), "proto/messages");
  EXPECT_EQ(IncludeOf("#include <updraft/v1/inference.grpc.pb.h>"), "proto/grpc");
  EXPECT_EQ(IncludeOf("#include <vector>"), "");
  EXPECT_EQ(MayIncludeOf("x. May include: `a.h` (b), `c`. Read first: `d.h`."), "May include: `a.h` (b), `c`");
  EXPECT_THAT(Quoted("`a/{b,c}.h`, `d`"), ElementsAre("a/b.h", "a/c.h", "d"));
}

}  // namespace
}  // namespace updraft
