#include "kernels/cpu/host_memory.h"

#include <sys/mman.h>

#include <cstdlib>

#include "kernels/aligned_buffer.h"

namespace updraft::kernels {
namespace {

void FreeAligned(void* /*context*/, std::byte* data, size_t /*bytes*/) { std::free(data); }
void Unmap(void* /*context*/, std::byte* data, size_t bytes) { munmap(data, bytes); }

}  // namespace

Buffer AllocateHost(size_t bytes, MemoryUse use) {
  if (use == MemoryUse::kCache && bytes > 0) {
    // Zeroed, page-aligned, and resident only where it was touched, so that a generous cache costs a small device
    // nothing until it is used.
    void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) return {};
    return Buffer(static_cast<std::byte*>(data), bytes, &Unmap);
  }
  try {
    return Buffer(static_cast<std::byte*>(AllocateAligned(bytes)), bytes, &FreeAligned);
  } catch (const std::bad_alloc&) {
    return {};
  }
}

std::unique_ptr<Memory> MakeHostMemory() { return std::make_unique<HostMemory<Memory>>(); }

}  // namespace updraft::kernels
