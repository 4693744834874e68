// The blocks of a paged KV cache, as ids and counts. Their bytes are somebody else's (common/model), so that a daemon,
// a simulator and a test share this one. After vLLM's block pool (Kwon et al. 2023).
//
// Every block is in one of three states, and their numbers add up to n_blocks():
//   held       count >= 1: that many sequences have it in their tables; reclaimable when all of these are idle
//   evictable  count 0 and sealed: nobody has it, but its contents are known and may be adopted again; the least
//              recently used goes first when a block is needed
//   free       count 0, contents unknown
// A sealed block is full, known by the hash of its contents, and read-only until it is unsealed.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"

namespace updraft::engine {

// One thread. Every call is O(1) (those that look a hash up: expected), Match O(blocks matched); nothing is allocated
// after construction. Ids are in [0, n_blocks()); lists run through arrays, so a call with another id, or one that
// breaks a REQUIRES, is a bug of the caller (asserted).
class BlockPool {
 public:
  explicit BlockPool(int n_blocks);  // >= 1

  int n_blocks() const { return static_cast<int>(counts_.size()); }
  int n_free() const { return n_free_; }
  int n_evictable() const { return n_evictable_; }
  int n_available() const { return n_free_ + n_evictable_; }  // that Take may hand out
  int n_held() const { return n_blocks() - n_available(); }
  int n_reclaimable() const { return n_reclaimable_; }  // held by idle ones alone

  // A block with count 1, not sealed: the one freed last, or else the least recently used evictable one, whose seal is
  // broken. REQUIRES: n_available() > 0.
  int32_t Take();
  // One holder more, a busy one. REQUIRES: the block is held or evictable.
  void Share(int32_t block);
  // One holder less; at 0 a sealed block becomes evictable, the most recently used one, another is free. Whoever lets a
  // whole table go does so from its end, so that a prefix outlives what follows it. REQUIRES: a busy one holds it.
  void Drop(int32_t block);
  // One of the block's holders is idle, would let it go when asked to; or is busy again. REQUIRES: a busy one holds it;
  // or an idle one.
  void SetIdle(int32_t block);
  void SetBusy(int32_t block);

  // Makes a full block known by the hash of its contents and of all that comes before it. False, and no effect, when
  // another block is known by that hash. REQUIRES: held, not sealed.
  bool Seal(int32_t block, uint64_t hash);
  // Breaks the seal, so that the block may be written again. REQUIRES: held, sealed.
  void Unseal(int32_t block);
  // Evictable blocks whose contents nobody shall adopt any more become free. REQUIRES of Forget: the block is
  // evictable.
  void Forget(int32_t block);
  void ForgetAllEvictable();
  // The sealed block of that hash, held or evictable; -1: none.
  int32_t Find(uint64_t hash) const;
  // Adopts the longest prefix of `chain` (hashes of blocks in order) that is here: shares each of its blocks, appends
  // them to `held`, returns how many. A hash is no proof: who cannot rule collisions out compares the contents.
  int Match(std::span<const uint64_t> chain, std::vector<int32_t>* held);

  int count(int32_t block) const { return counts_[block]; }
  int n_idle(int32_t block) const { return idle_counts_[block]; }  // of these
  bool sealed(int32_t block) const { return sealed_[block] != 0; }
  // Whether a holder must not write into it.
  bool read_only(int32_t block) const { return counts_[block] > 1 || sealed_[block] != 0; }

  // For tests: INTERNAL when lists, counts and seals contradict each other. O(n_blocks).
  absl::Status CheckInvariants() const;

 private:
  static constexpr int32_t kNone = -1;

  size_t BucketOf(uint64_t hash) const;
  void RemoveFromBucket(int32_t block);
  // Doubly linked lists with a sentinel each, through prev_ and next_.
  void InsertAfter(int32_t node, int32_t block);
  void Unlink(int32_t block);
  int32_t free_list() const { return n_blocks(); }
  int32_t evictable_list() const { return n_blocks() + 1; }

  bool reclaimable(int32_t block) const { return counts_[block] > 0 && counts_[block] == idle_counts_[block]; }

  std::vector<int32_t> counts_;       // [n_blocks]
  std::vector<int32_t> idle_counts_;  // [n_blocks]
  std::vector<uint8_t> sealed_;       // [n_blocks]
  std::vector<uint64_t> hashes_;      // [n_blocks], of sealed ones
  std::vector<int32_t> prev_, next_;  // [n_blocks + 2]; the last two are the sentinels
  std::vector<int32_t> buckets_;      // [power of two]: first sealed block of each bucket
  std::vector<int32_t> bucket_next_;  // [n_blocks]
  int n_free_ = 0;
  int n_evictable_ = 0;
  int n_reclaimable_ = 0;
};

}  // namespace updraft::engine
