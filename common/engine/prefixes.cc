// Blocks that several sequences share.
#include <algorithm>

#include "common/engine/core.h"
#include "common/engine/sequence.h"

namespace updraft::engine {

void Core::ExtendChain(Sequence& s) {
  const size_t n_full = static_cast<size_t>(s.n_known / options_.block_tokens);
  const std::span<const int32_t> tokens(s.tokens);
  while (s.chain.size() < n_full) {
    const uint64_t before = s.chain.empty() ? ~s.cache_salt : s.chain.back();
    s.chain.push_back(PrefixIndex::Hash(
        before, tokens.subspan(s.chain.size() * options_.block_tokens, static_cast<size_t>(options_.block_tokens))));
  }
}

// Somebody has to choose the next token, so the row of the last known one runs in any case.
void Core::AdoptPrefix(Sequence& s) {
  ExtendChain(s);
  const size_t n_useful = std::min<size_t>(s.chain.size(), BlocksFor(s.n_known - 1));
  const int n_matched = pool_.Match(std::span<const uint64_t>(s.chain).first(n_useful), &s.blocks);
  const std::span<const int32_t> tokens(s.tokens);
  int n_held = 0;
  while (n_held < n_matched &&
         prefixes_->Holds(s.blocks[n_held], n_held == 0 ? -1 : s.blocks[n_held - 1], s.cache_salt,
                          tokens.subspan(n_held * options_.block_tokens, options_.block_tokens))) {
    ++n_held;
  }
  DropBlocks(s, n_held);
  s.n_sealed = n_held;
  s.n_begun = s.n_complete = s.n_adopted = std::min(n_held * options_.block_tokens, s.n_known - 1);
  BecomeIdleHolder(s);
}

// Seals what has become complete. Where another sequence has computed the same meanwhile, its block is taken instead.
void Core::SealCompleted(Sequence& s) {
  const std::span<const int32_t> tokens(s.tokens);
  while ((s.n_sealed + 1) * options_.block_tokens <= s.n_complete) {
    ExtendChain(s);
    const int i = s.n_sealed;
    int32_t& block = s.blocks[i];
    const int32_t before = i == 0 ? -1 : s.blocks[i - 1];
    const std::span<const int32_t> held = tokens.subspan(i * options_.block_tokens, options_.block_tokens);
    const int32_t other = pool_.Find(s.chain[i]);
    if (other >= 0 && prefixes_->Holds(other, before, s.cache_salt, held)) {
      pool_.Share(other);
      pool_.Drop(block);
      block = other;
    } else if (other >= 0 && pool_.count(other) > 0) {
      return;  // the hash is taken as long as somebody holds that one
    } else {
      // What stands behind a block that is gone, or collides, can be had by nobody as long as it bears this hash.
      if (other >= 0) pool_.Forget(other);
      pool_.Seal(block, s.chain[i]);
      prefixes_->Record(block, before, s.cache_salt, held);
    }
    ++s.n_sealed;
  }
}

}  // namespace updraft::engine
