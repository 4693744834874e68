// Where CPUs lie: NUMA nodes, packages and hyper-threads as Linux states them in sysfs, and the order in which threads
// that work side by side should take them. Reads files and computes; cpu_affinity.h changes something.
#ifndef UPDRAFT_KERNELS_CPU_TOPOLOGY_H_
#define UPDRAFT_KERNELS_CPU_TOPOLOGY_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace updraft::kernels {

// CPU numbers first, first + 1, ..., last.
struct CpuRange {
  int first = 0;
  int last = 0;
};
// Kept as ranges and never spelled out, so that a list costs memory for its text and not for what it claims.
using CpuList = std::vector<CpuRange>;

// The text of a sysfs list such as "0-3,8,10-11\n". An empty list is one (a node that has memory alone); nullopt when
// malformed.
std::optional<CpuList> ParseCpuList(std::string_view text);
bool Contains(const CpuList& list, int cpu);

struct CpuPlace {
  int cpu = 0;
  int node = -1;     // NUMA node; -1: not stated
  int package = -1;  // socket; -1: not stated
  int sibling = 0;   // how many of the CPUs asked for come before this one on the same physical core
};

// Places of `cpus`, in that order. Reads `sysfs`/devices/system/node/node*/cpulist and, per CPU,
// `sysfs`/devices/system/cpu/cpu*/topology/{thread_siblings_list,physical_package_id}. What is missing or malformed
// counts as not stated, and a CPU of which no siblings are stated as a core of its own: never an error.
std::vector<CpuPlace> ReadTopology(const std::string& sysfs, const std::vector<int>& cpus);

// The CPU of each of n_threads threads. Neighbouring threads share a node, and within a node different physical cores
// come before their hyper-threads. Threads that do not fill all CPUs get physical cores, of every node, before any
// hyper-thread: two hyper-threads read memory hardly faster than one. More threads than CPUs begin again at the first
// CPU. Without a stated topology this is the order of CPU numbers. Empty where `places` is.
std::vector<int> CpusOfThreads(std::vector<CpuPlace> places, int n_threads);

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_TOPOLOGY_H_
