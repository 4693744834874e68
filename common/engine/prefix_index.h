// What sealed blocks hold: makes a hit of hashes a hit of tokens. The hash that BlockPool knows a block by is quick and
// may collide, by chance or by somebody's design; then one tenant would read another's KV. So a block that matches is
// adopted only when its tokens, its salt and the block before it are those of the adopter.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace updraft::engine {

// One thread. Nothing is allocated after construction.
class PrefixIndex {
 public:
  PrefixIndex(int n_blocks, int block_tokens);

  // Hash of a full block given that of the block before it; of a first block given its salt.
  static uint64_t Hash(uint64_t before, std::span<const int32_t> tokens);

  // Notes what block `block` was sealed with; sealed again with what it held before, it keeps its name. before: the
  // sealed block before it, -1 for a first one (then the salt counts). tokens: [block_tokens].
  void Record(int32_t block, int32_t before, uint64_t salt, std::span<const int32_t> tokens);
  // Whether the sealed block `block` holds these tokens after the contents of `before` (or at the start, with `salt`).
  bool Holds(int32_t block, int32_t before, uint64_t salt, std::span<const int32_t> tokens) const;

 private:
  struct Entry {
    uint64_t serial = 0;         // of this sealing; contents of a block are named by (block, serial)
    uint64_t before_serial = 0;  // 0: a first block
    uint64_t salt = 0;
    int32_t before = -1;
  };

  const int block_tokens_;
  uint64_t n_recorded_ = 0;
  std::vector<Entry> entries_;   // [n_blocks]
  std::vector<int32_t> tokens_;  // [n_blocks, block_tokens]
};

}  // namespace updraft::engine
