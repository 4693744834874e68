// What is read of a prompt before the first token. A change here changes what fitted weights mean: it needs a new
// Router::kVersion.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>
#include <vector>

#include "common/routing/router.h"

namespace updraft {
namespace {

enum class Kind : uint8_t { kSpace, kLetter, kUpper, kDigit, kPunctuation, kIdeograph };

struct Character {
  Kind kind;
  int bytes;
};

// By the first byte alone, which is enough to tell letters from signs in the blocks that people write in; whatever is
// ill-formed counts as a letter of one byte.
Character CharacterAt(std::string_view text, size_t at) {
  const auto byte = static_cast<unsigned char>(text[at]);
  if (byte < 0x80) {
    if (byte >= 'a' && byte <= 'z') return {Kind::kLetter, 1};
    if (byte >= 'A' && byte <= 'Z') return {Kind::kUpper, 1};
    if (byte >= '0' && byte <= '9') return {Kind::kDigit, 1};
    return {byte <= ' ' || byte == 0x7f ? Kind::kSpace : Kind::kPunctuation, 1};
  }
  const int length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
  for (int i = 1; i < length; ++i) {
    if (at + i >= text.size() || (static_cast<unsigned char>(text[at + i]) & 0xc0) != 0x80) return {Kind::kLetter, 1};
  }
  const bool cjk_sign = byte == 0xe3 && static_cast<unsigned char>(text[at + 1]) == 0x80;  // U+3000 to U+303F
  if (byte == 0xc2 || byte == 0xe2 || byte == 0xef || cjk_sign) return {Kind::kPunctuation, length};
  if (byte >= 0xe3 && byte <= 0xed) return {Kind::kIdeograph, length};  // kana, Han, Hangul
  return {byte >= 0xf0 ? Kind::kIdeograph : Kind::kLetter, length};     // rare Han, emoji: each a word
}

// FNV-1a, its bits mixed before the upper ones are taken.
class Hash {
 public:
  void Add(unsigned char byte) { state_ = (state_ ^ byte) * 0x100000001b3ull; }
  uint32_t Take() const {
    uint64_t h = state_;
    h = (h ^ (h >> 32)) * 0xd6e8feb86659fd93ull;
    return static_cast<uint32_t>((h ^ (h >> 32)) >> (64 - RouterInput::kHashBits));
  }
  uint64_t state() const { return state_; }

 private:
  uint64_t state_ = 0xcbf29ce484222325ull;
};

struct Counts {
  double characters = 0, words = 0, letters_in_words = 0, long_words = 0, numbers = 0, digits = 0, upper = 0,
         punctuation = 0, ideographs = 0, beyond_ascii = 0, sentences = 0, newlines = 0, commas = 0, questions = 0,
         percents = 0, currencies = 0, slashes = 0, code_signs = 0;
  bool asks_by_word = false, ends_with_question = false;
};

bool IsQuestionWord(std::string_view word) {
  static constexpr std::string_view kWords[] = {"what", "which", "who", "whose", "when", "where", "why", "how"};
  return std::find(std::begin(kWords), std::end(kWords), word) != std::end(kWords);
}

// Walks over a prompt once: counts, and hashes of words and of neighbours.
class Reader {
 public:
  explicit Reader(RouterInput& input) : input_(input) {}

  void Read(std::string_view text) {
    for (size_t at = 0; at < text.size();) {
      const Character character = CharacterAt(text, at);
      CountCharacter(text, at, character);
      const Kind run = character.kind == Kind::kUpper ? Kind::kLetter : character.kind;
      if (run != run_ || run == Kind::kIdeograph) EndWord();
      run_ = run;
      if (run != Kind::kSpace && run != Kind::kPunctuation) {
        AddToWord(text.substr(at, character.bytes), character.kind == Kind::kUpper);
      }
      at += character.bytes;
    }
    EndWord();
    Finish();
  }

 private:
  void CountCharacter(std::string_view text, size_t at, const Character& character) {
    const char c = text[at];
    ++counts_.characters;
    counts_.upper += character.kind == Kind::kUpper;
    counts_.digits += character.kind == Kind::kDigit;
    counts_.ideographs += character.kind == Kind::kIdeograph;
    counts_.beyond_ascii += character.bytes > 1;
    counts_.punctuation += character.kind == Kind::kPunctuation;
    counts_.newlines += c == '\n';
    counts_.commas += c == ',';
    counts_.percents += c == '%';
    counts_.slashes += c == '/';
    const std::string_view sign = text.substr(at, character.bytes);
    counts_.currencies += c == '$' || sign == "\u20ac" || sign == "\u00a3" || sign == "\u00a5";
    counts_.code_signs += std::string_view("{}[]()=<>_;\\`^").find(c) != std::string_view::npos;
    const bool question = c == '?' || sign == "\uff1f", stop = c == '.' || c == '!' || sign == "\u3002";
    counts_.questions += question;
    const bool ends =
        at + character.bytes >= text.size() || CharacterAt(text, at + character.bytes).kind == Kind::kSpace;
    counts_.sentences += (question || stop) && (ends || character.bytes > 1);
    if (character.kind != Kind::kSpace) counts_.ends_with_question = question;
  }

  void AddToWord(std::string_view character, bool upper) {
    for (const char c : character) {
      const char lower = upper ? static_cast<char>(c | 0x20) : c;
      word_.Add(static_cast<unsigned char>(lower));
      if (word_bytes_ < kept_.size()) kept_[word_bytes_] = lower;
      ++word_bytes_;
    }
  }

  void EndWord() {
    if (word_bytes_ == 0) return;
    if (run_ == Kind::kDigit) {
      ++counts_.numbers;
    } else {
      ++counts_.words;
      counts_.letters_in_words += static_cast<double>(word_bytes_);
      counts_.long_words += word_bytes_ >= 8;
      if (IsQuestionWord({kept_.data(), std::min(word_bytes_, kept_.size())}) && word_bytes_ <= kept_.size()) {
        counts_.asks_by_word = true;
      }
    }
    input_.grams.push_back(word_.Take());
    ++n_words_;
    if (previous_ != 0) {
      Hash pair;
      for (const uint64_t part : {previous_, word_.state()}) {
        for (int i = 0; i < 8; ++i) pair.Add(static_cast<unsigned char>(part >> (8 * i)));
      }
      input_.grams.push_back(pair.Take());
    }
    previous_ = word_.state();
    word_ = Hash();
    word_bytes_ = 0;
  }

  void Finish() {
    std::sort(input_.grams.begin(), input_.grams.end());
    input_.grams.erase(std::unique(input_.grams.begin(), input_.grams.end()), input_.grams.end());
    const Counts& c = counts_;
    const double characters = c.characters + 1.0, words = c.words + 1.0, tokens = c.words + c.numbers + 1.0;
    const double sentences = std::max(c.sentences, 1.0);
    const double values[RouterInput::kFacts] = {std::log1p(c.characters),
                                                std::log1p(c.words),
                                                std::log1p(c.numbers),
                                                c.numbers / tokens,
                                                std::log1p(sentences),
                                                c.words / sentences,
                                                c.letters_in_words / words,
                                                c.long_words / words,
                                                static_cast<double>(input_.grams.size()) / (2.0 * n_words_ + 1.0),
                                                c.upper / characters,
                                                c.digits / characters,
                                                c.punctuation / characters,
                                                c.ideographs / characters,
                                                c.beyond_ascii / characters,
                                                std::log1p(c.newlines),
                                                std::log1p(c.commas),
                                                std::log1p(c.percents),
                                                std::log1p(c.currencies),
                                                std::log1p(c.slashes),
                                                std::log1p(c.code_signs),
                                                std::log1p(c.questions),
                                                c.asks_by_word ? 1.0 : 0.0,
                                                c.ends_with_question ? 1.0 : 0.0,
                                                std::log1p(c.long_words)};
    for (int i = 0; i < RouterInput::kFacts; ++i) input_.facts[i] = static_cast<float>(values[i]);
  }

  RouterInput& input_;
  Counts counts_;
  Hash word_;
  uint64_t previous_ = 0;  // state of the word before; 0: none
  Kind run_ = Kind::kSpace;
  std::array<char, 8> kept_{};  // the word's first bytes, in lower case
  size_t word_bytes_ = 0, n_words_ = 0;
};

}  // namespace

std::span<const std::string_view> RouterInput::FactNames() {
  static constexpr std::array<std::string_view, kFacts> kNames = {
      "log_characters",     "log_words",         "log_numbers",        "number_share",    "log_sentences",
      "words_per_sentence", "mean_word_bytes",   "long_word_share",    "distinct_grams",  "upper_share",
      "digit_share",        "punctuation_share", "ideograph_share",    "non_ascii_share", "log_newlines",
      "log_commas",         "log_percents",      "log_currencies",     "log_slashes",     "log_code_signs",
      "log_questions",      "asks_by_word",      "ends_with_question", "log_long_words"};
  return kNames;
}

RouterInput RouterInputOf(std::string_view prompt) {
  RouterInput input;
  if (prompt.size() > RouterInput::kMaxBytes) prompt.remove_prefix(prompt.size() - RouterInput::kMaxBytes);
  Reader(input).Read(prompt);
  return input;
}

}  // namespace updraft
