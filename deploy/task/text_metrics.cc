#include "deploy/task/text_metrics.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace updraft {
namespace {

// Bytes of the UTF-8 sequence that a lead byte announces; 1 for anything that is none.
size_t SequenceLength(unsigned char lead) {
  if (lead >= 0xf0 && lead <= 0xf4) return 4;
  if (lead >= 0xe0 && lead < 0xf0) return 3;
  if (lead >= 0xc2 && lead < 0xe0) return 2;
  return 1;
}

// Scripts that are written without spaces: most of the three-byte range from U+2E80 on, and all four-byte CJK planes.
bool IsCjk(std::string_view sequence) {
  return (sequence.size() == 3 && static_cast<unsigned char>(sequence[0]) >= 0xe3) || sequence.size() == 4;
}

char LowerAscii(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

bool IsAsciiWord(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

std::map<std::vector<std::string>, int64_t> CountNgrams(const std::vector<std::string>& words, size_t order) {
  std::map<std::vector<std::string>, int64_t> counts;
  for (size_t i = 0; i + order <= words.size(); ++i) {
    ++counts[std::vector<std::string>(words.begin() + static_cast<std::ptrdiff_t>(i),
                                      words.begin() + static_cast<std::ptrdiff_t>(i + order))];
  }
  return counts;
}

int64_t Overlap(const std::map<std::vector<std::string>, int64_t>& a,
                const std::map<std::vector<std::string>, int64_t>& b) {
  int64_t shared = 0;
  for (const auto& [ngram, count] : a) {
    const auto found = b.find(ngram);
    if (found != b.end()) shared += std::min(count, found->second);
  }
  return shared;
}

}  // namespace

std::vector<std::string> ScoringWords(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  const auto end_word = [&] {
    if (!word.empty()) words.push_back(std::move(word));
    word.clear();
  };
  for (size_t i = 0; i < text.size();) {
    const size_t length = std::min(SequenceLength(static_cast<unsigned char>(text[i])), text.size() - i);
    const std::string_view sequence = text.substr(i, length);
    i += length;
    if (length == 1 && static_cast<unsigned char>(sequence[0]) < 0x80) {
      if (IsAsciiWord(sequence[0])) {
        word += LowerAscii(sequence[0]);
      } else {
        end_word();
      }
    } else if (IsCjk(sequence)) {
      end_word();
      words.emplace_back(sequence);
    } else {
      word += sequence;
    }
  }
  end_word();
  return words;
}

bool ExactText(std::string_view expected, std::string_view got) { return ScoringWords(expected) == ScoringWords(got); }

double WordF1(std::string_view expected, std::string_view got) {
  const auto a = ScoringWords(expected), b = ScoringWords(got);
  if (a.empty() && b.empty()) return 1.0;
  const double shared = static_cast<double>(Overlap(CountNgrams(a, 1), CountNgrams(b, 1)));
  return 2.0 * shared / static_cast<double>(a.size() + b.size());
}

void CorpusBleu::Add(std::string_view expected, std::string_view got) {
  const auto reference = ScoringWords(expected), candidate = ScoringWords(got);
  expected_words_ += static_cast<int64_t>(reference.size());
  got_words_ += static_cast<int64_t>(candidate.size());
  for (size_t order = 1; order <= 4; ++order) {
    matches_[order - 1] += Overlap(CountNgrams(candidate, order), CountNgrams(reference, order));
    candidates_[order - 1] += candidate.size() >= order ? static_cast<int64_t>(candidate.size() - order + 1) : 0;
  }
}

double CorpusBleu::value() const {
  double log_precision = 0.0;
  int orders = 0;
  for (int i = 0; i < 4; ++i) {
    if (candidates_[i] == 0) continue;
    if (matches_[i] == 0) return 0.0;
    log_precision += std::log(static_cast<double>(matches_[i]) / static_cast<double>(candidates_[i]));
    ++orders;
  }
  if (orders == 0) return 0.0;
  const double brevity = got_words_ >= expected_words_
                             ? 0.0
                             : 1.0 - static_cast<double>(expected_words_) / static_cast<double>(got_words_);
  return std::exp(log_precision / orders + brevity);
}

}  // namespace updraft
