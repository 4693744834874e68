#include "common/memory/available.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace updraft {
namespace {

// Version 1 says "no limit" by the largest number of whole pages.
constexpr uint64_t kNoLimit = uint64_t{1} << 60;

std::optional<uint64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  std::string word;
  uint64_t number = 0;
  if (!(file >> word) || !absl::SimpleAtoi(word, &number)) return std::nullopt;  // "max" is no number
  return number;
}

// The number after `name` at the beginning of a line: "inactive_file 4096", "MemAvailable:  1024 kB".
uint64_t ReadField(const std::string& path, std::string_view name) {
  std::ifstream file(path);
  std::string word;
  uint64_t number = 0;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    if (words >> word >> number && word == name) return number;
  }
  return 0;
}

// How one version of control groups says it.
struct Version {
  const char* mount_type;
  std::vector<const char*> limits;
  const char* usage;
  std::vector<const char*> reclaimable;  // of memory.stat, with what lies below
};

const Version& V2() {
  static const Version version{
      "cgroup2", {"memory.max", "memory.high"}, "memory.current", {"active_file", "inactive_file"}};
  return version;
}
const Version& V1() {
  static const Version version{
      "cgroup", {"memory.limit_in_bytes"}, "memory.usage_in_bytes", {"total_active_file", "total_inactive_file"}};
  return version;
}

// A space in a path of mountinfo stands as \040.
std::string Unescaped(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto digit = [&](size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '7'; };
    if (text[i] == '\\' && digit(i + 1) && digit(i + 2) && digit(i + 3)) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

struct Mount {
  std::string root;   // the path in the hierarchy that is mounted
  std::string point;  // where
};

// proc(5), mountinfo: "36 35 98:0 /root /point options fields... - type source options".
std::optional<Mount> FindMount(const std::string& proc, const Version& version) {
  std::ifstream file(absl::StrCat(proc, "/self/mountinfo"));
  for (std::string line; std::getline(file, line);) {
    const std::vector<std::string> halves = absl::StrSplit(line, absl::MaxSplits(" - ", 1));
    if (halves.size() != 2) continue;
    const std::vector<std::string> before = absl::StrSplit(halves[0], ' ');
    const std::vector<std::string> after = absl::StrSplit(halves[1], ' ');
    if (before.size() < 5 || after.size() < 3 || after[0] != version.mount_type) continue;
    const std::vector<std::string> options = absl::StrSplit(after[2], ',');
    const bool of_memory = std::find(options.begin(), options.end(), "memory") != options.end();
    if (&version == &V1() && !of_memory) continue;
    return Mount{Unescaped(before[3]), Unescaped(before[4])};
  }
  return std::nullopt;
}

// cgroups(7): "4:memory:/path" of version 1, "0::/path" of version 2.
std::optional<std::string> PathOfSelf(const std::string& proc, const Version& version) {
  std::ifstream file(absl::StrCat(proc, "/self/cgroup"));
  for (std::string line; std::getline(file, line);) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    const std::vector<std::string> controllers = absl::StrSplit(parts[1], ',');
    const bool of_memory = std::find(controllers.begin(), controllers.end(), "memory") != controllers.end();
    if (&version == &V1() ? of_memory : parts[0] == "0" && parts[1].empty()) return parts[2];
  }
  return std::nullopt;
}

void Bound(const AvailableMemory& by, AvailableMemory& least) {
  if (by.bytes < least.bytes) least = by;
}

// What the group whose files are in `folder` has left.
void BoundByGroup(const std::string& folder, const std::string& name, const Version& version, AvailableMemory& least) {
  const std::optional<uint64_t> usage = ReadNumber(absl::StrCat(folder, "/", version.usage));
  if (!usage) return;
  for (const char* limit_file : version.limits) {
    const std::optional<uint64_t> limit = ReadNumber(absl::StrCat(folder, "/", limit_file));
    if (!limit || *limit >= kNoLimit) continue;
    uint64_t reclaimable = 0;
    for (const char* field : version.reclaimable) {
      reclaimable += ReadField(absl::StrCat(folder, "/memory.stat"), field);
    }
    const uint64_t held = *usage - std::min(*usage, reclaimable);
    Bound({.bytes = *limit - std::min(*limit, held),
           .source = absl::StrFormat("cgroup '%s': %s of %s, %s in use", name, limit_file, ShowBytes(*limit),
                                     ShowBytes(held))},
          least);
  }
}

void BoundByGroups(const std::string& root, const Version& version, AvailableMemory& least) {
  const std::string proc = root + "/proc";
  const std::optional<Mount> mount = FindMount(proc, version);
  const std::optional<std::string> self = PathOfSelf(proc, version);
  if (!mount || !self) return;
  // In a container the path may be the host's, of which the mount shows a part, or one that leads out of the mount.
  std::string path = *self;
  if (mount->root != "/") {
    const bool within = path == mount->root || absl::StartsWith(path, mount->root + "/");
    path = within ? path.substr(mount->root.size()) : "/";
  }
  if (absl::StrContains(path, "..")) path = "/";
  while (!path.empty() && path.back() == '/') path.pop_back();
  for (;;) {
    BoundByGroup(root + mount->point + path, path.empty() ? "/" : path, version, least);
    if (path.empty()) return;
    path.resize(path.rfind('/'));
  }
}

// proc(5): "Max address space  4194304000  unlimited  bytes". What is mapped and never touched counts, too.
void BoundByAddressSpace(const std::string& proc, AvailableMemory& least) {
  constexpr std::string_view kName = "Max address space";
  std::ifstream file(absl::StrCat(proc, "/self/limits"));
  for (std::string line; std::getline(file, line);) {
    if (!absl::StartsWith(line, std::string(kName))) continue;
    std::istringstream words(line.substr(kName.size()));
    uint64_t limit = 0;
    if (!(words >> limit)) return;  // "unlimited" is no number
    const uint64_t used = 1024 * ReadField(absl::StrCat(proc, "/self/status"), "VmSize:");
    Bound({.bytes = limit - std::min(limit, used),
           .source = absl::StrFormat("the address space of this process (ulimit -v): %s, %s in use", ShowBytes(limit),
                                     ShowBytes(used)),
           .less_mapped = true},
          least);
    return;
  }
}

}  // namespace

AvailableMemory ReadAvailableMemory(const std::string& root) {
  AvailableMemory least;
  const uint64_t available = 1024 * ReadField(root + "/proc/meminfo", "MemAvailable:");
  if (available > 0) Bound({.bytes = available, .source = "/proc/meminfo: MemAvailable"}, least);
  BoundByAddressSpace(root + "/proc", least);
  BoundByGroups(root, V2(), least);
  BoundByGroups(root, V1(), least);
  return least;
}

std::string ShowBytes(uint64_t bytes) {
  const double n = static_cast<double>(bytes);
  if (n >= 0x1p30) return absl::StrFormat("%.1f GiB", n / 0x1p30);
  if (n >= 0x1p20) return absl::StrFormat("%.1f MiB", n / 0x1p20);
  if (n >= 0x1p10) return absl::StrFormat("%.1f KiB", n / 0x1p10);
  return absl::StrFormat("%d bytes", bytes);
}

}  // namespace updraft
