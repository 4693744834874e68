#include "kernels/thread_pool.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "kernels/cpu_topology.h"

namespace updraft::kernels {
namespace {

// Long enough to bridge the gap between two operations of a forward pass, short enough that an idle device stays idle.
constexpr std::chrono::microseconds kSpinTime{50};

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

constexpr uint64_t MakeState(uint32_t generation, int end, int next) {
  return static_cast<uint64_t>(generation) << 32 | static_cast<uint64_t>(end) << 16 | static_cast<uint64_t>(next);
}
constexpr int End(uint64_t state) { return static_cast<int>(state >> 16 & 0xffff); }
constexpr int NextChunk(uint64_t state) { return static_cast<int>(state & 0xffff); }

// A worker helps so many others at most. Looking at a segment costs a cache miss, and what is left over, the caller of
// Run does.
constexpr int kMaxHelped = 8;

// Walks through one thread's ranges, a few cache lines at a time.
class Asking {
 public:
  Asking(const MemoryAhead* ahead, int thread) {
    if (ahead != nullptr) ranges_ = ahead->of(thread);
  }
  bool done() const { return ranges_.empty(); }
  void Step() {
    constexpr int64_t kLine = 64;
    for (const MemoryAhead::Range& range : ranges_) {
      // Every range gets on in proportion to its length, as the loop will read them.
      const int64_t to = range.bytes * (step_ + 1) / kSteps;
      for (int64_t at = (range.bytes * step_ / kSteps + kLine - 1) / kLine * kLine; at < to; at += kLine) {
        __builtin_prefetch(static_cast<const char*>(range.from) + at, 0, 2);
      }
    }
    if (++step_ == kSteps) ranges_ = {};
  }

 private:
  static constexpr int64_t kSteps = 256;
  std::span<const MemoryAhead::Range> ranges_;
  int64_t step_ = 0;
};

int AffinityCpus() {
  const auto allowed = static_cast<int>(AllowedCpus().size());
  return allowed > 0 ? allowed : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

std::optional<std::string> ReadSmallFile(const std::string& path) {
  std::ifstream in(path);
  if (!in) return std::nullopt;
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// cgroup v1: quota and period in two files; a negative quota is unlimited.
std::optional<double> ReadCfsQuota(const std::string& folder) {
  const auto quota = ReadSmallFile(folder + "/cpu.cfs_quota_us");
  const auto period = ReadSmallFile(folder + "/cpu.cfs_period_us");
  if (!quota || !period) return std::nullopt;
  return ParseCpuMax(*quota + " " + *period);
}

}  // namespace

std::optional<double> ParseCpuMax(std::string_view text) {
  std::istringstream in{std::string(text)};
  double quota = 0;
  double period = 0;
  if (!(in >> quota >> period) || quota <= 0 || period <= 0) return std::nullopt;
  return quota / period;
}

std::optional<double> CgroupCpus(const std::string& mount, const std::string& proc_self_cgroup) {
  std::optional<double> limit;
  const auto tighten = [&limit](std::optional<double> found) {
    if (found && (!limit || *found < *limit)) limit = found;
  };
  std::istringstream lines(proc_self_cgroup);
  for (std::string line; std::getline(lines, line);) {  // hierarchy:controllers:path
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool v2 = controllers == ",,";
    if (!v2 && controllers.find(",cpu,") == std::string::npos) continue;
    const std::string root = v2 ? mount : mount + "/cpu";
    std::string path = line.substr(second + 1);
    while (true) {
      while (!path.empty() && path.back() == '/') path.pop_back();
      const std::string folder = root + path;
      if (v2) {
        if (const auto text = ReadSmallFile(folder + "/cpu.max")) tighten(ParseCpuMax(*text));
      } else {
        tighten(ReadCfsQuota(folder));
      }
      const size_t slash = path.rfind('/');
      if (slash == std::string::npos) break;
      path.resize(slash);
    }
  }
  return limit;
}

int AvailableCpus() {
  int cpus = AffinityCpus();
  if (const auto self = ReadSmallFile("/proc/self/cgroup")) {
    if (const auto limit = CgroupCpus("/sys/fs/cgroup", *self)) {
      // Compared before the conversion: a quota may be larger than any int.
      cpus = static_cast<int>(std::min<double>(cpus, std::max(1.0, std::floor(*limit + 1e-6))));
    }
  }
  return cpus;
}

void MemoryAhead::Add(int thread, Range range) {
  Ranges& ranges = ranges_[thread];
  if (range.bytes > 0 && ranges.n < kMaxRanges) ranges.at[ranges.n++] = range;
}

ThreadPool::ThreadPool(int n_threads, bool pin_threads)
    : pin_threads_(pin_threads), segments_(std::make_unique<Segment[]>(std::max(1, n_threads))) {
  const std::vector<int> allowed = AllowedCpus();
  if (pin_threads) cpus_ = CpusOfThreads(ReadTopology("/sys", allowed), std::max(1, n_threads));
  StartWorkers(n_threads, allowed);
}

void ThreadPool::StartWorkers(int n_threads, const std::vector<int>& allowed) {
  for (int thread = 1; thread < n_threads; ++thread) {
    try {
      workers_.emplace_back([this, thread] { WorkerLoop(thread); });
    } catch (const std::system_error&) {
      break;  // the system allows no more threads: slower, not wrong
    }
    if (!cpus_.empty()) {
      n_pinned_workers_ += SetCpus(workers_.back(), {cpus_[thread]}) ? 1 : 0;
    } else if (ThisThreadIsPinned()) {
      SetCpus(workers_.back(), allowed);  // or it would share its creator's one CPU
    }
  }
}

std::string ThreadPool::Describe() const {
  const int n = n_threads();
  std::string text = std::to_string(n) + (n == 1 ? " thread" : " threads");
  if (!pin_threads_) return text;
  return text + ", " + (n_pinned() == n ? "" : std::to_string(n_pinned()) + " ") + "pinned";
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  wake_.fetch_add(1);
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::RunErased(int n_chunks, Function function, const void* context, const MemoryAhead* ahead) {
  if (n_chunks <= 0) return;
  PinCaller();
  if (n_chunks == 1 || workers_.empty()) {
    for (int chunk = 0; chunk < n_chunks; ++chunk) function(context, chunk, 0);
    return;
  }
  function_.store(function, std::memory_order_relaxed);
  context_.store(context, std::memory_order_relaxed);
  ahead_.store(ahead, std::memory_order_release);  // what it points to may be new
  n_done_.store(0, std::memory_order_relaxed);
  const uint32_t generation = generation_.load(std::memory_order_relaxed) + 1;
  const int n_segments = n_threads();
  n_segments_.store(n_segments, std::memory_order_relaxed);
  for (int t = 0; t < n_segments; ++t) {
    const uint64_t state = MakeState(generation, SegmentBegin(n_chunks, t + 1), SegmentBegin(n_chunks, t));
    segments_[t].state.store(state, std::memory_order_release);
  }
  generation_.store(generation);  // sequentially consistent: ordered before the look at n_parked_
  if (n_parked_.load() > 0) {
    wake_.fetch_add(1);
    wake_.notify_all();
  }
  RunChunks(0, n_segments - 1);
  // What is left is in the hands of threads that run right now.
  for (int spins = 0; n_done_.load(std::memory_order_acquire) != static_cast<uint32_t>(n_chunks); ++spins) {
    if (spins < 4096) {
      Pause();
    } else {
      std::this_thread::yield();
    }
  }
}

// Runs chunks until the segments of `thread` and of the n_helped threads after it have none left.
void ThreadPool::RunChunks(int thread, int n_helped) {
  const int n_segments = n_segments_.load(std::memory_order_relaxed);
  for (int i = 0; i <= n_helped && i < n_segments; ++i) {
    std::atomic<uint64_t>& segment = segments_[(thread + i) % n_segments].state;
    uint64_t state = segment.load(std::memory_order_acquire);
    while (NextChunk(state) < End(state)) {
      const Function function = function_.load(std::memory_order_relaxed);
      const void* context = context_.load(std::memory_order_relaxed);
      if (segment.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
        function(context, NextChunk(state), thread);
        n_done_.fetch_add(1, std::memory_order_release);
        state = segment.load(std::memory_order_acquire);
      }
    }
  }
}

// Returns when there may be a new loop; false when the pool is being destroyed.
bool ThreadPool::WaitForWork(int thread, uint32_t seen_generation) {
  const auto unchanged = [&](std::memory_order order) {
    return generation_.load(order) == seen_generation && !stop_.load(order);
  };
  Asking asking(ahead_.load(std::memory_order_acquire), thread);
  const auto deadline = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int i = 0; i < 64; ++i) {
      if (!unchanged(std::memory_order_relaxed)) return !stop_.load();
      if (asking.done()) {
        Pause();
      } else {
        asking.Step();
      }
    }
  } while (std::chrono::steady_clock::now() < deadline);
  // Either the caller of Run sees n_parked_ > 0 after its store of generation_, or we see its generation_ after our
  // increment.
  const uint32_t wake = wake_.load();
  n_parked_.fetch_add(1);
  if (unchanged(std::memory_order_seq_cst)) wake_.wait(wake);
  n_parked_.fetch_sub(1);
  return !stop_.load();
}

void ThreadPool::WorkerLoop(int thread) {
  while (true) {
    const uint32_t generation = generation_.load(std::memory_order_acquire);
    RunChunks(thread, kMaxHelped);
    if (!WaitForWork(thread, generation)) return;
  }
}

}  // namespace updraft::kernels
