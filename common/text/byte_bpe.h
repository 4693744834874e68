#ifndef UPDRAFT_COMMON_TEXT_BYTE_BPE_H_
#define UPDRAFT_COMMON_TEXT_BYTE_BPE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

namespace updraft::text {

// GPT-2's mapping between the 256 bytes and 256 printable characters, in which byte-level vocabularies and merges are
// written: bytes that print in Latin-1 stand for themselves, the 68 others for U+0100...U+0143 in order (a space is
// U+0120). Source: encoder.py of GPT-2, bytes_to_unicode.
char32_t PrintableOfByte(uint8_t byte);
std::optional<uint8_t> ByteOfPrintable(char32_t character);

// The same over strings. BytesOfPrintable: nullopt when `printable` is not UTF-8 or has a character outside the 256.
std::string PrintableOfBytes(std::string_view bytes);
std::optional<std::string> BytesOfPrintable(std::string_view printable);

// One merge: the symbols `left` and `right`, side by side, become `result`. Symbols are whatever ids the caller gives
// them (token ids, as a rule).
struct BpeMerge {
  int32_t left = 0;
  int32_t right = 0;
  int32_t result = 0;
};

// Applies ranked merges to one piece: again and again the pair of the lowest rank, the leftmost of equals, until none
// is left (R. Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units", 2016). Immutable after
// Create, so any number of threads may share one.
class BpeMerger {
 public:
  BpeMerger() = default;  // no merges

  // The rank of a merge is its place in `merges`; of two merges of one pair the first counts. Refuses negative symbols.
  // Any merges end: each application makes the piece one symbol shorter, whatever `result` is.
  static absl::StatusOr<BpeMerger> Create(std::span<const BpeMerge> merges);

  // Rewrites `*symbols` (a piece, one symbol per byte to begin with) in place. Negative symbols never merge. Takes
  // O(n log n) for n symbols.
  void Apply(std::vector<int32_t>* symbols) const;

  size_t size() const { return table_.size(); }

 private:
  struct Entry {
    int32_t rank;
    int32_t result;
  };
  const Entry* Find(int32_t left, int32_t right) const;
  void ApplyShort(std::vector<int32_t>* symbols) const;
  void ApplyLong(std::vector<int32_t>* symbols) const;

  absl::flat_hash_map<uint64_t, Entry> table_;  // key: left << 32 | right
};

}  // namespace updraft::text

#endif  // UPDRAFT_COMMON_TEXT_BYTE_BPE_H_
