#include "common/engine/prefix_index.h"

#include <algorithm>
#include <cstddef>

namespace updraft::engine {

PrefixIndex::PrefixIndex(int n_blocks, int block_tokens)
    : block_tokens_(block_tokens),
      entries_(n_blocks),
      tokens_(static_cast<size_t>(n_blocks) * static_cast<size_t>(block_tokens)) {}

uint64_t PrefixIndex::Hash(uint64_t before, std::span<const int32_t> tokens) {
  uint64_t hash = before;
  for (const int32_t token : tokens) {
    // The finalizer of MurmurHash3 (Appleby), a bijection of 64 bits.
    hash = hash * 0x9e3779b97f4a7c15ull + static_cast<uint32_t>(token) + 1;
    hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccdull;
    hash = (hash ^ (hash >> 33)) * 0xc4ceb9fe1a85ec53ull;
    hash ^= hash >> 33;
  }
  return hash;
}

void PrefixIndex::Record(int32_t block, int32_t before, uint64_t salt, std::span<const int32_t> tokens) {
  // The same contents keep their name, or all that was sealed behind them would be out of reach.
  if (entries_[block].serial != 0 && Holds(block, before, salt, tokens)) return;
  entries_[block] = {.serial = ++n_recorded_,
                     .before_serial = before < 0 ? 0 : entries_[before].serial,
                     .salt = salt,
                     .before = before};
  std::copy(tokens.begin(), tokens.end(), tokens_.begin() + static_cast<ptrdiff_t>(block) * block_tokens_);
}

bool PrefixIndex::Holds(int32_t block, int32_t before, uint64_t salt, std::span<const int32_t> tokens) const {
  const Entry& entry = entries_[block];
  if (entry.before != before || entry.salt != salt) return false;
  if (before >= 0 && entry.before_serial != entries_[before].serial) return false;
  return std::equal(tokens.begin(), tokens.end(), tokens_.begin() + static_cast<ptrdiff_t>(block) * block_tokens_);
}

}  // namespace updraft::engine
