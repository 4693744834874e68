#include "deploy/train/workers.h"

#include <ATen/Parallel.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <thread>
#include <vector>

#include "kernels/cpu_affinity.h"
#include "kernels/cpu_topology.h"

namespace updraft::train {

namespace {

int CountCores() {
  if (std::getenv("OMP_NUM_THREADS") != nullptr) return std::max(1, at::get_num_threads());
  const std::vector<kernels::CpuPlace> places = kernels::ReadTopology("/sys", kernels::AllowedCpus());
  const auto cores = std::count_if(places.begin(), places.end(), [](const auto& place) { return place.sibling == 0; });
  return std::max(1, static_cast<int>(cores));
}

}  // namespace

int WorkerCount() {
  static const int count = CountCores();  // before any worker changes what libtorch says for its own thread
  return count;
}

namespace {

// A BLAS with threads of its own shares them out among concurrent calls as they come: with several workers that is
// slower, and the sums, which depend on how a product is cut, differ from run to run.
void KeepBlasToOneThread() {
  using SetThreads = void (*)(int);
  static const auto set_threads = reinterpret_cast<SetThreads>(dlsym(RTLD_DEFAULT, "openblas_set_num_threads"));
  if (set_threads != nullptr) set_threads(1);
}

}  // namespace

void RunOnWorkers(int workers, const std::function<void(int)>& body) {
  if (workers <= 1) return body(0);
  KeepBlasToOneThread();
  std::vector<std::exception_ptr> errors(static_cast<size_t>(workers));
  std::vector<std::thread> threads;
  for (int worker = 0; worker < workers; ++worker) {
    threads.emplace_back([&, worker] {
      try {
        at::set_num_threads(1);  // of this thread alone
        body(worker);
      } catch (...) {
        errors[static_cast<size_t>(worker)] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace updraft::train
