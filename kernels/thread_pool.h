// A pool of threads for loops whose iterations are independent, made for work that comes every few microseconds: a
// worker spins briefly for the next loop before it parks, and the caller takes part in its own loop, so that a loop
// never waits for a sleeping worker to wake up.
#ifndef UPDRAFT_KERNELS_THREAD_POOL_H_
#define UPDRAFT_KERNELS_THREAD_POOL_H_

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <vector>

namespace updraft::kernels {

// The number of processors that this process may keep busy: its affinity mask, and the processor quota of its control
// group (v1 or v2) rounded down, since a throttled thread holds up all others. At least 1.
int AvailableCpus();

// Parts of the above, for tests. ParseCpuMax reads the text of a cgroup v2 `cpu.max` ("max 100000", "150000 100000")
// and gives processors, none when unlimited or malformed. CgroupCpus looks for the tightest limit from `path` (as in
// /proc/self/cgroup) up to the root of the hierarchy mounted at `mount`.
std::optional<double> ParseCpuMax(std::string_view text);
std::optional<double> CgroupCpus(const std::string& mount, const std::string& proc_self_cgroup);

class ThreadPool {
 public:
  // Starts n_threads - 1 workers, fewer where the system allows no more; the caller of Run is the last thread.
  // n_threads >= 1.
  explicit ThreadPool(int n_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  static constexpr int kMaxChunks = 0xffff;

  int n_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(chunk, thread) once for every chunk in [0, n_chunks), thread in [0, n_threads()), in no stated order,
  // and returns when all are done. Chunks are claimed one by one, so uneven chunks and disturbed threads even out.
  // n_chunks <= kMaxChunks. Called by one thread at a time; `body` must not throw and must not call Run.
  template <typename Body>
  void Run(int n_chunks, const Body& body) {
    RunErased(
        n_chunks,
        [](const void* context, int chunk, int thread) { (*static_cast<const Body*>(context))(chunk, thread); }, &body);
  }

 private:
  using Function = void (*)(const void* context, int chunk, int thread);

  void RunErased(int n_chunks, Function function, const void* context);
  void WorkerLoop(int thread);
  bool RunOneChunk(int thread);
  bool WaitForWork(uint64_t seen_state);

  // The loop in progress: generation (32 bits), number of chunks (16), next chunk to claim (16). Claiming is a
  // compare-and-swap of the whole word, so a thread that was asleep since an earlier loop cannot claim with stale
  // function_ and context_: these change only when every chunk of the loop before has been claimed and finished.
  std::atomic<uint64_t> state_{0};
  std::atomic<Function> function_{nullptr};
  std::atomic<const void*> context_{nullptr};
  std::atomic<uint32_t> n_done_{0};    // finished chunks of the loop in progress
  std::atomic<uint32_t> n_parked_{0};  // workers that sleep on wake_, or are about to
  std::atomic<uint32_t> wake_{0};      // changes whenever parked workers have to look again
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_THREAD_POOL_H_
