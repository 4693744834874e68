#include "common/text/pretokenize.h"

#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace updraft::text {
namespace {

// What the regular expressions ask of a character, as bits. A character may have several.
enum CharClass : uint16_t {
  kLetter = 1 << 0,   // \p{L}
  kNumber = 1 << 1,   // \p{N}
  kSpace = 1 << 2,    // \s, that is \p{White_Space}
  kNewline = 1 << 3,  // [\r\n]
  kPunct = 1 << 4,    // \p{P}
  kUpper = 1 << 5,    // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]: may stand in the capital part of a word
  kLower = 1 << 6,    // [\p{Ll}\p{Lm}\p{Lo}\p{M}]: may stand in the small part
};

uint16_t ClassOf(UChar32 c) {
  const uint32_t category = U_GET_GC_MASK(c);
  uint16_t bits = 0;
  if (category & U_GC_L_MASK) bits |= kLetter;
  if (category & U_GC_N_MASK) bits |= kNumber;
  if (category & U_GC_P_MASK) bits |= kPunct;
  if (u_isUWhiteSpace(c)) bits |= kSpace;
  if (c == '\r' || c == '\n') bits |= kNewline;
  constexpr uint32_t kBothCases = U_GC_LM_MASK | U_GC_LO_MASK | U_GC_M_MASK;
  if (category & (U_GC_LU_MASK | U_GC_LT_MASK | kBothCases)) bits |= kUpper;
  if (category & (U_GC_LL_MASK | kBothCases)) bits |= kLower;
  return bits;
}

// ClassOf for ASCII, which is most of most text; a constant, so that it is there before any other static object.
constexpr std::array<uint16_t, 128> kAscii = [] {
  std::array<uint16_t, 128> table{};
  for (int c = 'A'; c <= 'Z'; ++c) table[c] = kLetter | kUpper;
  for (int c = 'a'; c <= 'z'; ++c) table[c] = kLetter | kLower;
  for (int c = '0'; c <= '9'; ++c) table[c] = kNumber;
  for (const char c : std::string_view("\t\n\v\f\r ")) table[c] = kSpace;
  for (const char c : std::string_view("\n\r")) table[c] |= kNewline;
  for (const char c : std::string_view("!\"#%&'()*,-./:;?@[\\]_{}")) table[c] = kPunct;
  return table;
}();

struct Char {
  UChar32 value;   // -1: bytes that are not UTF-8
  uint32_t bytes;  // 0: the end of the text
  uint16_t bits;
  bool Is(uint16_t mask) const { return (bits & mask) != 0; }
  bool end() const { return bytes == 0; }
};

// The text that one expression sees. Lookahead stops at its end, as it does when an engine is given a part.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : text_(text) {}

  Char At(size_t pos) const {
    if (pos >= text_.size()) return {-1, 0, 0};
    const auto byte = static_cast<uint8_t>(text_[pos]);
    if (byte < 0x80) return {byte, 1, kAscii[byte]};
    const char* data = text_.data() + pos;
    const auto left = static_cast<int32_t>(std::min<size_t>(text_.size() - pos, 4));
    int32_t used = 0;
    UChar32 c;
    U8_NEXT(data, used, left, c);
    if (c < 0) return {-1, static_cast<uint32_t>(used), 0};
    return {c, static_cast<uint32_t>(used), ClassOf(c)};
  }

  // Where the run of characters that have (or, for `SkipNone`, have none of) the bits of `mask` ends.
  size_t SkipAny(size_t pos, uint16_t mask) const {
    for (Char c = At(pos); c.Is(mask); c = At(pos)) pos += c.bytes;
    return pos;
  }
  size_t SkipNone(size_t pos, uint16_t mask) const {
    for (Char c = At(pos); !c.end() && !c.Is(mask); c = At(pos)) pos += c.bytes;
    return pos;
  }

  size_t size() const { return text_.size(); }

 private:
  std::string_view text_;
};

// An expression: the end of its match at `pos`, or `pos` when it does not match there.
using Matcher = size_t (*)(const Cursor& text, size_t pos);

// 's|'t|'re|'ve|'m|'ll|'d, with `any_case` as (?i:...). Case-insensitively, U+017F (long s) is an s too.
size_t MatchContraction(const Cursor& text, size_t pos, bool any_case) {
  if (text.At(pos).value != '\'') return pos;
  const auto letter = [&](size_t at) -> UChar32 {
    const UChar32 c = text.At(at).value;
    if (!any_case) return c;
    if (c == 0x17F) return 's';
    return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c;
  };
  const size_t first_at = pos + 1;
  const UChar32 first = letter(first_at);
  const size_t second_at = first_at + text.At(first_at).bytes;
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return second_at;
  const UChar32 second = letter(second_at);
  const bool two =
      (first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l');
  return two ? second_at + 1 : pos;
}

// \s+(?!\S)|\s+ : the white space up to the last one before a word, which goes with the word.
size_t MatchSpaces(const Cursor& text, size_t pos) {
  size_t last = pos;
  size_t end = pos;
  for (Char c = text.At(pos); c.Is(kSpace); c = text.At(end)) {
    last = end;
    end += c.bytes;
  }
  return end == text.size() || last == pos ? end : last;
}

// \s*[\r\n]+ : the white space up to the last line break of its run.
size_t MatchLineBreaks(const Cursor& text, size_t pos) {
  size_t after_last = pos;
  size_t at = pos;
  for (Char c = text.At(at); c.Is(kSpace); c = text.At(at)) {
    at += c.bytes;
    if (c.Is(kNewline)) after_last = at;
  }
  return after_last;
}

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// (A. Radford et al., "Language Models are Unsupervised Multitask Learners", 2019, encoder.py.)
size_t MatchGpt2(const Cursor& text, size_t pos) {
  if (const size_t end = MatchContraction(text, pos, /*any_case=*/false); end != pos) return end;
  const size_t body = text.At(pos).value == ' ' ? pos + 1 : pos;
  const Char first = text.At(body);
  if (first.Is(kLetter)) return text.SkipAny(body, kLetter);
  if (first.Is(kNumber)) return text.SkipAny(body, kNumber);
  if (!first.end() && !first.Is(kSpace)) return text.SkipNone(body, kSpace | kLetter | kNumber);
  return MatchSpaces(text, pos);
}

// \p{N}{1,limit}
size_t MatchNumber(const Cursor& text, size_t pos, int limit) {
  for (Char c = text.At(pos); limit > 0 && c.Is(kNumber); c = text.At(pos), --limit) pos += c.bytes;
  return pos;
}

//  ?[^\s\p{L}\p{N}]+[\r\n]* ; `slash` adds '/' to the last set.
size_t MatchSymbols(const Cursor& text, size_t pos, bool slash) {
  const size_t body = text.At(pos).value == ' ' ? pos + 1 : pos;
  size_t end = text.SkipNone(body, kSpace | kLetter | kNumber);
  if (end == body) return pos;
  for (Char c = text.At(end); c.Is(kNewline) || (slash && c.value == '/'); c = text.At(end)) end += c.bytes;
  return end;
}

// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|
// \s+(?!\S)|\s+   (tokenizer.json of Llama 3 with digits = 3, of Qwen2 with digits = 1.)
size_t MatchLlama3Like(const Cursor& text, size_t pos, int digits) {
  if (const size_t end = MatchContraction(text, pos, /*any_case=*/true); end != pos) return end;
  const Char first = text.At(pos);
  const size_t word = first.Is(kNewline | kLetter | kNumber) ? pos : pos + first.bytes;
  if (text.At(word).Is(kLetter)) return text.SkipAny(word, kLetter);
  if (first.Is(kNumber)) return MatchNumber(text, pos, digits);
  if (const size_t end = MatchSymbols(text, pos, /*slash=*/false); end != pos) return end;
  if (const size_t end = MatchLineBreaks(text, pos); end != pos) return end;
  return MatchSpaces(text, pos);
}
size_t MatchLlama3(const Cursor& text, size_t pos) { return MatchLlama3Like(text, pos, 3); }
size_t MatchQwen2(const Cursor& text, size_t pos) { return MatchLlama3Like(text, pos, 1); }

// U*L+ where U is kUpper and L is kLower, two sets that overlap. Greedy with backtracking: take all of U, then give
// back until an L can follow.
size_t MatchUpperThenLower(const Cursor& text, size_t pos) {
  size_t end = pos;
  size_t after_last_overlap = pos;  // the end of the last character of the run that is in both sets
  for (Char c = text.At(end); c.Is(kUpper); c = text.At(end)) {
    end += c.bytes;
    if (c.Is(kLower)) after_last_overlap = end;
  }
  if (text.At(end).Is(kLower)) return text.SkipAny(end, kLower);
  return after_last_overlap;
}

// U+L*
size_t MatchUppersThenLower(const Cursor& text, size_t pos) {
  const size_t end = text.SkipAny(pos, kUpper);
  return end == pos ? pos : text.SkipAny(end, kLower);
}

// P?U*L+|P?U+L* with P = [^\r\n\p{L}\p{N}], each followed by `contraction`?. A mark may be P, U and L at once, so P is
// tried taken first and then left out, as the engine would.
size_t MatchCasedWord(const Cursor& text, size_t pos, bool contraction) {
  const Char first = text.At(pos);
  const size_t word = first.Is(kNewline | kLetter | kNumber) ? pos : pos + first.bytes;
  for (const auto match : {MatchUpperThenLower, MatchUppersThenLower}) {
    for (const size_t start : {word, pos}) {
      const size_t end = match(text, start);
      if (end == start) continue;
      return contraction ? MatchContraction(text, end, /*any_case=*/true) : end;
    }
  }
  return pos;
}

// The word of MatchCasedWord, then \p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
size_t MatchTekkenLike(const Cursor& text, size_t pos, bool contraction, int digits) {
  if (const size_t end = MatchCasedWord(text, pos, contraction); end != pos) return end;
  if (text.At(pos).Is(kNumber)) return MatchNumber(text, pos, digits);
  if (const size_t end = MatchSymbols(text, pos, /*slash=*/true); end != pos) return end;
  if (const size_t end = MatchLineBreaks(text, pos); end != pos) return end;
  return MatchSpaces(text, pos);
}
size_t MatchTekken(const Cursor& text, size_t pos) { return MatchTekkenLike(text, pos, /*contraction=*/false, 1); }
size_t MatchGpt4o(const Cursor& text, size_t pos) { return MatchTekkenLike(text, pos, /*contraction=*/true, 3); }

size_t MatchOneNumber(const Cursor& text, size_t pos) { return MatchNumber(text, pos, 1); }
size_t MatchNumbers(const Cursor& text, size_t pos) { return text.SkipAny(pos, kNumber); }

// [\p{P}\$\+<=>\^~\|]+ ; `also_these` are the characters after \p{P}.
size_t MatchPunctAnd(const Cursor& text, size_t pos, std::string_view also_these) {
  for (Char c = text.At(pos); !c.end(); c = text.At(pos)) {
    const bool also = c.bytes == 1 && c.value >= 0 && also_these.find(static_cast<char>(c.value)) != also_these.npos;
    if (!c.Is(kPunct) && !also) break;
    pos += c.bytes;
  }
  return pos;
}

size_t MatchFalconSymbols(const Cursor& text, size_t pos) { return MatchPunctAnd(text, pos, "$+<=>^~|`"); }
// llama.cpp's own rules for files that name none leave out the backtick.
size_t MatchDefaultSymbols(const Cursor& text, size_t pos) { return MatchPunctAnd(text, pos, "$+<=>^~|"); }

// [0-9][0-9][0-9]
size_t MatchThreeDigits(const Cursor& text, size_t pos) {
  for (size_t at = pos; at < pos + 3; ++at) {
    const UChar32 c = text.At(at).value;
    if (c < '0' || c > '9') return pos;
  }
  return pos + 3;
}

using Range = std::pair<UChar32, UChar32>;  // first and last character
template <size_t n>
bool InRanges(const Range (&ranges)[n], UChar32 c) {
  const Range* after = std::upper_bound(ranges, ranges + n, c, [](UChar32 x, const Range& r) { return x < r.first; });
  return after != ranges && c <= (after - 1)->second;
}

// \s?[ranges]+ , or without the \s?. White space is in no range, although U+3000 and others lie within published ones:
// llama.cpp (unicode_regex_split) takes white space beyond ASCII for a vertical tab where an expression has no \p{..},
// and its ids are what files of this format are used with.
template <size_t n>
size_t MatchRanges(const Cursor& text, size_t pos, const Range (&ranges)[n], bool space_before) {
  const auto run_end = [&](size_t at) {
    for (Char c = text.At(at); !c.Is(kSpace) && InRanges(ranges, c.value); c = text.At(at)) at += c.bytes;
    return at;
  };
  const Char first = text.At(pos);
  const size_t body = space_before && first.Is(kSpace) ? pos + first.bytes : pos;
  const size_t end = run_end(body);
  return end == body ? pos : end;
}

// The cased letters that the DeepSeek LLM tokenizer.json lists one by one.
constexpr Range kDeepSeekLetters[] = {
    {0x41, 0x5A},       {0x61, 0x7A},       {0xB5, 0xB5},       {0xC0, 0xD6},       {0xD8, 0xF6},
    {0xF8, 0x1BA},      {0x1BC, 0x1BF},     {0x1C4, 0x293},     {0x295, 0x2AF},     {0x370, 0x373},
    {0x376, 0x377},     {0x37B, 0x37D},     {0x37F, 0x37F},     {0x386, 0x386},     {0x388, 0x38A},
    {0x38C, 0x38C},     {0x38E, 0x3A1},     {0x3A3, 0x3F5},     {0x3F7, 0x481},     {0x48A, 0x52F},
    {0x531, 0x556},     {0x10A0, 0x10C5},   {0x13A0, 0x13F5},   {0x13F8, 0x13FD},   {0x1C90, 0x1CBA},
    {0x1CBD, 0x1CBF},   {0x1D00, 0x1D2B},   {0x1D6B, 0x1D77},   {0x1D79, 0x1D9A},   {0x1E00, 0x1F15},
    {0x1F18, 0x1F1D},   {0x1F20, 0x1F45},   {0x1F48, 0x1F4D},   {0x1F50, 0x1F57},   {0x1F59, 0x1F59},
    {0x1F5B, 0x1F5B},   {0x1F5D, 0x1F5D},   {0x1F5F, 0x1F7D},   {0x1F80, 0x1FB4},   {0x1FB6, 0x1FBC},
    {0x1FBE, 0x1FBE},   {0x1FC2, 0x1FC4},   {0x1FC6, 0x1FCC},   {0x1FD0, 0x1FD3},   {0x1FD6, 0x1FDB},
    {0x1FE0, 0x1FEC},   {0x1FF2, 0x1FF4},   {0x1FF6, 0x1FFC},   {0x2102, 0x2102},   {0x2107, 0x2107},
    {0x210A, 0x2113},   {0x2115, 0x2115},   {0x2119, 0x211D},   {0x2124, 0x2124},   {0x2126, 0x2126},
    {0x2128, 0x2128},   {0x212A, 0x212D},   {0x212F, 0x2134},   {0x2139, 0x2139},   {0x213C, 0x213F},
    {0x2145, 0x2149},   {0x214E, 0x214E},   {0x2183, 0x2184},   {0x2C00, 0x2C7B},   {0x2C7E, 0x2CE4},
    {0x2CEB, 0x2CEE},   {0x2CF2, 0x2CF3},   {0xA640, 0xA66D},   {0xA680, 0xA69B},   {0xA722, 0xA76F},
    {0xA771, 0xA787},   {0xA78B, 0xA78E},   {0xAB70, 0xABBF},   {0xFB00, 0xFB06},   {0xFB13, 0xFB17},
    {0xFF21, 0xFF3A},   {0xFF41, 0xFF5A},   {0x10400, 0x1044F}, {0x104B0, 0x104D3}, {0x104D8, 0x104FB},
    {0x10C80, 0x10CB2}, {0x10CC0, 0x10CF2}, {0x118A0, 0x118DF}, {0x1E900, 0x1E943},
};
constexpr Range kDeepSeekSymbols[] = {{0x21, 0x2F},     {0x3A, 0x7E},     {0x2018, 0x201F},
                                      {0x3000, 0x3002}, {0xFF01, 0xFF0F}, {0xFF1A, 0xFF5E}};
constexpr Range kDeepSeekCjk[] = {{0x800, 0x9FA5}, {0xAC00, 0xD7FF}};

size_t MatchOneNewline(const Cursor& text, size_t pos) { return text.At(pos).Is(kNewline) ? pos + 1 : pos; }
size_t MatchDeepSeekLetters(const Cursor& text, size_t pos) { return MatchRanges(text, pos, kDeepSeekLetters, true); }
size_t MatchDeepSeekSymbols(const Cursor& text, size_t pos) { return MatchRanges(text, pos, kDeepSeekSymbols, true); }
size_t MatchDeepSeekCjk(const Cursor& text, size_t pos) { return MatchRanges(text, pos, kDeepSeekCjk, false); }

// \s+$
size_t MatchTrailingSpaces(const Cursor& text, size_t pos) {
  const size_t end = text.SkipAny(pos, kSpace);
  return end == text.size() ? end : pos;
}

// \s?\p{L}+ and \s?\p{P}+
size_t MatchSpaceAndRun(const Cursor& text, size_t pos, uint16_t mask) {
  const Char first = text.At(pos);
  const size_t body = first.Is(kSpace) ? pos + first.bytes : pos;
  const size_t end = text.SkipAny(body, mask);
  return end == body ? pos : end;
}
size_t MatchSpaceAndLetters(const Cursor& text, size_t pos) { return MatchSpaceAndRun(text, pos, kLetter); }
size_t MatchSpaceAndPunct(const Cursor& text, size_t pos) { return MatchSpaceAndRun(text, pos, kPunct); }

// Splits `text` by one expression: each match is a piece, and so is each gap between two matches.
void Split(Matcher match, std::string_view text, std::vector<std::string_view>* pieces) {
  const Cursor cursor(text);
  size_t gap = 0;
  size_t pos = 0;
  while (pos < text.size()) {
    const size_t end = match(cursor, pos);
    if (end == pos) {
      pos += cursor.At(pos).bytes;
      continue;
    }
    if (gap < pos) pieces->push_back(text.substr(gap, pos - gap));
    pieces->push_back(text.substr(pos, end - pos));
    gap = pos = end;
  }
  if (gap < text.size()) pieces->push_back(text.substr(gap));
}

constexpr size_t kMaxPasses = 6;
using Passes = std::array<Matcher, kMaxPasses>;  // unused ones at the end are null

const Passes& PassesOf(PreTokenizer kind) {
  static const Passes kGpt2 = {MatchGpt2};
  static const Passes kLlama3 = {MatchLlama3};
  static const Passes kQwen2 = {MatchQwen2};
  static const Passes kTekken = {MatchTekken};
  static const Passes kGpt4o = {MatchGpt4o};
  static const Passes kStarcoder = {MatchOneNumber, MatchGpt2};
  static const Passes kFalcon = {MatchFalconSymbols, MatchGpt2, MatchThreeDigits};
  static const Passes kDeepSeekLlm = {MatchOneNewline,     MatchDeepSeekLetters, MatchDeepSeekSymbols,
                                      MatchTrailingSpaces, MatchDeepSeekCjk,     MatchNumbers};
  static const Passes kDeepSeekCoder = {MatchOneNewline, MatchSpaceAndLetters, MatchSpaceAndPunct, MatchDeepSeekCjk,
                                        MatchOneNumber};
  static const Passes kDefault = {MatchDefaultSymbols, MatchGpt2, MatchNumbers, MatchThreeDigits};
  switch (kind) {
    case PreTokenizer::kGpt2:
      return kGpt2;
    case PreTokenizer::kLlama3:
      return kLlama3;
    case PreTokenizer::kQwen2:
      return kQwen2;
    case PreTokenizer::kTekken:
      return kTekken;
    case PreTokenizer::kGpt4o:
      return kGpt4o;
    case PreTokenizer::kStarcoder:
      return kStarcoder;
    case PreTokenizer::kFalcon:
      return kFalcon;
    case PreTokenizer::kDeepSeekLlm:
      return kDeepSeekLlm;
    case PreTokenizer::kDeepSeekCoder:
      return kDeepSeekCoder;
    case PreTokenizer::kDefault:
      return kDefault;
  }
  return kDefault;
}

}  // namespace

std::optional<PreTokenizer> PreTokenizerByName(std::string_view name) {
  static constexpr std::pair<std::string_view, PreTokenizer> kNames[] = {
      {"gpt-2", PreTokenizer::kGpt2},
      {"gpt2", PreTokenizer::kGpt2},
      {"mpt", PreTokenizer::kGpt2},
      {"olmo", PreTokenizer::kGpt2},
      {"phi-2", PreTokenizer::kGpt2},
      {"jais", PreTokenizer::kGpt2},
      {"llama3", PreTokenizer::kLlama3},
      {"llama-v3", PreTokenizer::kLlama3},
      {"llama-bpe", PreTokenizer::kLlama3},
      {"falcon3", PreTokenizer::kLlama3},
      {"dbrx", PreTokenizer::kLlama3},
      {"smaug-bpe", PreTokenizer::kLlama3},
      {"qwen2", PreTokenizer::kQwen2},
      {"deepseek-r1-qwen", PreTokenizer::kQwen2},
      {"stablelm2", PreTokenizer::kQwen2},
      {"tekken", PreTokenizer::kTekken},
      {"gpt-4o", PreTokenizer::kGpt4o},
      {"llama4", PreTokenizer::kGpt4o},
      {"starcoder", PreTokenizer::kStarcoder},
      {"refact", PreTokenizer::kStarcoder},
      {"command-r", PreTokenizer::kStarcoder},
      {"smollm", PreTokenizer::kStarcoder},
      {"codeshell", PreTokenizer::kStarcoder},
      {"falcon", PreTokenizer::kFalcon},
      {"deepseek-llm", PreTokenizer::kDeepSeekLlm},
      {"deepseek-coder", PreTokenizer::kDeepSeekCoder},
      {"default", PreTokenizer::kDefault},
  };
  for (const auto& [known, kind] : kNames) {
    if (known == name) return kind;
  }
  return std::nullopt;
}

void PreTokenize(PreTokenizer kind, std::string_view utf8, std::vector<std::string_view>* pieces) {
  const Passes& passes = PassesOf(kind);
  if (passes[1] == nullptr) {
    Split(passes[0], utf8, pieces);
    return;
  }
  std::vector<std::string_view> before;
  std::vector<std::string_view> after;
  if (!utf8.empty()) before.push_back(utf8);
  for (const Matcher pass : passes) {
    if (pass == nullptr) break;
    after.clear();
    for (const std::string_view part : before) Split(pass, part, &after);
    before.swap(after);
  }
  pieces->insert(pieces->end(), before.begin(), before.end());
}

}  // namespace updraft::text
