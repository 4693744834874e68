// Block ids of one model's paged KV storage, with reference counts, and the block table of a sequence.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model/kv_store.h"

namespace updraft {

using KvPoolOptions = KvStoreOptions;

// Block ids and their reference counts over a KvStore of its own. Not thread-safe: one thread owns it. Nothing else
// frees a block.
class KvPool {
 public:
  // In the memory of the Ops that will run on it, which must outlive the pool. Errors as KvStore::Create.
  static absl::StatusOr<std::unique_ptr<KvPool>> Create(kernels::Memory& memory, const ModelConfig& config,
                                                        const KvPoolOptions& options);
  // In plain memory, which Ops of the CPU run on.
  static absl::StatusOr<std::unique_ptr<KvPool>> Create(const ModelConfig& config, const KvPoolOptions& options);

  int n_blocks() const { return store_->n_blocks(); }
  int n_free() const { return static_cast<int>(free_.size()); }
  int block_tokens() const { return store_->block_tokens(); }
  size_t bytes() const { return store_->bytes(); }
  int BlocksFor(int n_tokens) const { return store_->BlocksFor(n_tokens); }

  // A block with reference count 1, its contents unspecified; ResourceExhausted when none is free.
  absl::StatusOr<int32_t> Allocate();
  // Both take a block whose reference count is at least 1.
  void Retain(int32_t block);
  void Release(int32_t block);  // frees at zero
  int ref_count(int32_t block) const { return ref_counts_[block]; }
  // Copies all layers of block `from` to block `to` (copy-on-write of a shared block).
  void CopyBlock(int32_t from, int32_t to) { store_->CopyBlock(from, to); }

  KvStore& store() { return *store_; }
  kernels::KvLayer layer(int layer) const { return store_->layer(layer); }
  kernels::KvShape shape() const { return store_->shape(); }

 private:
  KvPool() = default;
  std::unique_ptr<kernels::Memory> own_memory_;  // null: the caller's
  std::unique_ptr<KvStore> store_;
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
