// Bytes for packed weights: aligned to a cache line, and on huge pages where they are large, so that a pass over all
// weights does not spend its time on page walks.
#ifndef UPDRAFT_KERNELS_ALIGNED_BUFFER_H_
#define UPDRAFT_KERNELS_ALIGNED_BUFFER_H_

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace updraft::kernels {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // Not initialised. Throws std::bad_alloc like any container.
  explicit AlignedBuffer(size_t bytes) : bytes_(bytes) {
    const size_t alignment = bytes >= kHugePage ? kHugePage : kCacheLine;
    const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    data_.reset(static_cast<uint8_t*>(std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded)));
    if (data_ == nullptr) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    if (bytes >= kHugePage) madvise(data_.get(), rounded, MADV_HUGEPAGE);  // a hint: failure costs speed only
#endif
  }

  uint8_t* data() { return data_.get(); }
  const uint8_t* data() const { return data_.get(); }
  size_t size() const { return bytes_; }

 private:
  static constexpr size_t kCacheLine = 64;
  static constexpr size_t kHugePage = size_t{2} << 20;
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  std::unique_ptr<uint8_t[], Free> data_;
  size_t bytes_ = 0;
};

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_ALIGNED_BUFFER_H_
