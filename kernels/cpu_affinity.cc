#include "kernels/cpu_affinity.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <memory>
#include <utility>

namespace updraft::kernels {
namespace {

// A mask with room for n_cpus, empty.
class CpuMask {
 public:
  explicit CpuMask(int n_cpus) : bytes_(CPU_ALLOC_SIZE(n_cpus)), set_(CPU_ALLOC(n_cpus)) {
    if (set_ != nullptr) CPU_ZERO_S(bytes_, set_.get());
  }
  bool ok() const { return set_ != nullptr; }
  cpu_set_t* set() { return set_.get(); }
  size_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(cpu_set_t* set) const { CPU_FREE(set); }
  };
  size_t bytes_;
  std::unique_ptr<cpu_set_t, Free> set_;
};

std::vector<int> CurrentCpus() {
  std::vector<int> cpus;
  // The mask has to be large enough for the kernel's own; grow it until the call succeeds.
  for (int n_cpus = 1024; n_cpus <= 1 << 20; n_cpus *= 2) {
    CpuMask mask(n_cpus);
    if (!mask.ok()) break;
    if (sched_getaffinity(0, mask.bytes(), mask.set()) != 0) continue;
    for (int cpu = 0; cpu < n_cpus; ++cpu) {
      if (CPU_ISSET_S(cpu, mask.bytes(), mask.set())) cpus.push_back(cpu);
    }
    break;
  }
  return cpus;
}

bool SetCpus(pthread_t thread, const std::vector<int>& cpus) {
  CpuMask mask(*std::max_element(cpus.begin(), cpus.end()) + 1);
  if (!mask.ok()) return false;
  for (const int cpu : cpus) CPU_SET_S(cpu, mask.bytes(), mask.set());
  return pthread_setaffinity_np(thread, mask.bytes(), mask.set()) == 0;
}

// What PinThisThread did to this thread.
struct Pin {
  int cpu = -1;  // asked for last; -1: none
  bool done = false;
  std::vector<int> before;  // once done
};
thread_local Pin this_thread;

}  // namespace

std::vector<int> AllowedCpus() { return this_thread.before.empty() ? CurrentCpus() : this_thread.before; }

bool PinThisThread(int cpu) {
  Pin& pin = this_thread;
  if (pin.cpu == cpu) return pin.done;
  std::vector<int> before = AllowedCpus();
  pin.cpu = cpu;
  pin.done = SetCpus(pthread_self(), {cpu});
  if (pin.done) pin.before = std::move(before);
  return pin.done;
}

bool ThisThreadIsPinned() { return !this_thread.before.empty(); }

bool SetCpus(std::thread& thread, const std::vector<int>& cpus) { return SetCpus(thread.native_handle(), cpus); }

}  // namespace updraft::kernels
