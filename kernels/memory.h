// Where activations, keys and values live. The forward pass and all above it make, fill, copy and read such memory
// through this interface and nothing else, so that it may lie where they cannot reach: on a device.
//
// Addresses inside a Buffer are ordinary pointers. They may be moved along (p + n) and handed to operations; only the
// implementation, and who made it, may read or write through them. On the CPU it is plain memory, and HostView gives it
// away without a copy.
//
// Used by one thread at a time, in the order of calls: what an operation reads was written by those before it.
#ifndef UPDRAFT_KERNELS_MEMORY_H_
#define UPDRAFT_KERNELS_MEMORY_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace updraft::kernels {

// What went wrong in an operation. It is kept and from then on operations do nothing, so that a step is asked once, at
// its end or where it needs a number, and not after each of its operations. In order of gravity: of two the graver is
// kept, since a device that failed leaves all its memory in doubt, whatever else was short.
enum class Fault : uint8_t {
  kNone,
  kOutOfMemory,  // of the host or of the device
  kDevice,       // a device refused or lost its work
};

inline Fault Graver(Fault a, Fault b) { return std::max(a, b); }

enum class MemoryUse {
  kActivations,  // its contents are not initialised
  kCache,        // large, zero, written bit by bit: takes pages of a machine as they are first written where it can
};

// Owns a piece of an implementation's memory: move-only. May outlive the Memory that made it unless that one says
// otherwise.
class Buffer {
 public:
  using Free = void (*)(void* context, std::byte* data, size_t bytes);

  Buffer() = default;
  // Called by implementations: free(context, data, bytes) releases it.
  Buffer(std::byte* data, size_t bytes, Free free, void* context = nullptr)
      : data_(data), bytes_(bytes), free_(free), context_(context) {}
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(free_, other.free_);
    std::swap(context_, other.context_);
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) free_(context_, data_, bytes_);
  }

  explicit operator bool() const { return data_ != nullptr; }
  size_t bytes() const { return bytes_; }
  size_t n_floats() const { return bytes_ / sizeof(float); }
  // Addresses; null when it is empty.
  std::byte* data() const { return data_; }
  float* floats() const { return reinterpret_cast<float*>(data_); }

 private:
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
  Free free_ = nullptr;
  void* context_ = nullptr;
};

class Memory {
 public:
  virtual ~Memory() = default;

  // Empty, with the fault kOutOfMemory, when it cannot be had.
  virtual Buffer Allocate(size_t bytes, MemoryUse use) = 0;
  virtual void Zero(void* to, size_t bytes) = 0;
  // From the host's memory, which may be reused as soon as the call returns.
  virtual void Upload(const void* from, size_t bytes, void* to) = 0;
  // To the host's memory, where the bytes are when the call returns; unspecified ones after a fault.
  virtual void Download(const void* from, size_t bytes, void* to) = 0;
  // From one place in this memory to another; they do not overlap.
  virtual void Copy(const void* from, size_t bytes, void* to) = 0;
  // to[i, :] = from[rows[i], :] and to[rows[i], :] = from[i, :], rows of `width` numbers; `rows` is the host's.
  virtual void GatherRows(const float* from, std::span<const int32_t> rows, int64_t width, float* to) = 0;
  virtual void ScatterRows(const float* from, std::span<const int32_t> rows, int64_t width, float* to) = 0;

  // Numbers [from, from + n) where the host can read them, and may write: what it writes may or may not reach `from`,
  // which is unspecified afterwards. The CPU gives its own memory, others copy to `staging`, which grows to the largest
  // view. Valid until the next operation on `from` or view through `staging`. Empty after a fault, this call's own or
  // an earlier one.
  virtual std::span<float> HostView(float* from, size_t n, std::vector<float>& staging) = 0;

  // Keeps a fault of the caller's own as if an operation had it: of the host's memory that goes with a step.
  virtual void Fail(Fault fault) = 0;
  // Waits until all is done that was asked for; the gravest fault since the last call, which is then forgotten. Buffers
  // that were written since then hold unspecified numbers after a fault.
  virtual Fault TakeFault() = 0;
};

// Plain memory on its own, for what needs no operations.
std::unique_ptr<Memory> MakeHostMemory();

// Grows to at least `bytes` without keeping the contents; true when there is room.
inline bool GrowTo(Memory& memory, size_t bytes, Buffer& buffer) {
  if (buffer.bytes() >= bytes && buffer) return true;
  const size_t doubled = 2 * buffer.bytes();  // so that batches which grow row by row allocate a few times
  buffer = Buffer();                          // first, so that both need not fit
  buffer = memory.Allocate(doubled > bytes ? doubled : bytes, MemoryUse::kActivations);
  return static_cast<bool>(buffer);
}

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_MEMORY_H_
