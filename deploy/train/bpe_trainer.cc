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

}  // namespace

absl::StatusOr<BpeVocabulary> TrainBpe(const PieceCounts& pieces, int32_t size) {
  if (size < kBytes + kControls) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer vocabulary: expected at least ", kBytes + kControls, " tokens, found ", size));
  }
  std::vector<Pair> merges;
  // Sorted, so that the order of a hash table cannot show in the result.
  std::vector<std::pair<std::string, int64_t>> sorted(pieces.begin(), pieces.end());
  std::sort(sorted.begin(), sorted.end());
  std::vector<Word> words;
  std::map<Pair, PairFacts> pairs;
  for (const auto& [piece, count] : sorted) {
    Word word{{}, count};
    for (char c : piece) word.symbols.push_back(static_cast<uint8_t>(c));
    const auto id = static_cast<int32_t>(words.size());
    for (size_t i = 0; i + 1 < word.symbols.size(); ++i) {
      PairFacts& facts = pairs[{word.symbols[i], word.symbols[i + 1]}];
      facts.count += count;
      facts.words.insert(id);
    }
    words.push_back(std::move(word));
  }

  while (static_cast<int32_t>(kBytes + merges.size()) < size - kControls) {
    const auto best = std::max_element(pairs.begin(), pairs.end(), [](const auto& a, const auto& b) {
      return a.second.count < b.second.count;  // the first, so the smallest ids, of equals
    });
    if (best == pairs.end() || best->second.count < 2) break;
    const Pair merged = best->first;
    const std::set<int32_t> touched = best->second.words;
    const auto result = static_cast<int32_t>(kBytes + merges.size());
    merges.push_back(merged);
    for (int32_t id : touched) {
      Word& word = words[id];
      const auto add = [&](int64_t sign) {
        for (size_t i = 0; i + 1 < word.symbols.size(); ++i) {
          PairFacts& facts = pairs[{word.symbols[i], word.symbols[i + 1]}];
          facts.count += sign * word.count;
          if (sign > 0) facts.words.insert(id);
        }
      };
      add(-1);
      std::vector<int32_t> symbols;
      for (size_t i = 0; i < word.symbols.size(); ++i) {
        if (i + 1 < word.symbols.size() && Pair(word.symbols[i], word.symbols[i + 1]) == merged) {
          symbols.push_back(result);
          ++i;
        } else {
          symbols.push_back(word.symbols[i]);
        }
      }
      word.symbols = std::move(symbols);
      add(+1);
    }
    pairs.erase(merged);
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
