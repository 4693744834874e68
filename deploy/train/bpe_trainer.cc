#include "deploy/train/bpe_trainer.h"

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/text/byte_bpe.h"

namespace updraft::train {
namespace {

constexpr int32_t kBytes = 256, kControls = 3;

using Pair = std::pair<int32_t, int32_t>;

struct Word {
  std::vector<int32_t> symbols;
  int64_t count;
};

struct PairFacts {
  int64_t count = 0;
  std::set<int32_t> words;  // that may hold it
};

// The pair statistics of a set of words, and what merging the best pair does to them.
class Merger {
 public:
  // sorted: pieces in a fixed order, so that the order of a hash table cannot show in the result.
  explicit Merger(const std::vector<std::pair<std::string, int64_t>>& sorted) {
    for (const auto& [piece, count] : sorted) {
      Word word{{}, count};
      for (char c : piece) word.symbols.push_back(static_cast<uint8_t>(c));
      words_.push_back(std::move(word));
      Count(static_cast<int32_t>(words_.size()) - 1, +1);
    }
  }

  // The most frequent pair (of equals the one with the smaller ids) now is the token `result`. False when nothing
  // occurs twice.
  bool MergeBest(int32_t result, Pair* merged) {
    const auto best = std::max_element(pairs_.begin(), pairs_.end(), [](const auto& a, const auto& b) {
      return a.second.count < b.second.count;  // the first, so the smallest ids, of equals
    });
    if (best == pairs_.end() || best->second.count < 2) return false;
    *merged = best->first;
    const std::set<int32_t> touched = best->second.words;
    for (int32_t id : touched) {
      Count(id, -1);
      Replace(*merged, result, &words_[id].symbols);
      Count(id, +1);
    }
    pairs_.erase(*merged);
    return true;
  }

  const std::vector<Word>& words() const { return words_; }

 private:
  void Count(int32_t id, int64_t sign) {
    const Word& word = words_[id];
    for (size_t i = 0; i + 1 < word.symbols.size(); ++i) {
      PairFacts& facts = pairs_[{word.symbols[i], word.symbols[i + 1]}];
      facts.count += sign * word.count;
      if (sign > 0) facts.words.insert(id);
    }
  }

  static void Replace(const Pair& merged, int32_t result, std::vector<int32_t>* symbols) {
    size_t kept = 0;
    for (size_t i = 0; i < symbols->size(); ++i) {
      const bool here = i + 1 < symbols->size() && Pair((*symbols)[i], (*symbols)[i + 1]) == merged;
      (*symbols)[kept++] = here ? result : (*symbols)[i];
      i += here ? 1 : 0;
    }
    symbols->resize(kept);
  }

  std::vector<Word> words_;
  std::map<Pair, PairFacts> pairs_;
};

constexpr int64_t kOften = 3;

// Characters of more than one byte that occur at least `often` times, the most frequent first: (-count, character).
std::vector<std::pair<int64_t, std::string>> CharacterCounts(const PieceCounts& pieces, int64_t often) {
  std::map<std::string, int64_t> counts;
  for (const auto& [piece, count] : pieces) {
    for (size_t at = 0; at < piece.size();) {
      size_t end = at + 1;
      while (end < piece.size() && (static_cast<uint8_t>(piece[end]) & 0xC0) == 0x80) ++end;
      if (end - at > 1) counts[piece.substr(at, end - at)] += count;
      at = end;
    }
  }
  std::vector<std::pair<int64_t, std::string>> sorted;
  for (const auto& [character, count] : counts) {
    if (count >= often) sorted.emplace_back(-count, character);
  }
  std::sort(sorted.begin(), sorted.end());
  return sorted;
}

bool IsLetter(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte >= 0x80 || (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
}

// Whether a mark or space stands before letters, as pre-tokenizers leave it: " word", ".Name", "\"word".
bool HasPrefix(std::string_view piece) { return piece.size() > 1 && !IsLetter(piece[0]) && IsLetter(piece[1]); }

}  // namespace

absl::StatusOr<BpeVocabulary> TrainBpe(const PieceCounts& pieces, int32_t size, double prefix_share) {
  if (size < kBytes + kControls) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer vocabulary: expected at least ", kBytes + kControls, " tokens, found ", size));
  }
  // Words without what stands before them, and how often each stands behind which byte.
  std::map<std::string, int64_t> words;
  std::map<std::pair<std::string, uint8_t>, int64_t> prefixed;
  for (const auto& [piece, count] : pieces) {
    const bool prefix = HasPrefix(piece);
    const std::string word = prefix ? piece.substr(1) : piece;
    words[word] += count;
    if (prefix) prefixed[{word, static_cast<uint8_t>(piece[0])}] += count;
  }
  Merger merger({words.begin(), words.end()});
  const int32_t merges_wanted = size - kControls - kBytes;
  // Room is kept for the prefixes and, at two merges each, for characters that do not come about by themselves.
  const auto for_prefixes = static_cast<int32_t>(prefixed.empty() ? 0 : merges_wanted * prefix_share);
  const auto for_characters =
      std::min<int32_t>(2 * static_cast<int32_t>(CharacterCounts(pieces, kOften).size()), merges_wanted / 2);
  std::vector<Pair> merges;
  for (Pair merged; static_cast<int32_t>(merges.size()) < merges_wanted - for_prefixes - for_characters;
       merges.push_back(merged)) {
    if (!merger.MergeBest(static_cast<int32_t>(kBytes + merges.size()), &merged)) break;
  }
  const absl::StatusOr<BpeVocabulary> inner = VocabularyFromMerges(std::move(merges));
  if (!inner.ok()) return inner.status();
  absl::StatusOr<BpeVocabulary> whole = WithWholeCharacters(*inner, pieces, size - for_prefixes, kOften);
  if (!whole.ok()) return whole.status();
  merges = std::move(whole->merges);

  // Last, the prefix joins words that are one token by now, the most frequent first.
  std::vector<std::pair<int64_t, Pair>> candidates;  // -count, so that sorting breaks ties by ids
  size_t at = 0;
  for (const auto& [word, count] : words) {
    const std::vector<int32_t>& symbols = merger.words()[at++].symbols;
    if (symbols.size() != 1) continue;
    for (auto it = prefixed.lower_bound({word, 0}); it != prefixed.end() && it->first.first == word; ++it) {
      if (it->second >= 2) candidates.push_back({-it->second, {it->first.second, symbols[0]}});
    }
  }
  std::sort(candidates.begin(), candidates.end());
  for (const auto& [count, pair] : candidates) {
    if (static_cast<int32_t>(merges.size()) >= merges_wanted) break;
    merges.push_back(pair);
  }
  return VocabularyFromMerges(std::move(merges));
}

absl::StatusOr<BpeVocabulary> WithWholeCharacters(const BpeVocabulary& vocabulary, const PieceCounts& pieces,
                                                  int32_t size, int64_t often) {
  std::vector<Pair> merges = vocabulary.merges;
  const auto merger_of = [](const std::vector<Pair>& all) {
    std::vector<text::BpeMerge> ranked;
    for (size_t i = 0; i < all.size(); ++i)
      ranked.push_back({all[i].first, all[i].second, static_cast<int32_t>(kBytes + i)});
    return text::BpeMerger::Create(ranked);
  };
  const absl::StatusOr<text::BpeMerger> merger = merger_of(merges);
  if (!merger.ok()) return merger.status();
  std::map<Pair, int32_t> added;
  for (const auto& [negative_count, character] : CharacterCounts(pieces, often)) {
    std::vector<int32_t> symbols;
    for (char c : character) symbols.push_back(static_cast<uint8_t>(c));
    merger->Apply(&symbols);
    for (; symbols.size() > 1; symbols.erase(symbols.begin() + 1)) {
      const Pair pair(symbols[0], symbols[1]);
      const auto known = added.find(pair);
      if (known == added.end() && static_cast<int32_t>(merges.size()) >= size - kControls - kBytes) break;
      if (known == added.end()) {
        added[pair] = static_cast<int32_t>(kBytes + merges.size());
        merges.push_back(pair);
      }
      symbols[0] = added[pair];
    }
  }
  return VocabularyFromMerges(std::move(merges));
}

absl::StatusOr<BpeVocabulary> VocabularyFromMerges(std::vector<std::pair<int32_t, int32_t>> merges) {
  std::vector<std::string> bytes_of;  // per id
  for (int b = 0; b < kBytes; ++b) bytes_of.push_back(std::string(1, static_cast<char>(b)));
  for (const auto& [left, right] : merges) {
    const auto known = static_cast<int32_t>(bytes_of.size());
    if (left < 0 || left >= known || right < 0 || right >= known) {
      return absl::InvalidArgumentError(absl::StrCat("merge ", known - kBytes, ": expected two of the ", known,
                                                     " tokens before it, found ", left, " and ", right));
    }
    bytes_of.push_back(bytes_of[left] + bytes_of[right]);
  }
  BpeVocabulary vocabulary;
  vocabulary.merges = std::move(merges);
  for (const std::string& bytes : bytes_of) vocabulary.tokens.push_back(text::PrintableOfBytes(bytes));
  for (auto [name, id] : {std::pair{"<|endoftext|>", &vocabulary.end_of_text},
                          {"<|im_start|>", &vocabulary.im_start},
                          {"<|im_end|>", &vocabulary.im_end}}) {
    *id = static_cast<int32_t>(vocabulary.tokens.size());
    vocabulary.tokens.emplace_back(name);
  }
  return vocabulary;
}

}  // namespace updraft::train
