#include "common/engine/block_pool.h"

#include <bit>
#include <cassert>

#include "absl/strings/str_format.h"

namespace updraft::engine {

BlockPool::BlockPool(int n_blocks)
    : counts_(n_blocks, 0),
      idle_counts_(n_blocks, 0),
      sealed_(n_blocks, 0),
      hashes_(n_blocks, 0),
      prev_(n_blocks + 2),
      next_(n_blocks + 2),
      buckets_(std::bit_ceil(static_cast<size_t>(n_blocks)), kNone),
      bucket_next_(n_blocks, kNone) {
  assert(n_blocks >= 1);
  for (const int32_t list : {free_list(), evictable_list()}) prev_[list] = next_[list] = list;
  for (int32_t block = n_blocks - 1; block >= 0; --block) InsertAfter(free_list(), block);  // block 0 goes out first
  n_free_ = n_blocks;
}

void BlockPool::InsertAfter(int32_t node, int32_t block) {
  prev_[block] = node;
  next_[block] = next_[node];
  prev_[next_[node]] = block;
  next_[node] = block;
}

void BlockPool::Unlink(int32_t block) {
  next_[prev_[block]] = next_[block];
  prev_[next_[block]] = prev_[block];
}

// Hashes may be weak in their low bits; the product's high ones are not (Knuth's multiplicative hashing).
size_t BlockPool::BucketOf(uint64_t hash) const {
  return static_cast<size_t>((hash * 0x9e3779b97f4a7c15ull) >> 32) & (buckets_.size() - 1);
}

void BlockPool::RemoveFromBucket(int32_t block) {
  int32_t* at = &buckets_[BucketOf(hashes_[block])];
  while (*at != block) at = &bucket_next_[*at];
  *at = bucket_next_[block];
  sealed_[block] = 0;
}

int32_t BlockPool::Take() {
  assert(n_available() > 0);
  int32_t block;
  if (n_free_ > 0) {
    block = next_[free_list()];
    --n_free_;
  } else {
    block = next_[evictable_list()];
    --n_evictable_;
    RemoveFromBucket(block);
  }
  Unlink(block);
  counts_[block] = 1;
  return block;
}

void BlockPool::Share(int32_t block) {
  assert(counts_[block] > 0 || sealed_[block] != 0);
  n_reclaimable_ -= reclaimable(block);
  if (counts_[block]++ > 0) return;
  Unlink(block);
  --n_evictable_;
}

void BlockPool::Drop(int32_t block) {
  assert(counts_[block] > idle_counts_[block]);
  --counts_[block];
  n_reclaimable_ += reclaimable(block);
  if (counts_[block] > 0) return;
  if (sealed_[block] != 0) {
    InsertAfter(prev_[evictable_list()], block);
    ++n_evictable_;
  } else {
    InsertAfter(free_list(), block);
    ++n_free_;
  }
}

void BlockPool::SetIdle(int32_t block) {
  assert(idle_counts_[block] < counts_[block]);
  ++idle_counts_[block];
  n_reclaimable_ += reclaimable(block);
}

void BlockPool::SetBusy(int32_t block) {
  assert(idle_counts_[block] > 0);
  n_reclaimable_ -= reclaimable(block);
  --idle_counts_[block];
}

bool BlockPool::Seal(int32_t block, uint64_t hash) {
  assert(counts_[block] > 0 && sealed_[block] == 0);
  if (Find(hash) != kNone) return false;
  int32_t& first = buckets_[BucketOf(hash)];
  hashes_[block] = hash;
  sealed_[block] = 1;
  bucket_next_[block] = first;
  first = block;
  return true;
}

void BlockPool::Unseal(int32_t block) {
  assert(counts_[block] > 0 && sealed_[block] != 0);
  RemoveFromBucket(block);
}

void BlockPool::Forget(int32_t block) {
  assert(counts_[block] == 0 && sealed_[block] != 0);
  RemoveFromBucket(block);
  Unlink(block);
  InsertAfter(free_list(), block);
  --n_evictable_;
  ++n_free_;
}

void BlockPool::ForgetAllEvictable() {
  while (n_evictable_ > 0) Forget(next_[evictable_list()]);
}

int32_t BlockPool::Find(uint64_t hash) const {
  int32_t block = buckets_[BucketOf(hash)];
  while (block != kNone && hashes_[block] != hash) block = bucket_next_[block];
  return block;
}

int BlockPool::Match(std::span<const uint64_t> chain, std::vector<int32_t>* held) {
  int n_matched = 0;
  for (const uint64_t hash : chain) {
    const int32_t block = Find(hash);
    if (block == kNone) break;
    Share(block);
    held->push_back(block);
    ++n_matched;
  }
  return n_matched;
}

absl::Status BlockPool::CheckInvariants() const {
  int n_listed[2] = {0, 0};
  std::vector<uint8_t> listed(n_blocks(), 0);
  for (const int32_t list : {free_list(), evictable_list()}) {
    for (int32_t block = next_[list]; block != list; block = next_[block]) {
      const bool is_evictable = list == evictable_list();
      if (block >= n_blocks() || listed[block]++ != 0 || counts_[block] != 0 || (sealed_[block] != 0) != is_evictable ||
          next_[prev_[block]] != block) {
        return absl::InternalError(absl::StrFormat("block pool: block %d is wrong in the %s list", block,
                                                   is_evictable ? "evictable" : "free"));
      }
      ++n_listed[is_evictable];
    }
  }
  int n_held = 0, n_sealed = 0, n_found = 0, n_reclaimable = 0;
  for (int32_t block = 0; block < n_blocks(); ++block) {
    n_held += counts_[block] > 0;
    n_reclaimable += reclaimable(block);
    if (idle_counts_[block] < 0 || idle_counts_[block] > counts_[block]) {
      return absl::InternalError(absl::StrFormat("block pool: of %d holders of block %d, %d are idle", counts_[block],
                                                 block, idle_counts_[block]));
    }
    n_sealed += sealed_[block] != 0;
    n_found += sealed_[block] != 0 && Find(hashes_[block]) == block;
  }
  if (n_listed[0] != n_free_ || n_listed[1] != n_evictable_ || n_free_ + n_evictable_ + n_held != n_blocks()) {
    return absl::InternalError(
        absl::StrFormat("block pool: %d free + %d evictable + %d held are not %d blocks (listed "
                        "%d and %d)",
                        n_free_, n_evictable_, n_held, n_blocks(), n_listed[0], n_listed[1]));
  }
  if (n_reclaimable != n_reclaimable_) {
    return absl::InternalError(
        absl::StrFormat("block pool: %d blocks are held by idle ones alone, found %d", n_reclaimable_, n_reclaimable));
  }
  if (n_found != n_sealed) {
    return absl::InternalError(
        absl::StrFormat("block pool: of %d sealed blocks, %d are found by their hash", n_sealed, n_found));
  }
  return absl::OkStatus();
}

}  // namespace updraft::engine
