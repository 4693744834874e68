#include "common/model/kv_cache.h"

#include <cassert>
#include <numeric>
#include <utility>

#include "absl/strings/str_format.h"

namespace updraft {

absl::StatusOr<std::unique_ptr<KvPool>> KvPool::Create(kernels::Memory& memory, const ModelConfig& config,
                                                       const KvPoolOptions& options) {
  absl::StatusOr<std::unique_ptr<KvStore>> store = KvStore::Create(memory, config, options);
  if (!store.ok()) return store.status();
  std::unique_ptr<KvPool> pool(new KvPool);
  pool->store_ = *std::move(store);
  pool->ref_counts_.assign(options.n_blocks, 0);
  pool->free_.resize(options.n_blocks);
  std::iota(pool->free_.rbegin(), pool->free_.rend(), 0);  // block 0 is handed out first
  return pool;
}

absl::StatusOr<std::unique_ptr<KvPool>> KvPool::Create(const ModelConfig& config, const KvPoolOptions& options) {
  std::unique_ptr<kernels::Memory> memory = kernels::MakeHostMemory();
  absl::StatusOr<std::unique_ptr<KvPool>> pool = Create(*memory, config, options);
  if (pool.ok()) (*pool)->own_memory_ = std::move(memory);
  return pool;
}

absl::StatusOr<int32_t> KvPool::Allocate() {
  if (free_.empty()) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "KV pool: all %d blocks of %d tokens are in use; retry when a sequence has finished, or enlarge the pool",
        n_blocks(), block_tokens()));
  }
  const int32_t block = free_.back();
  free_.pop_back();
  ref_counts_[block] = 1;
  return block;
}

void KvPool::Retain(int32_t block) {
  assert(ref_counts_[block] > 0);
  ++ref_counts_[block];
}

void KvPool::Release(int32_t block) {
  assert(ref_counts_[block] > 0);
  if (--ref_counts_[block] == 0) free_.push_back(block);
}

SequenceKv::~SequenceKv() { Truncate(0); }

SequenceKv::SequenceKv(SequenceKv&& other) noexcept
    : pool_(other.pool_), blocks_(std::exchange(other.blocks_, {})), n_tokens_(std::exchange(other.n_tokens_, 0)) {}

SequenceKv& SequenceKv::operator=(SequenceKv&& other) noexcept {
  if (this != &other) {
    Truncate(0);
    pool_ = other.pool_;
    blocks_ = std::exchange(other.blocks_, {});
    n_tokens_ = std::exchange(other.n_tokens_, 0);
  }
  return *this;
}

absl::Status SequenceKv::Reserve(int n_tokens) {
  if (n_tokens <= n_tokens_) return absl::OkStatus();
  const bool partial = n_tokens_ % pool_->block_tokens() != 0;
  const bool copy_last = partial && pool_->ref_count(blocks_.back()) > 1;
  const int n_new = pool_->BlocksFor(n_tokens) - static_cast<int>(blocks_.size());
  const int n_needed = n_new + (copy_last ? 1 : 0);
  if (n_needed > pool_->n_free()) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "KV pool: a sequence of %d tokens needs %d more blocks of %d tokens, %d of %d are free; retry when a sequence "
        "has finished, or enlarge the pool",
        n_tokens, n_needed, pool_->block_tokens(), pool_->n_free(), pool_->n_blocks()));
  }
  if (copy_last) {
    const int32_t copy = pool_->Allocate().value();
    pool_->CopyBlock(blocks_.back(), copy);
    pool_->Release(blocks_.back());
    blocks_.back() = copy;
  }
  for (int i = 0; i < n_new; ++i) blocks_.push_back(pool_->Allocate().value());
  n_tokens_ = n_tokens;
  return absl::OkStatus();
}

void SequenceKv::Truncate(int n_tokens) {
  if (n_tokens >= n_tokens_) return;
  const size_t n_kept = pool_->BlocksFor(n_tokens);
  while (blocks_.size() > n_kept) {
    pool_->Release(blocks_.back());
    blocks_.pop_back();
  }
  n_tokens_ = n_tokens;
}

SequenceKv SequenceKv::Fork() const {
  SequenceKv fork(pool_);
  fork.AdoptPrefix(blocks_, n_tokens_);
  return fork;
}

void SequenceKv::AdoptPrefix(std::span<const int32_t> blocks, int n_tokens) {
  assert(blocks_.empty() && static_cast<int>(blocks.size()) == pool_->BlocksFor(n_tokens));
  for (const int32_t block : blocks) pool_->Retain(block);
  blocks_.assign(blocks.begin(), blocks.end());
  n_tokens_ = n_tokens;
}

}  // namespace updraft
