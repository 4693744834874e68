// A pool of threads for loops whose iterations are independent, made for work that comes every few microseconds: a
// worker spins briefly for the next loop before it parks, and the caller takes part in its own loop, so that a loop
// never waits for a sleeping worker to wake up.
#ifndef UPDRAFT_KERNELS_THREAD_POOL_H_
#define UPDRAFT_KERNELS_THREAD_POOL_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <vector>

#include "kernels/cpu_affinity.h"

namespace updraft::kernels {

// The number of processors that this process may keep busy: the calling thread's affinity mask (from before it was
// pinned, if a pool pinned it), and the processor quota of its control group (v1 or v2) rounded down, since a throttled
// thread holds up all others. At least 1.
int AvailableCpus();

// Parts of the above, for tests. ParseCpuMax reads the text of a cgroup v2 `cpu.max` ("max 100000", "150000 100000")
// and gives processors, none when unlimited or malformed. CgroupCpus looks for the tightest limit from `path` (as in
// /proc/self/cgroup) up to the root of the hierarchy mounted at `mount`.
std::optional<double> ParseCpuMax(std::string_view text);
std::optional<double> CgroupCpus(const std::string& mount, const std::string& proc_self_cgroup);

// Memory that the next loop will probably read, by thread. A thread that waits for that loop asks its cache for it, so
// that memory is not idle while one thread does what cannot be cut. Only ever a hint: the ranges need not exist.
class MemoryAhead {
 public:
  struct Range {
    const void* from = nullptr;
    int64_t bytes = 0;
  };
  static constexpr int kMaxRanges = 4;  // of a thread

  explicit MemoryAhead(int n_threads) : ranges_(static_cast<size_t>(n_threads)) {}
  // Ranges beyond kMaxRanges are dropped.
  void Add(int thread, Range range);
  std::span<const Range> of(int thread) const { return {ranges_[thread].at, ranges_[thread].n}; }

 private:
  struct Ranges {
    Range at[kMaxRanges];
    size_t n = 0;
  };
  std::vector<Ranges> ranges_;
};

// The chunks that a thread begins with: [SegmentBegin(t), SegmentBegin(t + 1)) of n_chunks.
inline int SegmentBegin(int n_chunks, int thread, int n_threads) {
  return static_cast<int>(int64_t{n_chunks} * thread / n_threads);
}

class ThreadPool {
 public:
  // Starts n_threads - 1 workers, fewer where the system allows no more; the caller of Run is thread 0. n_threads >= 1.
  //
  // pin_threads: every thread stays on one CPU of those that the constructing thread is allowed, in the order of
  // CpusOfThreads (cpu_topology.h), so that what a thread touches first lies in memory near it and stays near it.
  //  * Workers are pinned before the constructor returns.
  //  * Thread 0 belongs to someone else, so it is pinned when it asks for work: by its first Run or PinCaller, for the
  //    rest of its life, and so is every other thread that calls later. It is not released afterwards, and neither are
  //    threads that it starts from then on, which inherit its one CPU; whoever must not be confined leaves Run to a
  //    thread of its own. (Pools made on a pinned thread are not confined: they use what it was allowed before.)
  //  * Pools do not know of each other: two pinned ones use the same CPUs.
  //  * What the system refuses to pin runs unpinned; n_pinned() tells.
  explicit ThreadPool(int n_threads, bool pin_threads = false);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int n_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // How many threads are pinned: all of n_threads(), unless the system refused or nobody has called Run so far. Of
  // thread 0 it says what became of the last caller. Called by who may call Run.
  int n_pinned() const { return n_pinned_workers_ + (caller_pinned_ ? 1 : 0); }

  bool pins() const { return pin_threads_; }

  // For people: "4 threads", "4 threads, pinned", "4 threads, 3 pinned".
  std::string Describe() const;

  int SegmentBegin(int n_chunks, int thread) const { return kernels::SegmentBegin(n_chunks, thread, n_threads()); }

  // Pins the calling thread as its first Run would, for work that is too small for Run. Does nothing in a pool that
  // does not pin; cheap when it has been done.
  void PinCaller() {
    if (!cpus_.empty()) caller_pinned_ = PinThisThread(cpus_[0]);
  }

  // Calls body(chunk, thread) once for every chunk in [0, n_chunks), thread in [0, n_threads()), and returns when all
  // are done. Every thread works through a segment of consecutive chunks, so that it reads memory as one stream, and
  // then helps others with theirs, so that uneven chunks and disturbed threads even out. More than kMaxChunks are run
  // as several loops. Called by one thread at a time; `body` must not throw and must not call Run.
  //
  // ahead: what waiting threads ask memory for afterwards; null: nothing. Must outlive the pool and not change.
  template <typename Body>
  void Run(int n_chunks, const Body& body, const MemoryAhead* ahead = nullptr) {
    for (int from = 0; from < n_chunks; from += kMaxChunks) {
      const auto part = [&body, from](int chunk, int thread) { body(from + chunk, thread); };
      RunErased(
          std::min(kMaxChunks, n_chunks - from),
          [](const void* context, int chunk, int thread) {
            (*static_cast<const decltype(part)*>(context))(chunk, thread);
          },
          &part, ahead);
    }
  }

 private:
  using Function = void (*)(const void* context, int chunk, int thread);
  static constexpr int kMaxChunks = 0xffff;  // of one loop: what a Segment can say

  // A thread's chunks of the loop in progress: generation (32 bits), end (16), next chunk to claim (16). Claiming is a
  // compare-and-swap of the whole word, so a thread that was asleep since an earlier loop cannot claim with stale
  // function_ and context_: these change only when every chunk of the loop before has been claimed and finished.
  struct alignas(64) Segment {
    std::atomic<uint64_t> state{0};
  };

  void StartWorkers(int n_threads, const std::vector<int>& allowed);
  void RunErased(int n_chunks, Function function, const void* context, const MemoryAhead* ahead);
  void WorkerLoop(int thread);
  void RunChunks(int thread, int n_helped);
  bool WaitForWork(int thread, uint32_t seen_generation);

  const bool pin_threads_;
  std::vector<int> cpus_;  // [n_threads] of a pool that pins; empty: nothing to pin to
  int n_pinned_workers_ = 0;
  bool caller_pinned_ = false;
  std::vector<std::thread> workers_;
  std::unique_ptr<Segment[]> segments_;  // [n_threads]
  std::atomic<int> n_segments_{1};       // known once all workers have started
  std::atomic<uint32_t> generation_{0};  // of the loop whose segments are all set
  std::atomic<Function> function_{nullptr};
  std::atomic<const void*> context_{nullptr};
  std::atomic<const MemoryAhead*> ahead_{nullptr};
  std::atomic<uint32_t> n_done_{0};    // finished chunks of the loop in progress
  std::atomic<uint32_t> n_parked_{0};  // workers that sleep on wake_, or are about to
  std::atomic<uint32_t> wake_{0};      // changes whenever parked workers have to look again
  std::atomic<bool> stop_{false};
};

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_THREAD_POOL_H_
