#include "common/text/pretokenize.h"

#include <gtest/gtest.h>
#include <unicode/regex.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace updraft::text {
namespace {

using Pieces = std::vector<std::string>;

Pieces Cut(PreTokenizer kind, std::string_view text) {
  std::vector<std::string_view> views;
  PreTokenize(kind, text, &views);
  return {views.begin(), views.end()};
}

std::string Joined(const Pieces& pieces) {
  std::string all;
  for (const std::string& p : pieces) all += p;
  return all;
}

// ---- The published expressions, run by ICU's engine ---------------------------------------------------------------
// \s is spelled out, since ICU's leaves out U+0085
// and the vertical tab in some releases.
constexpr char kGpt2[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space}))"
    R"(|\p{White_Space}+)";
constexpr char kLlama3[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\p{White_Space}\p{L}\p{N}]+[\r\n]*)"
    R"(|\p{White_Space}*[\r\n]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+)";
constexpr char kQwen2[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\p{White_Space}\p{L}\p{N}]+[\r\n]*)"
    R"(|\p{White_Space}*[\r\n]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+)";
constexpr char kTekken[] =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"(|\p{N}| ?[^\p{White_Space}\p{L}\p{N}]+[\r\n/]*|\p{White_Space}*[\r\n]+|\p{White_Space}+(?!\P{White_Space}))"
    R"(|\p{White_Space}+)";
constexpr char kGpt4o[] =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\p{White_Space}\p{L}\p{N}]+[\r\n/]*|\p{White_Space}*[\r\n]+)"
    R"(|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+)";
constexpr char kDeepSeekLetters[] =
    R"(\p{White_Space}?[)"
    R"(A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293\u0295-\u02AF)"
    R"(\u0370-\u0373\u0376-\u0377\u037B-\u037D\u037F\u0386\u0388-\u038A\u038C\u038E-\u03A1\u03A3-\u03F5)"
    R"(\u03F7-\u0481\u048A-\u052F\u0531-\u0556\u10A0-\u10C5\u13A0-\u13F5\u13F8-\u13FD\u1C90-\u1CBA)"
    R"(\u1CBD-\u1CBF\u1D00-\u1D2B\u1D6B-\u1D77\u1D79-\u1D9A\u1E00-\u1F15\u1F18-\u1F1D\u1F20-\u1F45)"
    R"(\u1F48-\u1F4D\u1F50-\u1F57\u1F59\u1F5B\u1F5D\u1F5F-\u1F7D\u1F80-\u1FB4\u1FB6-\u1FBC\u1FBE)"
    R"(\u1FC2-\u1FC4\u1FC6-\u1FCC\u1FD0-\u1FD3\u1FD6-\u1FDB\u1FE0-\u1FEC\u1FF2-\u1FF4\u1FF6-\u1FFC\u2102)"
    R"(\u2107\u210A-\u2113\u2115\u2119-\u211D\u2124\u2126\u2128\u212A-\u212D\u212F-\u2134\u2139)"
    R"(\u213C-\u213F\u2145-\u2149\u214E\u2183-\u2184\u2C00-\u2C7B\u2C7E-\u2CE4\u2CEB-\u2CEE\u2CF2-\u2CF3)"
    R"(\uA640-\uA66D\uA680-\uA69B\uA722-\uA76F\uA771-\uA787\uA78B-\uA78E\uAB70-\uABBF\uFB00-\uFB06)"
    R"(\uFB13-\uFB17\uFF21-\uFF3A\uFF41-\uFF5A\U00010400-\U0001044F\U000104B0-\U000104D3)"
    R"(\U000104D8-\U000104FB\U00010C80-\U00010CB2\U00010CC0-\U00010CF2\U000118A0-\U000118DF)"
    R"(\U0001E900-\U0001E943)"
    R"(]+)";
constexpr char kFalconSymbols[] = R"([\p{P}\$\+<=>\^~\|`]+)";
constexpr char kDefaultSymbols[] = R"([\p{P}\$\+<=>\^~\|]+)";

struct Reference {
  PreTokenizer kind;
  const char* name;
  std::vector<const char*> passes;
};

std::vector<Reference> References() {
  return {
      {PreTokenizer::kGpt2, "gpt-2", {kGpt2}},
      {PreTokenizer::kLlama3, "llama-bpe", {kLlama3}},
      {PreTokenizer::kQwen2, "qwen2", {kQwen2}},
      {PreTokenizer::kTekken, "tekken", {kTekken}},
      {PreTokenizer::kGpt4o, "gpt-4o", {kGpt4o}},
      {PreTokenizer::kStarcoder, "starcoder", {R"(\p{N})", kGpt2}},
      {PreTokenizer::kFalcon, "falcon", {kFalconSymbols, kGpt2, "[0-9][0-9][0-9]"}},
      {PreTokenizer::kDeepSeekCoder,
       "deepseek-coder",
       {R"([\r\n])", R"(\p{White_Space}?\p{L}+)", R"(\p{White_Space}?\p{P}+)",
        R"([\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+)", R"(\p{N})"}},
      {PreTokenizer::kDeepSeekLlm,
       "deepseek-llm",
       {R"([\r\n])", kDeepSeekLetters,
        R"(\p{White_Space}?[!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002]+)",
        R"(\p{White_Space}+$(?!\n))", R"([\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+)", R"(\p{N}+)"}},
      {PreTokenizer::kDefault, "default", {kDefaultSymbols, kGpt2, R"(\p{N}+)", "[0-9][0-9][0-9]"}},
  };
}

using Patterns = std::vector<std::unique_ptr<icu::RegexPattern>>;

Patterns Compile(const std::vector<const char*>& passes) {
  Patterns patterns;
  for (const char* pass : passes) {
    UErrorCode error = U_ZERO_ERROR;
    patterns.emplace_back(icu::RegexPattern::compile(icu::UnicodeString::fromUTF8(pass), 0, error));
    EXPECT_TRUE(U_SUCCESS(error)) << pass << ": " << u_errorName(error);
  }
  return patterns;
}

// What an expression is matched against. llama.cpp, which is followed where implementations differ, takes white space
// beyond ASCII for a vertical tab where an expression names no class (unicode_regex_split in its unicode.cpp): it is \s
// there, and in no list of characters, although U+3000 lies within some.
icu::UnicodeString Matched(const icu::UnicodeString& part, const icu::RegexPattern& pattern) {
  const icu::UnicodeString expression = pattern.pattern();
  const bool names_a_class = expression.indexOf("\\p{L}") >= 0 || expression.indexOf("\\p{N}") >= 0 ||
                             expression.indexOf("\\p{P}") >= 0 || expression.indexOf("\\p{Lu}") >= 0;
  if (names_a_class) return part;
  icu::UnicodeString matched = part;
  for (int32_t i = 0; i < matched.length(); ++i) {
    if (matched[i] > 0x7F && u_isUWhiteSpace(matched[i])) matched.setCharAt(i, 0x0B);
  }
  return matched;
}

Pieces CutByRegex(const Patterns& patterns, const std::string& text) {
  std::vector<icu::UnicodeString> parts = {icu::UnicodeString::fromUTF8(text)};
  for (const auto& pattern : patterns) {
    UErrorCode error = U_ZERO_ERROR;
    std::vector<icu::UnicodeString> next;
    for (const icu::UnicodeString& part : parts) {
      const icu::UnicodeString matched = Matched(part, *pattern);
      const std::unique_ptr<icu::RegexMatcher> matcher(pattern->matcher(matched, error));
      int32_t gap = 0;
      const auto keep = [&](int32_t begin, int32_t end) {
        if (begin < end) next.emplace_back(part, begin, end - begin);
      };
      while (matcher->find(error) && U_SUCCESS(error)) {
        keep(gap, matcher->start(error));
        keep(matcher->start(error), matcher->end(error));
        gap = matcher->end(error);
      }
      keep(gap, part.length());
    }
    parts.swap(next);
  }
  Pieces pieces;
  for (const icu::UnicodeString& part : parts) part.toUTF8String(pieces.emplace_back());
  return pieces;
}

// Text that stands on the edges of the expressions: every class, both cases, contractions, runs of spaces and breaks.
std::string RandomText(std::mt19937_64* rng) {
  static const std::vector<std::string> kAtoms = {
      "a",      "Z",      "s",      "'",      "'s",     "'T",     "'re",    "'LL",    "'vE", "'d",     "'\u017F",
      "\u212A", "0",      "7",      "12",     "²",      "Ⅷ",      "½",      "٣",      " ",   " ",      "  ",
      "\t",     "\n",     "\r",     "\r\n",   "\u00A0", "\u0085", "\u3000", "\v",     "\f",  ".",      ",",
      "!",      "/",      "$",      "+",      "`",      "|",      "^",      "<",      "_",   "-",      "é",
      "Ü",      "ß",      "я",      "Ж",      "ǅ",      "我",     "想",     "가",     "ひ",  "ク",     "😀",
      "🚀",      "‍",    "\u0301", "\u0903", "ក",      "់",       "،",      "。",     "「",  "！",     "～",
      "＂",     "Ａ",     "x",      "B",      "ʰ",      "ª",      "\uFFFD", "\u200B", "Ω",   "\u3000", "\uFEFF",
      "\u2003", "\u202F", "\u1680", "\u0301", "\u3001"};
  std::uniform_int_distribution<size_t> pick(0, kAtoms.size() - 1);
  std::string text;
  const size_t n = std::uniform_int_distribution<size_t>(1, 14)(*rng);
  for (size_t i = 0; i < n; ++i) text += kAtoms[pick(*rng)];
  return text;
}

TEST(PreTokenizeTest, EqualsThePublishedExpressionsOnRandomText) {
  for (const Reference& reference : References()) {
    SCOPED_TRACE(reference.name);
    const Patterns patterns = Compile(reference.passes);
    for (uint64_t seed = 1; seed <= 4000; ++seed) {
      std::mt19937_64 rng(seed);
      const std::string text = RandomText(&rng);
      ASSERT_EQ(Cut(reference.kind, text), CutByRegex(patterns, text)) << "seed " << seed << ", text: " << text;
    }
  }
}

TEST(PreTokenizeTest, EqualsThePublishedExpressionsOnEveryCharacter) {
  // Each character of the Basic Multilingual Plane and the emoji block, between letters, between digits and spaced.
  for (const Reference& reference : References()) {
    SCOPED_TRACE(reference.name);
    const Patterns patterns = Compile(reference.passes);
    icu::UnicodeString block;
    for (UChar32 c = 1; c < 0x1FA00; ++c) {
      if (c == 0xD800) c = 0xE000;
      if (c == 0x10000) c = 0x1F300;
      block.append(UChar32{'a'})
          .append(c)
          .append(UChar32{'1'})
          .append(c)
          .append(UChar32{' '})
          .append(c)
          .append(UChar32{'b'});
      if (block.length() < 2000 && c + 1 < 0x1FA00) continue;
      std::string text;
      block.toUTF8String(text);
      ASSERT_EQ(Cut(reference.kind, text), CutByRegex(patterns, text)) << "block ending at U+" << std::hex << c;
      block.remove();
    }
  }
}

TEST(PreTokenizeTest, KnownCuts) {
  EXPECT_EQ(Cut(PreTokenizer::kGpt2, "I'll pay  12345 kg!\n\n ok"),
            (Pieces{"I", "'ll", " pay", " ", " 12345", " kg", "!", "\n\n", " ok"}));
  EXPECT_EQ(Cut(PreTokenizer::kLlama3, "I'LL pay  12345 kg!\n\n ok"),
            (Pieces{"I", "'LL", " pay", " ", " ", "123", "45", " kg", "!\n\n", " ok"}));
  EXPECT_EQ(Cut(PreTokenizer::kQwen2, "22°C"), (Pieces{"2", "2", "°C"}));
  EXPECT_EQ(Cut(PreTokenizer::kTekken, "helloWorld HTTPServer"), (Pieces{"hello", "World", " HTTPServer"}));
  EXPECT_EQ(Cut(PreTokenizer::kFalcon, "12345"), (Pieces{"123", "45"}));
}

TEST(PreTokenizeTest, DeepSeekLettersLeaveOutUncasedOnes) {
  EXPECT_EQ(Cut(PreTokenizer::kDeepSeekLlm, "aƻb"), (Pieces{"a", "ƻ", "b"}));  // U+01BB has no case
  EXPECT_EQ(Cut(PreTokenizer::kDeepSeekLlm, " ώΐΊ"), (Pieces{" ώΐΊ"}));
}

// As llama.cpp cuts it: seen in its ids of the DeepSeek LLM vocabulary.
TEST(PreTokenizeTest, DeepSeekSymbolsLeaveOutSpaces) {
  EXPECT_EQ(Cut(PreTokenizer::kDeepSeekLlm, "\u00A0\u3000\u0301\uFEFF\u0301"),
            (Pieces{"\u00A0\u3000\u0301\uFEFF\u0301"}));
  EXPECT_EQ(Cut(PreTokenizer::kDeepSeekCoder, "我\u3000想"), (Pieces{"我", "\u3000", "想"}));
}

TEST(PreTokenizeTest, LosesNoByteOfAnything) {
  for (const Reference& reference : References()) {
    EXPECT_TRUE(Cut(reference.kind, "").empty());
    for (uint64_t seed = 1; seed <= 2000; ++seed) {
      std::mt19937_64 rng(seed);
      std::string text(std::uniform_int_distribution<size_t>(1, 60)(rng), '\0');
      for (char& byte : text) byte = static_cast<char>(rng());
      const Pieces pieces = Cut(reference.kind, text);
      ASSERT_EQ(Joined(pieces), text) << reference.name << ", seed " << seed;
      for (const std::string& piece : pieces) ASSERT_FALSE(piece.empty()) << reference.name << ", seed " << seed;
    }
  }
}

TEST(PreTokenizeTest, BadUtf8IsNeitherLetterNorSpace) {
  EXPECT_EQ(Cut(PreTokenizer::kGpt2, "ab\xC3"), (Pieces{"ab", "\xC3"}));
  EXPECT_EQ(Cut(PreTokenizer::kGpt2, "\xE6\x88 x"), (Pieces{"\xE6\x88", " x"}));
  EXPECT_EQ(Cut(PreTokenizer::kGpt2,
                "1\xFF\xFE"
                "2"),
            (Pieces{"1", "\xFF\xFE", "2"}));
}

TEST(PreTokenizeTest, LongRunsTakeLinearTime) {
  // A scan that went quadratic would need minutes for a megabyte; the bound leaves room for a slow, sanitized build.
  for (const Reference& reference : References()) {
    for (const std::string_view atom : {"a", " ", "\n", "1", "!", "'", "\xFF", " \n", "Aa", "\u0301"}) {
      std::string text;
      while (text.size() < (1u << 20)) text += atom;
      const auto start = std::chrono::steady_clock::now();
      const Pieces pieces = Cut(reference.kind, text);
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      EXPECT_LT(took.count(), 10.0) << reference.name << " on a run of '" << atom << "'";
      EXPECT_EQ(Joined(pieces).size(), text.size());
    }
  }
}

TEST(PreTokenizeTest, NamesOfTheFilesAreKnown) {
  EXPECT_EQ(PreTokenizerByName("llama-bpe"), PreTokenizer::kLlama3);
  EXPECT_EQ(PreTokenizerByName("qwen2"), PreTokenizer::kQwen2);
  EXPECT_EQ(PreTokenizerByName("gpt-2"), PreTokenizer::kGpt2);
  EXPECT_EQ(PreTokenizerByName("deepseek-llm"), PreTokenizer::kDeepSeekLlm);
  EXPECT_EQ(PreTokenizerByName("no-such"), std::nullopt);
  EXPECT_EQ(PreTokenizerByName(""), std::nullopt);
}

}  // namespace
}  // namespace updraft::text
