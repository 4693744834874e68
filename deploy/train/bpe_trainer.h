#ifndef UPDRAFT_DEPLOY_TRAIN_BPE_TRAINER_H_
#define UPDRAFT_DEPLOY_TRAIN_BPE_TRAINER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace updraft::train {

// A byte-level BPE vocabulary as model files keep it. Ids: the 256 bytes, then one per merge, then the control tokens.
struct BpeVocabulary {
  std::vector<std::string> tokens;  // in printable form (common/text/byte_bpe.h); control tokens as they are
  std::vector<std::pair<int32_t, int32_t>> merges;
  int32_t end_of_text = 0;
  int32_t im_start = 0;
  int32_t im_end = 0;  // ends a turn: the end-of-sequence token

  bool IsControl(int32_t id) const { return id == end_of_text || id == im_start || id == im_end; }
};

// Piece -> how often it occurs in the text to learn from.
using PieceCounts = std::unordered_map<std::string, int64_t>;

// Learns merges (most frequent pair first; of equals the one with the smaller ids) until there are `size` tokens or
// nothing occurs twice. Deterministic. The letters of a word come apart in the same way whatever stands before them: a
// space, dot or quote joins only words that are one token already, in `prefix_share` of the merges. Without this
// " Tevun" in a request and "\"Tevun" in its answer have no token in common, and small models fail to learn to copy.
absl::StatusOr<BpeVocabulary> TrainBpe(const PieceCounts& pieces, int32_t size, double prefix_share = 0.25);

// `vocabulary` with merges behind its own, so that every character that occurs in `pieces` at least `often` times is
// one token, as far as `size` tokens allow, the most frequent first. What was one token stays one: the new merges come
// last. Halves of characters are hard to copy, and a wrong one is not even text.
absl::StatusOr<BpeVocabulary> WithWholeCharacters(const BpeVocabulary& vocabulary, const PieceCounts& pieces,
                                                  int32_t size, int64_t often = 3);

// The vocabulary that merges (pairs of ids, in order of rank) stand for. Refuses a merge of ids that it does not know
// yet.
absl::StatusOr<BpeVocabulary> VocabularyFromMerges(std::vector<std::pair<int32_t, int32_t>> merges);

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_BPE_TRAINER_H_
