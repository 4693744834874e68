// The bytes of the paged key/value cache of one model, after PagedAttention (Kwon et al. 2023). Which block is whose is
// not known here: ids and counts are with their owners (KvPool in kv_cache.h for one sequence at a time, the engine's
// blocks for many).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model/config.h"
#include "kernels/kv_layout.h"
#include "kernels/memory.h"
#include "kernels/ops.h"

namespace updraft {

struct KvStoreOptions {
  int n_blocks = 0;       // >= 1; each holds block_tokens positions of every layer
  int block_tokens = 16;  // in [1, 1024]
  kernels::KvType type = kernels::KvType::kF16;
};

// Not thread-safe: whoever runs the model owns it, since all goes through the model's kernels::Memory. Reserved at once
// and resident, on the CPU, as blocks are first written.
class KvStore {
 public:
  // `memory`, which is the Ops that will run on it, must outlive the store. InvalidArgument for impossible options,
  // ResourceExhausted when the memory cannot be had.
  static absl::StatusOr<std::unique_ptr<KvStore>> Create(kernels::Memory& memory, const ModelConfig& config,
                                                         const KvStoreOptions& options);

  // What Create would reserve. InvalidArgument for impossible options.
  static absl::StatusOr<size_t> BytesFor(const ModelConfig& config, const KvStoreOptions& options);

  int n_blocks() const { return options_.n_blocks; }
  int block_tokens() const { return options_.block_tokens; }
  int BlocksFor(int n_tokens) const { return (n_tokens + options_.block_tokens - 1) / options_.block_tokens; }
  size_t bytes() const { return buffer_.bytes(); }
  size_t block_bytes() const { return bytes() / options_.n_blocks; }  // of one block in all layers

  kernels::KvShape shape() const;
  kernels::KvLayer layer(int layer) const;  // addresses in `memory`

  // All three move a block of all layers, after what was asked of the model before. That they fail is for the Memory to
  // say (Memory::TakeFault), as with any operation of a step.
  void CopyBlock(int32_t from, int32_t to);
  // To and from the host's memory [block_bytes()], in an order of this store's own.
  void SwapOut(int32_t block, std::span<std::byte> to);
  void SwapIn(std::span<const std::byte> from, int32_t block);

 private:
  explicit KvStore(kernels::Memory* memory) : memory_(memory) {}
  size_t part_bytes() const { return block_bytes() / (2 * n_layer_); }  // of one block's k (or v) in one layer
  // Block `block`'s part i of 2 * n_layer: keys and values of each layer in turn.
  std::byte* Part(int i, int32_t block) const;

  kernels::Memory* memory_;
  KvStoreOptions options_;
  int n_layer_ = 0, n_kv_head_ = 0, head_dim_ = 0;
  kernels::Buffer buffer_;  // [n_layer][k, v][n_blocks], blocks as in kernels/kv_layout.h
};

}  // namespace updraft
