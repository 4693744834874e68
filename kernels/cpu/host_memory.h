// The CPU's side of memory.h: plain memory.
#ifndef UPDRAFT_KERNELS_CPU_HOST_MEMORY_H_
#define UPDRAFT_KERNELS_CPU_HOST_MEMORY_H_

#include <cstring>
#include <new>

#include "kernels/memory.h"

namespace updraft::kernels {

// Activations as in aligned_buffer.h; a cache is an anonymous mapping. Empty when the memory cannot be had.
Buffer AllocateHost(size_t bytes, MemoryUse use);

// Base is Memory or an interface that extends it, such as Ops.
template <typename Base>
class HostMemory : public Base {
 public:
  Buffer Allocate(size_t bytes, MemoryUse use) override {
    if (fault_ != Fault::kNone) return {};
    Buffer buffer = AllocateHost(bytes, use);
    if (!buffer) Fail(Fault::kOutOfMemory);
    return buffer;
  }
  void Zero(void* to, size_t bytes) override {
    if (fault_ == Fault::kNone && bytes > 0) std::memset(to, 0, bytes);
  }
  void Upload(const void* from, size_t bytes, void* to) override { Copy(from, bytes, to); }
  void Download(const void* from, size_t bytes, void* to) override { Copy(from, bytes, to); }
  void Copy(const void* from, size_t bytes, void* to) override {
    if (fault_ == Fault::kNone && bytes > 0) std::memcpy(to, from, bytes);
  }
  void GatherRows(const float* from, std::span<const int32_t> rows, int64_t width, float* to) override {
    if (fault_ != Fault::kNone) return;
    for (size_t i = 0; i < rows.size(); ++i) {
      Copy(from + rows[i] * width, width * sizeof(float), to + static_cast<int64_t>(i) * width);
    }
  }
  void ScatterRows(const float* from, std::span<const int32_t> rows, int64_t width, float* to) override {
    if (fault_ != Fault::kNone) return;
    for (size_t i = 0; i < rows.size(); ++i) {
      Copy(from + static_cast<int64_t>(i) * width, width * sizeof(float), to + rows[i] * width);
    }
  }
  std::span<float> HostView(float* from, size_t n, std::vector<float>& /*staging*/) override {
    return fault_ == Fault::kNone ? std::span<float>(from, n) : std::span<float>();
  }
  void Fail(Fault fault) override { fault_ = Graver(fault_, fault); }
  Fault TakeFault() override { return std::exchange(fault_, Fault::kNone); }

 protected:
  // Runs an operation unless one before it failed; that it finds no memory is a fault.
  template <typename Body>
  void Guarded(const Body& body) {
    if (fault_ != Fault::kNone) return;
    try {
      body();
    } catch (const std::bad_alloc&) {
      Fail(Fault::kOutOfMemory);
    }
  }

 private:
  Fault fault_ = Fault::kNone;
};

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_HOST_MEMORY_H_
