#include "common/gguf/mapping_guard.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <mutex>

namespace updraft::gguf {

// The handler reads these at any moment and takes no lock: they stay in their list for good, and `end` is 0 while the
// other fields change.
class MappingGuard {
 public:
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::atomic<bool> lost{false};
  bool in_use = false;  // mutex()'s
  MappingGuard* next = nullptr;
};

namespace {

static_assert(std::atomic<uintptr_t>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

std::atomic<MappingGuard*> first_guard{nullptr};
struct sigaction previous_action;

std::mutex& mutex() {
  static std::mutex* const m = new std::mutex;  // outlives static objects that hold mappings
  return *m;
}

// Async-signal-safe. The system call itself, as sanitizers replace the function.
bool MapZeros(uintptr_t begin, uintptr_t end) {
  const long mapped =
      syscall(SYS_mmap, begin, end - begin, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
  return mapped == static_cast<long>(begin);
}

bool Rescue(uintptr_t address) {
  for (MappingGuard* guard = first_guard.load(std::memory_order_acquire); guard != nullptr; guard = guard->next) {
    const uintptr_t end = guard->end.load(std::memory_order_acquire);
    const uintptr_t begin = guard->begin.load(std::memory_order_acquire);
    if (guard->end.load(std::memory_order_acquire) != end) continue;  // it is being given another mapping
    if (end == 0 || address < begin || address >= end) continue;
    guard->lost.store(true, std::memory_order_release);
    return MapZeros(begin, end);
  }
  return false;
}

void OnBusError(int signal_number, siginfo_t* info, void* context) {
  const int saved = errno;
  const bool rescued = Rescue(reinterpret_cast<uintptr_t>(info->si_addr));
  errno = saved;
  if (rescued) return;
  if ((previous_action.sa_flags & SA_SIGINFO) != 0) {
    previous_action.sa_sigaction(signal_number, info, context);
  } else if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN) {
    previous_action.sa_handler(signal_number);
  } else {
    signal(signal_number, SIG_DFL);  // on return the access is tried again
  }
}

void InstallHandler() {
  struct sigaction action = {};
  action.sa_sigaction = OnBusError;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, &previous_action);
}

}  // namespace

MappingGuard* Watch(std::span<const std::byte> mapping) {
  static std::once_flag installed;
  std::call_once(installed, InstallHandler);
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(mapping.data());
  const uintptr_t end = (begin + mapping.size() + page - 1) / page * page;
  const std::lock_guard<std::mutex> lock(mutex());
  MappingGuard* guard = first_guard.load(std::memory_order_relaxed);
  while (guard != nullptr && guard->in_use) guard = guard->next;
  if (guard == nullptr) {
    guard = new MappingGuard;
    guard->next = first_guard.load(std::memory_order_relaxed);
    first_guard.store(guard, std::memory_order_release);
  }
  guard->in_use = true;
  guard->lost.store(false, std::memory_order_relaxed);
  guard->begin.store(begin, std::memory_order_release);
  guard->end.store(end, std::memory_order_release);
  return guard;
}

void Release(MappingGuard* guard) {
  const std::lock_guard<std::mutex> lock(mutex());
  guard->end.store(0, std::memory_order_release);
  guard->in_use = false;
}

bool IsLost(const MappingGuard* guard) { return guard->lost.load(std::memory_order_acquire); }
void SetLost(MappingGuard* guard) { guard->lost.store(true, std::memory_order_release); }

}  // namespace updraft::gguf
