// How much work is worth another thread.
#ifndef UPDRAFT_KERNELS_CPU_WORK_SPLIT_H_
#define UPDRAFT_KERNELS_CPU_WORK_SPLIT_H_

#include <algorithm>
#include <cstdint>

namespace updraft::kernels {

// Work that takes less than waking another thread up (a few microseconds) stays on the calling thread; small models
// would otherwise decode slower on two threads than on one.
inline constexpr int64_t kSerialBytes = int64_t{96} << 10;  // of weights read by one matmul of a token

inline constexpr int64_t kMinChunkBytes = int64_t{16} << 10;  // of weights: what one claim of a chunk is worth
inline constexpr int kChunksPerThread = 4;

// Into how many chunks to cut a product that reads so many bytes of weights.
inline int64_t ChunksWorth(int64_t bytes, int n_threads) {
  return std::min<int64_t>(std::max<int64_t>(1, bytes / kMinChunkBytes), int64_t{kChunksPerThread} * n_threads);
}

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_WORK_SPLIT_H_
