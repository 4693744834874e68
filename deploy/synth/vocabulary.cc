#include "deploy/synth/vocabulary.h"

#include <algorithm>
#include <string_view>

namespace updraft {
namespace {

constexpr int32_t kNormal = 1;
constexpr int32_t kControl = 3;

std::string Utf8(uint32_t code_point) {
  if (code_point < 0x80) return {static_cast<char>(code_point)};
  return {static_cast<char>(0xC0 | (code_point >> 6)), static_cast<char>(0x80 | (code_point & 0x3F))};
}

// GPT-2's map of bytes to characters that print: those that print already stand for themselves, the rest are moved to
// U+0100 and up in order.
std::vector<std::string> ByteTokens() {
  std::vector<std::string> tokens;
  uint32_t moved = 0;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool prints = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    tokens.push_back(Utf8(prints ? byte : 0x100 + moved++));
  }
  return tokens;
}

}  // namespace

SynthVocabulary MakeSynthVocabulary(int n_vocab) {
  SynthVocabulary vocabulary;
  vocabulary.tokens = ByteTokens();
  const std::string space = vocabulary.tokens[' '];
  constexpr std::string_view kControls[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  const size_t n_words = n_vocab - std::size(kControls) - vocabulary.tokens.size();

  // Stems grow one letter at a time, so every word is the merge of two tokens that exist already, and no two are equal.
  constexpr std::string_view kLetters = "etaoinshrdlucmfwypvbgkjqxz";
  std::vector<std::string> stems = {space};
  for (const char letter : kLetters) stems.emplace_back(1, letter);
  const std::vector<std::string> letters(stems.begin() + 1, stems.end());
  for (size_t i = 0; vocabulary.merges.size() < n_words; ++i) {
    const std::string stem = stems[i];
    for (const std::string& letter : letters) {
      if (vocabulary.merges.size() == n_words) break;
      vocabulary.merges.push_back(stem + " " + letter);
      stems.push_back(stem + letter);
      vocabulary.tokens.push_back(stem + letter);
    }
  }

  vocabulary.types.assign(vocabulary.tokens.size(), kNormal);
  for (const std::string_view control : kControls) {
    vocabulary.tokens.emplace_back(control);
    vocabulary.types.push_back(kControl);
  }
  vocabulary.eos_id = static_cast<int32_t>(n_vocab - 1);
  vocabulary.pad_id = static_cast<int32_t>(n_vocab - 3);
  return vocabulary;
}

}  // namespace updraft
