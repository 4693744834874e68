#include "common/model/kv_cache.h"

#include <sys/mman.h>

#include <cassert>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

#include "absl/strings/str_format.h"

namespace updraft {

// One anonymous mapping: zeroed, page-aligned, and resident only where it was touched, so that a generous pool costs a
// small device nothing until it is used. Layout: [n_layer][k, v][n_blocks], blocks as in kernels/ops.h.
struct KvPool::Storage {
  ~Storage() {
    if (data != nullptr) munmap(data, bytes);
  }
  std::byte* data = nullptr;
  size_t bytes = 0;
};

KvPool::~KvPool() = default;

absl::StatusOr<std::unique_ptr<KvPool>> KvPool::Create(const ModelConfig& config, const KvPoolOptions& options) {
  if (options.n_blocks < 1) {
    return absl::InvalidArgumentError(
        absl::StrFormat("KV pool: expected at least 1 block, found %d; give the cache more memory", options.n_blocks));
  }
  if (options.block_tokens < 1 || options.block_tokens > 1024) {
    return absl::InvalidArgumentError(
        absl::StrFormat("KV pool: expected 1 to 1024 tokens per block, found %d", options.block_tokens));
  }
  if (config.n_layer < 1 || config.n_kv_head < 1 || config.head_dim < 1) {
    return absl::InvalidArgumentError("KV pool: the model configuration has no layers, heads or head width");
  }

  // Each factor fits in 32 bits but their product may not fit in 64.
  const kernels::KvShape shape = {config.n_kv_head, config.head_dim, options.block_tokens, options.type};
  size_t bytes = 2 * kernels::KvHeadBytes(shape);
  for (const int factor : {config.n_layer, options.n_blocks, config.n_kv_head}) {
    if (__builtin_mul_overflow(bytes, static_cast<size_t>(factor), &bytes) ||
        bytes > std::numeric_limits<size_t>::max() / 2) {
      return absl::InvalidArgumentError(
          absl::StrFormat("KV pool: %d blocks of %d tokens exceed the address space; use fewer blocks",
                          options.n_blocks, options.block_tokens));
    }
  }

  auto storage = std::make_unique<Storage>();
  storage->bytes = bytes;
  void* data = mmap(nullptr, storage->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "KV pool: cannot allocate %d bytes for %d blocks; use fewer blocks", storage->bytes, options.n_blocks));
  }
  storage->data = static_cast<std::byte*>(data);

  std::unique_ptr<KvPool> pool(new KvPool);
  pool->options_ = options;
  pool->n_layer_ = config.n_layer;
  pool->n_kv_head_ = config.n_kv_head;
  pool->head_dim_ = config.head_dim;
  pool->storage_ = std::move(storage);
  pool->ref_counts_.assign(options.n_blocks, 0);
  pool->free_.resize(options.n_blocks);
  std::iota(pool->free_.rbegin(), pool->free_.rend(), 0);  // block 0 is handed out first
  return pool;
}

size_t KvPool::bytes() const { return storage_->bytes; }

size_t KvPool::block_bytes() const { return static_cast<size_t>(n_kv_head_) * kernels::KvHeadBytes(shape()); }

absl::StatusOr<int32_t> KvPool::Allocate() {
  if (free_.empty()) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "KV pool: all %d blocks of %d tokens are in use; retry when a sequence has finished, or enlarge the pool",
        options_.n_blocks, options_.block_tokens));
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

void KvPool::CopyBlock(int32_t from, int32_t to) {
  const size_t n = block_bytes();
  for (int i = 0; i < n_layer_; ++i) {
    const kernels::KvLayer kv = layer(i);
    std::memcpy(kv.k + to * n, kv.k + from * n, n);
    std::memcpy(kv.v + to * n, kv.v + from * n, n);
  }
}

kernels::KvLayer KvPool::layer(int layer) {
  const size_t plane = block_bytes() * options_.n_blocks;
  std::byte* base = storage_->data + 2 * plane * layer;
  return {.k = base, .v = base + plane};
}

kernels::KvShape KvPool::shape() const {
  return {.n_kv_head = n_kv_head_, .head_dim = head_dim_, .block_tokens = options_.block_tokens, .type = options_.type};
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
