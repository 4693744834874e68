#include "common/text/score_bpe.h"

#include <limits>
#include <queue>

#include "common/text/utf8.h"

namespace updraft::text {
namespace {

constexpr uint32_t kEnd = std::numeric_limits<uint32_t>::max();

struct Symbol {
  uint32_t begin;  // into the text
  uint32_t bytes;  // 0: joined to the one before
  uint32_t previous;
  uint32_t next;
};

struct Candidate {
  float score;
  uint32_t left;                                  // index of the left symbol
  uint32_t bytes;                                 // of the union, to tell a stale candidate
  bool operator<(const Candidate& other) const {  // the heap's top is the largest: best score, then leftmost
    return score != other.score ? score < other.score : left > other.left;
  }
};

std::vector<Symbol> Characters(std::string_view text) {
  std::vector<Symbol> symbols;
  symbols.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const auto at = static_cast<uint32_t>(symbols.size());
    const auto bytes = static_cast<uint32_t>(DecodeUtf8(text, pos).bytes);
    symbols.push_back({static_cast<uint32_t>(pos), bytes, at == 0 ? kEnd : at - 1, at + 1});
    pos += bytes;
  }
  if (!symbols.empty()) symbols.back().next = kEnd;
  return symbols;
}

}  // namespace

void ScoreBpe(std::string_view text, const absl::flat_hash_map<std::string_view, int32_t>& ids,
              const std::vector<float>& scores, size_t longest_token_bytes,
              const std::function<void(std::string_view, int32_t)>& emit) {
  std::vector<Symbol> symbols = Characters(text);
  std::priority_queue<Candidate> heap;
  const auto consider = [&](uint32_t at) {
    if (at == kEnd || symbols[at].next == kEnd) return;
    const uint32_t bytes = symbols[at].bytes + symbols[symbols[at].next].bytes;
    if (bytes > longest_token_bytes) return;
    const auto it = ids.find(text.substr(symbols[at].begin, bytes));
    if (it != ids.end()) heap.push({scores[it->second], at, bytes});
  };
  for (uint32_t i = 0; i < symbols.size(); ++i) consider(i);
  while (!heap.empty()) {
    const Candidate top = heap.top();
    heap.pop();
    Symbol& left = symbols[top.left];
    // A merge nearby may have taken or grown either symbol since this candidate was found.
    if (left.bytes == 0 || left.next == kEnd || left.bytes + symbols[left.next].bytes != top.bytes) continue;
    Symbol& right = symbols[left.next];
    left.bytes = top.bytes;
    right.bytes = 0;
    left.next = right.next;
    if (left.next != kEnd) symbols[left.next].previous = top.left;
    consider(left.previous);
    consider(top.left);
  }
  for (uint32_t i = symbols.empty() ? kEnd : 0; i != kEnd; i = symbols[i].next) {
    const std::string_view bytes = text.substr(symbols[i].begin, symbols[i].bytes);
    const auto it = ids.find(bytes);
    emit(bytes, it == ids.end() ? -1 : it->second);
  }
}

}  // namespace updraft::text
