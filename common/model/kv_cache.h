// Paged KV storage shared by all sequences of one model on one engine, after PagedAttention (Kwon et al. 2023).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model/config.h"
#include "kernels/ops.h"

namespace updraft {

struct KvPoolOptions {
  int n_blocks = 0;       // blocks in the pool, >= 1; each holds block_tokens positions of every layer
  int block_tokens = 16;  // in [1, 1024]
  kernels::KvType type = kernels::KvType::kF16;
};

// Owns all blocks and their reference counts. Not thread-safe: one engine thread owns it. Nothing else frees a block.
// Memory is reserved at once and becomes resident as blocks are first written.
class KvPool {
 public:
  // InvalidArgument for impossible options, ResourceExhausted when the memory cannot be had.
  static absl::StatusOr<std::unique_ptr<KvPool>> Create(const ModelConfig& config, const KvPoolOptions& options);
  ~KvPool();

  int n_blocks() const { return options_.n_blocks; }
  int n_free() const { return static_cast<int>(free_.size()); }
  int block_tokens() const { return options_.block_tokens; }
  size_t bytes() const;
  int BlocksFor(int n_tokens) const { return (n_tokens + options_.block_tokens - 1) / options_.block_tokens; }

  // A block with reference count 1, its contents unspecified; ResourceExhausted when none is free.
  absl::StatusOr<int32_t> Allocate();
  // Both take a block whose reference count is at least 1.
  void Retain(int32_t block);
  void Release(int32_t block);  // frees at zero
  int ref_count(int32_t block) const { return ref_counts_[block]; }
  // Copies all layers of block `from` to block `to` (copy-on-write of a shared block).
  void CopyBlock(int32_t from, int32_t to);

  kernels::KvLayer layer(int layer);
  kernels::KvShape shape() const;

 private:
  KvPool() = default;
  size_t block_bytes() const;  // of one block's k (or v) in one layer
  struct Storage;
  KvPoolOptions options_;
  int n_layer_ = 0, n_kv_head_ = 0, head_dim_ = 0;
  std::unique_ptr<Storage> storage_;
  std::vector<int32_t> free_;
  std::vector<int> ref_counts_;
};

// The block table of one sequence: move-only, releases its blocks when destroyed (the pool must outlive it).
//
// Positions that were reserved must be written before the sequence is forked: a block that others share is copied only
// when Reserve grows into it, and is otherwise read-only.
class SequenceKv {
 public:
  explicit SequenceKv(KvPool* pool) : pool_(pool) {}
  ~SequenceKv();
  SequenceKv(SequenceKv&&) noexcept;
  SequenceKv& operator=(SequenceKv&&) noexcept;
  SequenceKv(const SequenceKv&) = delete;
  SequenceKv& operator=(const SequenceKv&) = delete;

  int n_tokens() const { return n_tokens_; }  // positions that have room reserved
  std::span<const int32_t> blocks() const { return blocks_; }
  // Makes room for positions [0, n_tokens); no effect when there is room already. A last block that is shared is copied
  // before it is extended (copy on write). ResourceExhausted leaves the sequence as it was.
  absl::Status Reserve(int n_tokens);
  // Forgets positions >= n_tokens and releases blocks that hold none of the rest.
  void Truncate(int n_tokens);
  // Shares all blocks of this sequence with a new one.
  SequenceKv Fork() const;
  // Adopts blocks already filled elsewhere (prefix cache): takes one reference on each. The sequence must be empty;
  // blocks.size() == pool->BlocksFor(n_tokens).
  void AdoptPrefix(std::span<const int32_t> blocks, int n_tokens);

 private:
  KvPool* pool_;
  std::vector<int32_t> blocks_;
  int n_tokens_ = 0;
};

}  // namespace updraft
