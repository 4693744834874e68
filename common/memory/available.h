// How much memory this process may still take before something is refused or killed.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

namespace updraft {

struct AvailableMemory {
  static constexpr uint64_t kUnknown = std::numeric_limits<uint64_t>::max();

  uint64_t bytes = kUnknown;  // kUnknown: nothing says
  // Where the number comes from, for a message: "cgroup '/a/b': memory.max of 512.0 MiB, 100.0 MiB in use", or
  // "/proc/meminfo: MemAvailable". Empty where nothing says.
  std::string source;
  bool less_mapped = false;  // what is mapped, such as a file, and not touched yet is taken off already
};

// The least of what each control group of this process has left, from its own up to the root (version 2: memory.max
// and memory.high, beyond which it is slowed to a crawl; version 1: memory.limit_in_bytes), of MemAvailable, and of the
// address space where that is limited (RLIMIT_AS). Pages of files count as free, since the kernel gives them back
// before it kills; swap does not count. Reads a few small files; what cannot be read does not bound. Formats: the
// kernel's admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst, proc(5). `root`: before every path, for tests.
AvailableMemory ReadAvailableMemory(const std::string& root = "");

// "1.5 GiB", "512.0 MiB", "17 bytes".
std::string ShowBytes(uint64_t bytes);

}  // namespace updraft
