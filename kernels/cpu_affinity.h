// Which CPUs threads may run on. Linux keeps this per thread, and a thread starts with what its creator has.
#ifndef UPDRAFT_KERNELS_CPU_AFFINITY_H_
#define UPDRAFT_KERNELS_CPU_AFFINITY_H_

#include <thread>
#include <vector>

namespace updraft::kernels {

// CPU numbers, ascending. Of a thread that PinThisThread confined: what it had before, since that is what there is for
// other threads. Empty where the system does not say.
std::vector<int> AllowedCpus();

// Confines the calling thread to one CPU, for the rest of its life and for all threads that it starts from then on.
// Asking again for the same CPU is cheap and does nothing: it makes no system call, it does not undo what someone else
// changed in between, and it returns what the first call did. False: the system refused, and the thread runs where it
// did.
bool PinThisThread(int cpu);

// True once PinThisThread has confined the calling thread.
bool ThisThreadIsPinned();

// Confines a running thread to `cpus`, not empty. False: the system refused.
bool SetCpus(std::thread& thread, const std::vector<int>& cpus);

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_AFFINITY_H_
