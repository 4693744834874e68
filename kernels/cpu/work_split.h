// How much work is worth another thread, and which part of it is whose.
#ifndef UPDRAFT_KERNELS_CPU_WORK_SPLIT_H_
#define UPDRAFT_KERNELS_CPU_WORK_SPLIT_H_

#include <algorithm>
#include <cstdint>
#include <span>

#include "kernels/thread_pool.h"

namespace updraft::kernels {

// Work that takes less than waking another thread up (a few microseconds) stays on the calling thread; small models
// would otherwise decode slower on two threads than on one.
inline constexpr int64_t kSerialBytes = int64_t{96} << 10;  // of weights read by one matmul of a token

inline constexpr int64_t kSerialElements = int64_t{16} << 10;  // of a row operation

inline constexpr int64_t kMinChunkBytes = int64_t{16} << 10;  // of weights: what one claim of a chunk is worth
inline constexpr int kChunksPerThread = 4;

// Into how many chunks to cut a product that reads so many bytes of weights.
inline int64_t ChunksWorth(int64_t bytes, int n_threads) {
  return std::min<int64_t>(std::max<int64_t>(1, bytes / kMinChunkBytes), int64_t{kChunksPerThread} * n_threads);
}

// Into how many ranges of consecutive units (pairs of tiles, rows) to cut one matrix that has so many bytes. Products
// and packing both cut like this, so that a thread packs what it will read.
inline int NumRanges(int64_t n_units, int64_t bytes, int n_threads) {
  return static_cast<int>(std::min(n_units, ChunksWorth(bytes, n_threads)));
}

// Calls body(row, thread) for every row, on all threads when rows * width is worth it; neighbouring rows in one thread.
template <typename Body>
void ForRows(ThreadPool& pool, int n_rows, int64_t width, const Body& body) {
  if (n_rows == 1 || pool.n_threads() == 1 || n_rows * width < kSerialElements) {
    for (int row = 0; row < n_rows; ++row) body(row, 0);
    return;
  }
  const int n_chunks = std::min(n_rows, kChunksPerThread * pool.n_threads());
  pool.Run(n_chunks, [&](int chunk, int thread) {
    const int to = static_cast<int>(static_cast<int64_t>(n_rows) * (chunk + 1) / n_chunks);
    for (int row = static_cast<int>(static_cast<int64_t>(n_rows) * chunk / n_chunks); row < to; ++row) {
      body(row, thread);
    }
  });
}

// One chunk of a loop over several matrices.
struct ChunkPlace {
  int target = 0;
  int chunk = 0;   // of the target
  int n_left = 0;  // this chunk and those of the same target that the same thread is dealt after it
};

// How many chunks of a loop over targets with n_chunks[i] chunks each are dealt to the threads before `thread`.
inline int ChunksBefore(int thread, std::span<const int> n_chunks, int n_threads) {
  int n = 0;
  for (const int of_target : n_chunks) n += SegmentBegin(of_target, thread, n_threads);
  return n;
}

// Where chunk `chunk` of such a loop lies. Every thread is dealt its segment of each target, one target after the
// other, so that what a thread reads of a matrix does not depend on what is multiplied along with it. (The pool rounds
// segments of the whole loop, which may put a thread's beginning up to n_chunks.size() - 1 chunks into the next
// thread's part.) 0 <= chunk < the sum of n_chunks.
inline ChunkPlace PlaceOfChunk(int chunk, std::span<const int> n_chunks, int n_threads) {
  // No thread before this one is dealt the chunk, since rounding each target down deals them less.
  auto thread = static_cast<int>(int64_t{chunk} * n_threads / ChunksBefore(n_threads, n_chunks, n_threads));
  while (ChunksBefore(thread + 1, n_chunks, n_threads) <= chunk) ++thread;
  chunk -= ChunksBefore(thread, n_chunks, n_threads);
  for (int target = 0;; ++target) {
    const int from = SegmentBegin(n_chunks[target], thread, n_threads);
    const int n_own = SegmentBegin(n_chunks[target], thread + 1, n_threads) - from;
    if (chunk < n_own) return {target, from + chunk, n_own - chunk};
    chunk -= n_own;
  }
}

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_WORK_SPLIT_H_
