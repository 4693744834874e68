#ifndef UPDRAFT_COMMON_TEXT_SCORE_BPE_H_
#define UPDRAFT_COMMON_TEXT_SCORE_BPE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace updraft::text {

// SentencePiece's BPE: the text is taken as characters, and again and again the two neighbours whose union is the token
// of the highest score (the leftmost of equals) become one (T. Kudo and J. Richardson, "SentencePiece", 2018).
//
// ids: tokens by text; scores: [n_vocab]; longest_token_bytes: of the keys of ids. `emit` is called with the stretches
// of the result in order: (bytes, id), or (bytes, -1) for a character that is no token. Takes O(n log n) for n
// characters. text.size() must be below 2^32.
void ScoreBpe(std::string_view text, const absl::flat_hash_map<std::string_view, int32_t>& ids,
              const std::vector<float>& scores, size_t longest_token_bytes,
              const std::function<void(std::string_view, int32_t)>& emit);

}  // namespace updraft::text

#endif  // UPDRAFT_COMMON_TEXT_SCORE_BPE_H_
