#include "kernels/cpu_topology.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <tuple>
#include <utility>

namespace updraft::kernels {
namespace {

constexpr size_t kMaxFileBytes = size_t{64} << 10;  // a list of every second CPU of 16000

std::optional<std::string> ReadSmallFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return std::nullopt;
  std::string text(kMaxFileBytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  if (text.size() > kMaxFileBytes) return std::nullopt;
  return text;
}

std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  return text;
}

// Digits alone: neither sign nor space.
std::optional<int> ParseNumber(std::string_view text) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (value > static_cast<uint32_t>(std::numeric_limits<int>::max())) return std::nullopt;
  return static_cast<int>(value);
}

std::optional<CpuRange> ParseRange(std::string_view text) {
  const size_t dash = text.find('-');
  const std::optional<int> first = ParseNumber(text.substr(0, dash));
  const std::optional<int> last = dash == std::string_view::npos ? first : ParseNumber(text.substr(dash + 1));
  if (!first || !last || *last < *first) return std::nullopt;
  return CpuRange{*first, *last};
}

std::optional<CpuList> ReadCpuList(const std::string& path) {
  const std::optional<std::string> text = ReadSmallFile(path);
  return text ? ParseCpuList(*text) : std::nullopt;
}

struct Node {
  int id = 0;
  CpuList cpus;
};

// By id, those whose list can be read.
std::vector<Node> ReadNodes(const std::string& folder) {
  std::vector<Node> nodes;
  std::error_code error;
  std::filesystem::directory_iterator at(folder, error);
  for (; !error && at != std::filesystem::directory_iterator(); at.increment(error)) {
    const std::string name = at->path().filename().string();
    const std::optional<int> id = name.starts_with("node") ? ParseNumber(name.substr(4)) : std::nullopt;
    if (!id) continue;
    if (auto cpus = ReadCpuList(at->path().string() + "/cpulist")) nodes.push_back({*id, *std::move(cpus)});
  }
  std::sort(nodes.begin(), nodes.end(), [](const Node& a, const Node& b) { return a.id < b.id; });
  return nodes;
}

int NodeOf(const std::vector<Node>& nodes, int cpu) {
  for (const Node& node : nodes) {
    if (Contains(node.cpus, cpu)) return node.id;
  }
  return -1;
}

int SiblingsBefore(const CpuList& siblings, int cpu, const std::vector<int>& cpus) {
  if (!Contains(siblings, cpu)) return 0;  // a list that leaves out its own CPU says nothing about it
  return static_cast<int>(
      std::count_if(cpus.begin(), cpus.end(), [&](int other) { return other < cpu && Contains(siblings, other); }));
}

}  // namespace

std::optional<CpuList> ParseCpuList(std::string_view text) {
  CpuList list;
  text = Trimmed(text);
  if (text.empty()) return list;
  while (true) {
    const size_t comma = text.find(',');
    const std::optional<CpuRange> range = ParseRange(text.substr(0, comma));
    if (!range) return std::nullopt;
    list.push_back(*range);
    if (comma == std::string_view::npos) return list;
    text.remove_prefix(comma + 1);
  }
}

bool Contains(const CpuList& list, int cpu) {
  return std::any_of(list.begin(), list.end(), [cpu](CpuRange r) { return r.first <= cpu && cpu <= r.last; });
}

std::vector<CpuPlace> ReadTopology(const std::string& sysfs, const std::vector<int>& cpus) {
  const std::string system = sysfs + "/devices/system/";
  const std::vector<Node> nodes = ReadNodes(system + "node");
  std::vector<CpuPlace> places;
  for (const int cpu : cpus) {
    const std::string topology = system + "cpu/cpu" + std::to_string(cpu) + "/topology/";
    CpuPlace place{.cpu = cpu, .node = NodeOf(nodes, cpu)};
    if (const auto siblings = ReadCpuList(topology + "thread_siblings_list")) {
      place.sibling = SiblingsBefore(*siblings, cpu, cpus);
    }
    if (const auto text = ReadSmallFile(topology + "physical_package_id")) {
      place.package = ParseNumber(Trimmed(*text)).value_or(-1);
    }
    places.push_back(place);
  }
  return places;
}

std::vector<int> CpusOfThreads(std::vector<CpuPlace> places, int n_threads) {
  if (places.empty()) return {};
  const auto n_used = std::min(places.size(), static_cast<size_t>(std::max(0, n_threads)));
  std::sort(places.begin(), places.end(), [](const CpuPlace& a, const CpuPlace& b) {
    return std::tie(a.sibling, a.node, a.package, a.cpu) < std::tie(b.sibling, b.node, b.package, b.cpu);
  });
  places.resize(n_used);
  std::sort(places.begin(), places.end(), [](const CpuPlace& a, const CpuPlace& b) {
    return std::tie(a.node, a.package, a.sibling, a.cpu) < std::tie(b.node, b.package, b.sibling, b.cpu);
  });
  std::vector<int> cpus;
  cpus.reserve(static_cast<size_t>(std::max(0, n_threads)));
  for (int thread = 0; thread < n_threads; ++thread) cpus.push_back(places[thread % n_used].cpu);
  return cpus;
}

}  // namespace updraft::kernels
