// What an answer consists of, who wrote it, who decided that it stands, and what its reader has of it.
//
// The bytes that the reader has are a prefix of the joined entries and only grow: what was given is never replaced. A
// draft may be withdrawn because nothing of it was given.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "updraft/v1/inference.pb.h"

namespace updraft {

// Whose vocabulary the ids of a chunk are.
enum class IdSpace : uint8_t { kOurs, kForeign };

class Ledger {
 public:
  // Consecutive parts of the answer with one writer and one decider.
  struct Entry {
    std::string drafted_by;    // name of the tier that wrote it
    std::string decided_by;    // name of the tier that says it stands; empty: nobody yet
    std::vector<int32_t> ids;  // in this tier's vocabulary; none where only the text is known
    IdSpace id_space = IdSpace::kOurs;
    int n_tokens = 0;  // as its writer counts them
    std::string bytes;
  };

  // accepted_prefix: answer tokens that the tier below has already, text included. They are no part of any entry.
  explicit Ledger(std::vector<int32_t> accepted_prefix) : prefix_(std::move(accepted_prefix)) {}

  // Adds a chunk that its writer (chunk.tier) has not decided about. kForeign: the chunk's ids are dropped.
  // n_tokens: what the writer counts. Chunks without tokens and text add nothing.
  void Draft(v1::Chunk chunk, int n_tokens, IdSpace ids);
  // All that is undecided stands, says tier `by`.
  void Decide(const std::string& by);
  // Drops all that is undecided.
  void Withdraw();
  // Decided chunks that the reader does not have yet, in order; it has them from here on.
  std::vector<v1::Chunk> Give();

  const std::vector<Entry>& entries() const { return entries_; }
  bool given_any() const { return given_any_; }
  size_t given_bytes() const { return given_bytes_; }
  int given_tokens() const { return given_tokens_; }

  // Of what is decided: the ids, accepted prefix first. REQUIRES: ids_known().
  std::vector<int32_t> Ids() const;
  bool ids_known() const;  // every decided entry has ids of this tier's vocabulary
  std::string Text() const;
  // The same of all entries, undecided ones too. REQUIRES of AllIds: none is of a foreign vocabulary.
  std::vector<int32_t> AllIds() const;
  std::string AllText() const;
  const std::vector<int32_t>& accepted_prefix() const { return prefix_; }
  // [tier, tokens] of what is decided, neighbours of one tier joined.
  std::vector<v1::Provenance::Span> Spans() const;

 private:
  const std::vector<int32_t> prefix_;
  std::vector<Entry> entries_;  // undecided ones at the end
  struct Waiting {
    v1::Chunk chunk;
    int n_tokens = 0;
  };
  std::vector<Waiting> waiting_;  // not given yet; the last n_undecided_ are undecided
  size_t n_undecided_ = 0;
  bool given_any_ = false;
  size_t given_bytes_ = 0;
  int given_tokens_ = 0;
};

}  // namespace updraft
