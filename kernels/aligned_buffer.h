// Memory of weights and of activations: aligned to a cache line, and on huge pages where it is large, so that passes
// over it do not spend their time on page walks.
#ifndef UPDRAFT_KERNELS_ALIGNED_BUFFER_H_
#define UPDRAFT_KERNELS_ALIGNED_BUFFER_H_

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

namespace updraft::kernels {

// Not initialised; released with std::free. Throws std::bad_alloc like any container.
inline void* AllocateAligned(size_t bytes) {
  constexpr size_t kCacheLine = 64;
  constexpr size_t kHugePage = size_t{2} << 20;
  if (bytes > PTRDIFF_MAX - kHugePage) throw std::bad_alloc();
  const size_t alignment = bytes >= kHugePage ? kHugePage : kCacheLine;
  const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* data = std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded);
  if (data == nullptr) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
  if (bytes >= kHugePage) madvise(data, rounded, MADV_HUGEPAGE);  // a hint: failure costs speed only
#endif
  return data;
}

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // Not initialised.
  explicit AlignedBuffer(size_t bytes) : data_(static_cast<uint8_t*>(AllocateAligned(bytes))), bytes_(bytes) {}

  uint8_t* data() { return data_.get(); }
  const uint8_t* data() const { return data_.get(); }
  size_t size() const { return bytes_; }

 private:
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  std::unique_ptr<uint8_t[], Free> data_;
  size_t bytes_ = 0;
};

template <typename T>
struct AlignedAllocator {
  using value_type = T;
  AlignedAllocator() = default;
  template <typename U>
  AlignedAllocator(const AlignedAllocator<U>& /*other*/) {}
  T* allocate(size_t n) { return static_cast<T*>(AllocateAligned(n * sizeof(T))); }
  void deallocate(T* p, size_t /*n*/) { std::free(p); }
  friend bool operator==(const AlignedAllocator& /*a*/, const AlignedAllocator& /*b*/) { return true; }
};

template <typename T>
using AlignedVector = std::vector<T, AlignedAllocator<T>>;

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_ALIGNED_BUFFER_H_
