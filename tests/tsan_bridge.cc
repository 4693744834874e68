// Tells ThreadSanitizer about the five ways in which gRPC and Abseil hand memory from thread to thread. The
// distribution's gRPC and Abseil are not instrumented, so their atomics and futexes are out of its sight, and every
// hand-over would be reported as a race. Linked into every test of a ThreadSanitizer build, it stands before the
// libraries:
//
// - absl::Mutex: unlocking happens before the next locking. What gRPC's own threads pass under its locks follows.
// - absl::Status: what holders of one message do with it happens before the last of them lets go and frees it.
// - Completion callbacks: starting a batch of operations happens before the callback that ends it.
// - The end of a server's call: the last of its callbacks happens before OnDone.
// - The end of a server: that of its calls happens before it is destroyed, and so before what its handlers used is.
//
// Nothing is suppressed by this: two accesses that neither orders are still a race.
#include <dlfcn.h>
#include <grpc/grpc.h>
#include <grpcpp/support/server_callback.h>
#include <link.h>
#include <sanitizer/tsan_interface.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/options.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

#define UPDRAFT_UNSEEN __attribute__((no_sanitize("thread")))

namespace {

// The library's function that one here stands before.
template <typename Function>
UPDRAFT_UNSEEN Function* Next(const char* symbol) {
  void* found = dlsym(RTLD_NEXT, symbol);
  if (found == nullptr) {
    std::fprintf(stderr, "tsan_bridge: %s is in no library\n", symbol);
    std::abort();
  }
  return reinterpret_cast<Function*>(found);
}

// The mangled name of a member of a class of Abseil, whose inline namespace differs between distributions.
UPDRAFT_UNSEEN std::string AbslName(const char* rest) {
#define UPDRAFT_TEXT(x) #x
#define UPDRAFT_TEXT_OF(x) UPDRAFT_TEXT(x)
  const std::string space = UPDRAFT_TEXT_OF(ABSL_OPTION_INLINE_NAMESPACE_NAME);
  return "_ZN4absl" + std::to_string(space.size()) + space + rest;
}

}  // namespace

namespace absl {
ABSL_NAMESPACE_BEGIN

UPDRAFT_UNSEEN void Mutex::Lock() {
  static auto* const next = Next<void(Mutex*)>(AbslName("5Mutex4LockEv").c_str());
  next(this);
  __tsan_acquire(this);
}

UPDRAFT_UNSEEN bool Mutex::TryLock() {
  static auto* const next = Next<bool(Mutex*)>(AbslName("5Mutex7TryLockEv").c_str());
  const bool locked = next(this);
  if (locked) __tsan_acquire(this);
  return locked;
}

UPDRAFT_UNSEEN void Mutex::Unlock() {
  static auto* const next = Next<void(Mutex*)>(AbslName("5Mutex6UnlockEv").c_str());
  __tsan_release(this);
  next(this);
}

UPDRAFT_UNSEEN void Mutex::ReaderLock() {
  static auto* const next = Next<void(Mutex*)>(AbslName("5Mutex10ReaderLockEv").c_str());
  next(this);
  __tsan_acquire(this);
}

UPDRAFT_UNSEEN void Mutex::ReaderUnlock() {
  static auto* const next = Next<void(Mutex*)>(AbslName("5Mutex12ReaderUnlockEv").c_str());
  __tsan_release(this);  // before the writer that comes next
  next(this);
}

UPDRAFT_UNSEEN void Mutex::Await(const Condition& condition) {
  static auto* const next = Next<void(Mutex*, const Condition&)>(AbslName("5Mutex5AwaitERKNS0_9ConditionE").c_str());
  __tsan_release(this);
  next(this, condition);
  __tsan_acquire(this);
}

UPDRAFT_UNSEEN bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  static auto* const next = Next<bool(Mutex*, const Condition&, Duration)>(
      AbslName("5Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE").c_str());
  __tsan_release(this);
  const bool held = next(this, condition, timeout);
  __tsan_acquire(this);
  return held;
}

UPDRAFT_UNSEEN bool Mutex::AwaitWithDeadline(const Condition& condition, Time deadline) {
  static auto* const next = Next<bool(Mutex*, const Condition&, Time)>(
      AbslName("5Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE").c_str());
  __tsan_release(this);
  const bool held = next(this, condition, deadline);
  __tsan_acquire(this);
  return held;
}

UPDRAFT_UNSEEN void Mutex::LockWhen(const Condition& condition) {
  static auto* const next = Next<void(Mutex*, const Condition&)>(AbslName("5Mutex8LockWhenERKNS0_9ConditionE").c_str());
  next(this, condition);
  __tsan_acquire(this);
}

UPDRAFT_UNSEEN void CondVar::Wait(Mutex* mutex) {
  static auto* const next = Next<void(CondVar*, Mutex*)>(AbslName("7CondVar4WaitEPNS0_5MutexE").c_str());
  __tsan_release(mutex);
  next(this, mutex);
  __tsan_acquire(mutex);
}

UPDRAFT_UNSEEN bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  static auto* const next =
      Next<bool(CondVar*, Mutex*, Duration)>(AbslName("7CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE").c_str());
  __tsan_release(mutex);
  const bool expired = next(this, mutex, timeout);
  __tsan_acquire(mutex);
  return expired;
}

UPDRAFT_UNSEEN bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  static auto* const next =
      Next<bool(CondVar*, Mutex*, Time)>(AbslName("7CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE").c_str());
  __tsan_release(mutex);
  const bool expired = next(this, mutex, deadline);
  __tsan_acquire(mutex);
  return expired;
}

UPDRAFT_UNSEEN void Status::UnrefNonInlined(uintptr_t rep) {
  static auto* const next = Next<void(uintptr_t)>(AbslName("6Status15UnrefNonInlinedEm").c_str());
  // The library counts with an atomic that is out of sight. A lock per message (nearly) puts those who let go in order.
  static std::array<std::mutex, 1024> locks;
  std::lock_guard lock(locks[(rep >> 5) % locks.size()]);
  next(rep);
}

ABSL_NAMESPACE_END
}  // namespace absl

// ---- Completion callbacks ----

namespace {

using Functor = grpc_completion_queue_functor;
using FunctorRun = void (*)(Functor*, int);

// gRPC's C++ layer has a handful of functions that run callbacks. Each gets a slot, whose trampoline runs in its stead.
constexpr int kSlots = 16;
std::atomic<FunctorRun> originals[kSlots];

template <int kSlot>
UPDRAFT_UNSEEN void Trampoline(Functor* functor, int ok) {
  __tsan_acquire(functor);
  originals[kSlot].load(std::memory_order_relaxed)(functor, ok);
}

template <int... kSlot>
constexpr std::array<FunctorRun, sizeof...(kSlot)> Trampolines(std::integer_sequence<int, kSlot...>) {
  return {Trampoline<kSlot>...};
}
constexpr auto kTrampolines = Trampolines(std::make_integer_sequence<int, kSlots>());

UPDRAFT_UNSEEN int InCode(dl_phdr_info* object, size_t, void* address) {
  const auto wanted = reinterpret_cast<uintptr_t>(address);
  for (int i = 0; i < object->dlpi_phnum; ++i) {
    const auto& segment = object->dlpi_phdr[i];
    const uintptr_t begin = object->dlpi_addr + segment.p_vaddr;
    if (segment.p_type == PT_LOAD && (segment.p_flags & PF_X) != 0 && wanted >= begin &&
        wanted < begin + segment.p_memsz) {
      return 1;
    }
  }
  return 0;
}

// The tag of a callback is a functor, which begins with a function; that of a blocking call is an object, which begins
// with the address of a table of data.
UPDRAFT_UNSEEN void Announce(void* tag) {
  if (tag == nullptr) return;
  auto* functor = static_cast<Functor*>(tag);
  const FunctorRun run = functor->functor_run;
  for (const FunctorRun trampoline : kTrampolines) {
    if (run == trampoline) return __tsan_release(tag);
  }
  int slot = 0;
  for (; slot < kSlots; ++slot) {
    FunctorRun taken = originals[slot].load(std::memory_order_relaxed);
    if (taken == run) break;
    if (taken != nullptr) continue;
    if (dl_iterate_phdr(InCode, reinterpret_cast<void*>(run)) == 0) return;
    if (originals[slot].compare_exchange_strong(taken, run, std::memory_order_relaxed) || taken == run) break;
  }
  if (slot == kSlots) {
    std::fprintf(stderr, "tsan_bridge: more kinds of callbacks than slots\n");
    std::abort();
  }
  functor->functor_run = kTrampolines[static_cast<size_t>(slot)];
  __tsan_release(tag);
}

}  // namespace

extern "C" UPDRAFT_UNSEEN grpc_call_error grpc_call_start_batch(grpc_call* call, const grpc_op* ops, size_t n_ops,
                                                                void* tag, void* reserved) {
  static auto* const next =
      Next<grpc_call_error(grpc_call*, const grpc_op*, size_t, void*, void*)>("grpc_call_start_batch");
  Announce(tag);
  return next(call, ops, n_ops, tag, reserved);
}

// ---- The end of a server's call ----

namespace {

// Joined before the objects that were made before the first of them are destroyed.
class Threads {
 public:
  ~Threads() {
    for (std::thread& thread : threads_) thread.join();
  }
  void Run(std::function<void()> body) {
    std::lock_guard lock(mutex_);
    threads_.emplace_back(std::move(body));
  }

 private:
  std::mutex mutex_;
  std::vector<std::thread> threads_;
};

}  // namespace

// The library runs OnCancel and OnDone on threads of its own and counts a call's outstanding callbacks partly out of
// sight. Here each is a thread that is started in sight, and the count is kept here alone.
namespace {
Threads& CallThreads() {
  static Threads threads;
  return threads;
}
}  // namespace

// Whoever comes last of the handler and the cancellation calls this. The handler, which made the reactor, counts down
// in sight; the cancellation does not.
void grpc::internal::ServerCallbackCall::CallOnCancel(ServerReactor* reactor) {
  __tsan_acquire(&on_cancel_conditions_remaining_);
  if (reactor->InternalInlineable()) return reactor->OnCancel();
  Ref();
  CallThreads().Run([this, reactor] {
    reactor->OnCancel();
    MaybeDone();
  });
}

void grpc::internal::ServerCallbackCall::ScheduleOnDone(bool inline_ondone) {
  __tsan_acquire(&callbacks_outstanding_);
  if (inline_ondone) return CallOnDone();
  CallThreads().Run([this] { CallOnDone(); });
}

// ---- The end of a server ----

// It waits until an atomic count of its calls is 0. (That calls of other servers and of clients are ordered as well is
// more than the library does.)
namespace {
char calls_ended;
}  // namespace

extern "C" UPDRAFT_UNSEEN void grpc_call_unref(grpc_call* call) {
  static auto* const next = Next<void(grpc_call*)>("grpc_call_unref");
  __tsan_release(&calls_ended);
  next(call);
}

extern "C" UPDRAFT_UNSEEN void grpc_server_destroy(grpc_server* server) {
  static auto* const next = Next<void(grpc_server*)>("grpc_server_destroy");
  next(server);
  __tsan_acquire(&calls_ended);
}
