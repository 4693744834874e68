// Generic measures of a text against a reference, for tasks that have no form of their own.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace updraft {

// Words for scoring: ASCII letters lowered and kept together with digits and other non-ASCII letters, each CJK
// character a word of its own, ASCII punctuation and white space dropped. Any bytes are accepted.
std::vector<std::string> ScoringWords(std::string_view text);

// True when the scoring words are equal.
bool ExactText(std::string_view expected, std::string_view got);

// F1 of the bags of words (Rajpurkar et al. 2016); 1 when both are empty.
double WordF1(std::string_view expected, std::string_view got);

// Corpus BLEU-4 with brevity penalty (Papineni et al. 2002), one reference each, over ScoringWords. Orders without any
// n-gram in the candidates are left out, so that answers of one word can be scored; an order with n-grams but no match
// makes it 0.
class CorpusBleu {
 public:
  void Add(std::string_view expected, std::string_view got);
  double value() const;  // in [0, 1]

 private:
  std::array<int64_t, 4> matches_{}, candidates_{};
  int64_t expected_words_ = 0, got_words_ = 0;
};

}  // namespace updraft
