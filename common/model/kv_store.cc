#include "common/model/kv_store.h"

#include <cassert>
#include <limits>

#include "absl/strings/str_format.h"

namespace updraft {

absl::StatusOr<size_t> KvStore::BytesFor(const ModelConfig& config, const KvStoreOptions& options) {
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
  size_t bytes = 2 * kernels::KvHeadBytes({config.n_kv_head, config.head_dim, options.block_tokens, options.type});
  for (const int factor : {config.n_layer, options.n_blocks, config.n_kv_head}) {
    if (__builtin_mul_overflow(bytes, static_cast<size_t>(factor), &bytes) ||
        bytes > std::numeric_limits<size_t>::max() / 2) {
      return absl::InvalidArgumentError(
          absl::StrFormat("KV pool: %d blocks of %d tokens exceed the address space; use fewer blocks",
                          options.n_blocks, options.block_tokens));
    }
  }
  return bytes;
}

absl::StatusOr<std::unique_ptr<KvStore>> KvStore::Create(kernels::Memory& memory, const ModelConfig& config,
                                                         const KvStoreOptions& options) {
  absl::StatusOr<size_t> bytes = BytesFor(config, options);
  if (!bytes.ok()) return bytes.status();
  std::unique_ptr<KvStore> store(new KvStore(&memory));
  // A fault of what came before is that step's to tell; one of this allocation is told here.
  const kernels::Fault before = memory.TakeFault();
  store->buffer_ = memory.Allocate(*bytes, kernels::MemoryUse::kCache);
  if (!store->buffer_) memory.TakeFault();
  if (before != kernels::Fault::kNone) memory.Fail(before);
  if (!store->buffer_) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("KV pool: cannot allocate %d bytes for %d blocks; use fewer blocks", *bytes, options.n_blocks));
  }
  store->options_ = options;
  store->n_layer_ = config.n_layer;
  store->n_kv_head_ = config.n_kv_head;
  store->head_dim_ = config.head_dim;
  return store;
}

kernels::KvShape KvStore::shape() const {
  return {.n_kv_head = n_kv_head_, .head_dim = head_dim_, .block_tokens = options_.block_tokens, .type = options_.type};
}

kernels::KvLayer KvStore::layer(int layer) const { return {.k = Part(2 * layer, 0), .v = Part(2 * layer + 1, 0)}; }

std::byte* KvStore::Part(int i, int32_t block) const {
  assert(block >= 0 && block < options_.n_blocks);
  return buffer_.data() + part_bytes() * (static_cast<size_t>(i) * options_.n_blocks + block);
}

void KvStore::CopyBlock(int32_t from, int32_t to) {
  for (int i = 0; i < 2 * n_layer_; ++i) memory_->Copy(Part(i, from), part_bytes(), Part(i, to));
}

void KvStore::SwapOut(int32_t block, std::span<std::byte> to) {
  assert(to.size() == block_bytes());
  for (int i = 0; i < 2 * n_layer_; ++i) {
    memory_->Download(Part(i, block), part_bytes(), to.subspan(i * part_bytes()).data());
  }
}

void KvStore::SwapIn(std::span<const std::byte> from, int32_t block) {
  assert(from.size() == block_bytes());
  for (int i = 0; i < 2 * n_layer_; ++i) {
    memory_->Upload(from.subspan(i * part_bytes()).data(), part_bytes(), Part(i, block));
  }
}

}  // namespace updraft
