#ifndef UPDRAFT_COMMON_TEXT_SPECIAL_MATCHER_H_
#define UPDRAFT_COMMON_TEXT_SPECIAL_MATCHER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/container/flat_hash_map.h"

namespace updraft::text {

// Finds fixed strings in text: the leftmost, and of those that begin at one place the longest. A trie; a search costs
// at most the length of the longest string per byte of text. Immutable while it is searched.
class SpecialMatcher {
 public:
  struct Match {
    size_t begin;
    size_t end;
    int32_t id;
  };

  // `text` must not be empty; ids are not negative. Of two equal texts the first stays.
  void Add(std::string_view text, int32_t id);

  // The first match at or after `from`.
  std::optional<Match> Find(std::string_view text, size_t from) const;

  // The id whose text is exactly `text`.
  std::optional<int32_t> Exact(std::string_view text) const;

 private:
  struct Node {
    uint32_t index;
    int32_t id;  // -1: no text ends here
  };
  static uint64_t Key(uint32_t node, uint8_t byte) { return static_cast<uint64_t>(node) << 8 | byte; }

  std::array<bool, 256> first_{};  // bytes that a text begins with
  absl::flat_hash_map<uint64_t, Node> children_;
  uint32_t n_nodes_ = 1;  // the root is 0
};

}  // namespace updraft::text

#endif  // UPDRAFT_COMMON_TEXT_SPECIAL_MATCHER_H_
