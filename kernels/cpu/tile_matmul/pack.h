// From the file's row-major blocks to tiles.
#ifndef UPDRAFT_KERNELS_CPU_TILE_MATMUL_PACK_H_
#define UPDRAFT_KERNELS_CPU_TILE_MATMUL_PACK_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "kernels/aligned_buffer.h"
#include "kernels/cpu/tile_matmul/tile_format.h"
#include "kernels/ops.h"
#include "kernels/thread_pool.h"

namespace updraft::kernels {

// Owns the planes of one matrix.
class TiledWeights {
 public:
  // data: n_out rows of RowBytes(type, n_in), read during the call only. IsTiled(type); n_out, n_in > 0. kind:
  // TileKindOf(type), or k8Kept of a type that KeepsHalf. Each thread of the pool writes the tiles that it will read in
  // products, so that a pool that pins has them in memory near it.
  TiledWeights(DType type, TileKind kind, int64_t n_out, int64_t n_in, const void* data, ThreadPool& pool);

  // The weights whose contents() `source` has; none when it fails. The same conditions, and memory as near.
  static std::optional<TiledWeights> FromSource(TileKind kind, int64_t n_out, int64_t n_in, PackedSource& source,
                                                ThreadPool& pool);
  // bytes() of such weights.
  static size_t SizeOf(TileKind kind, int64_t n_out, int64_t n_in);

  TileKind kind() const { return kind_; }
  TileView view() const { return view_; }
  // All planes, one after another.
  std::span<const uint8_t> contents() const { return {buffer_.data(), buffer_.size()}; }
  int64_t n_tiles() const { return n_tiles_; }  // even
  size_t bytes() const { return buffer_.size(); }

  // Adds the first `bytes` bytes of all planes from tile `tile` on, in the shares in which a product reads them.
  void AddRanges(int64_t tile, int64_t bytes, int thread, MemoryAhead& ahead) const;

 private:
  TiledWeights(TileKind kind, int64_t n_out, int64_t n_in);  // room without contents

  // In a pool that pins, has each page of the fresh room first written by the thread that will read it in products.
  void TouchNearReaders(ThreadPool& pool);

  TileKind kind_;
  int64_t n_tiles_;
  AlignedBuffer buffer_;
  TileView view_;
};

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_TILE_MATMUL_PACK_H_
