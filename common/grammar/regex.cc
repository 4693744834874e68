#include "common/grammar/regex.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"

namespace updraft::grammar {
namespace {

constexpr int kMaxDepth = 64;  // of groups

const CharRanges& Digits() {
  static const auto* const ranges = new CharRanges{{'0', '9'}};
  return *ranges;
}
const CharRanges& WordChars() {
  static const auto* const ranges = new CharRanges{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
  return *ranges;
}
// ECMA-262's WhiteSpace and LineTerminator.
const CharRanges& Spaces() {
  static const auto* const ranges =
      new CharRanges{{0x09, 0x0D},     {0x20, 0x20},     {0xA0, 0xA0},     {0x1680, 0x1680}, {0x2000, 0x200A},
                     {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
  return *ranges;
}
const CharRanges& LineEnds() {
  static const auto* const ranges = new CharRanges{{0x0A, 0x0A}, {0x0D, 0x0D}, {0x2028, 0x2029}};
  return *ranges;
}

class Parser {
 public:
  Parser(std::string_view pattern, Anchoring anchoring, Expressions& expressions, const MakeChars& make_chars)
      : text_(pattern), anchoring_(anchoring), e_(expressions), make_chars_(make_chars) {}

  absl::StatusOr<ExprId> Parse() {
    const ExprId whole = Alternatives(/*depth=*/0);
    if (status_.ok() && at_ < text_.size()) Fail("a ) without its (");
    if (!status_.ok()) return status_;
    return whole;
  }

 private:
  void Fail(const std::string& found) {
    if (!status_.ok()) return;
    status_ = absl::InvalidArgumentError(
        absl::StrFormat("expected a regular expression that can be followed character by character, found %s at byte "
                        "%d of '%s'",
                        found, at_, std::string(text_.substr(0, 200))));
  }
  bool more() const { return status_.ok() && at_ < text_.size(); }
  char peek(size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }
  bool Take(char c) {
    if (!more() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  ExprId Any() { return e_.Repeat(make_chars_(e_, Complement({})), 0, kNoMaximum); }

  ExprId Alternatives(int depth) {
    if (depth > kMaxDepth) Fail("groups nested too deeply");
    std::vector<ExprId> choices;
    do {
      choices.push_back(depth == 0 ? Anchored() : Branch(depth));
    } while (Take('|'));
    return e_.Choice(std::move(choices));
  }

  // Anchors have a meaning at the ends of the whole pattern's alternatives alone.
  ExprId Anchored() {
    bool from_start = anchoring_ == Anchoring::kWhole, to_end = anchoring_ == Anchoring::kWhole;
    while (Take('^')) from_start = true;
    const ExprId branch = Branch(0);
    while (Take('$')) to_end = true;
    std::vector<ExprId> parts;
    if (!from_start) parts.push_back(Any());
    parts.push_back(branch);
    if (!to_end) parts.push_back(Any());
    return e_.Sequence(std::move(parts));
  }

  ExprId Branch(int depth) {
    std::vector<ExprId> parts;
    while (more() && peek() != '|' && peek() != ')') {
      if (peek() == '$' && depth == 0) {
        size_t end = at_;
        while (end < text_.size() && text_[end] == '$') ++end;
        if (end == text_.size() || text_[end] == '|') break;
      }
      parts.push_back(Quantified(depth));
    }
    return e_.Sequence(std::move(parts));
  }

  ExprId Quantified(int depth) {
    ExprId atom = Atom(depth);
    for (int n = 0; more(); ++n) {
      if (n > kMaxDepth) Fail("too many quantifiers one after the other");
      int minimum = 0, maximum = kNoMaximum;
      if (Take('+')) {
        minimum = 1;
      } else if (Take('?')) {
        maximum = 1;
      } else if (peek() == '{' && TakeBounds(minimum, maximum)) {
      } else if (!Take('*')) {
        break;
      }
      if (peek() == '+') Fail("a possessive quantifier");
      Take('?');  // lazy: the same texts
      atom = e_.Repeat(atom, minimum, maximum);
    }
    return atom;
  }

  // False: it is a brace like any other sign.
  bool TakeBounds(int& minimum, int& maximum) {
    size_t at = at_ + 1;
    const auto number = [&]() -> std::optional<int> {
      int value = 0;
      const size_t begin = at;
      for (; at < text_.size() && text_[at] >= '0' && text_[at] <= '9'; ++at) {
        value = std::min(10 * value + (text_[at] - '0'), kMaxPatternRepeat + 1);
      }
      return at > begin ? std::optional(value) : std::nullopt;
    };
    const std::optional<int> low = number();
    if (!low) return false;
    std::optional<int> high = low;
    if (at < text_.size() && text_[at] == ',') {
      ++at;
      high = number();
    }
    if (at >= text_.size() || text_[at] != '}') return false;
    if (*low > kMaxPatternRepeat || high.value_or(0) > kMaxPatternRepeat) {
      Fail(absl::StrFormat("more than %d repetitions", kMaxPatternRepeat));
    } else if (high && *high < *low) {
      Fail("a quantifier whose bounds are the wrong way round");
      high = low;
    }
    at_ = at + 1;
    minimum = std::min(*low, kMaxPatternRepeat);
    maximum = high ? std::max(minimum, std::min(*high, kMaxPatternRepeat)) : kNoMaximum;
    return true;
  }

  ExprId Atom(int depth) {
    switch (peek()) {
      case '(':
        return Group(depth);
      case '[':
        return make_chars_(e_, Class());
      case '.':
        ++at_;
        return make_chars_(e_, Complement(LineEnds()));
      case '\\':
        return make_chars_(e_, Escape(/*in_class=*/false));
      case '^':
      case '$':
        Fail("an anchor within the pattern");
        return e_.Nothing();
      case '*':
      case '+':
      case '?':
        Fail("a quantifier with nothing before it");
        return e_.Nothing();
      default: {
        const char32_t c = Character();
        return make_chars_(e_, {{c, c}});
      }
    }
  }

  ExprId Group(int depth) {
    ++at_;
    if (Take('?')) {
      if (peek() == '<' && peek(1) != '=' && peek(1) != '!') {
        while (more() && peek() != '>') ++at_;
        if (!Take('>')) Fail("a group's name without its end");
      } else if (!Take(':')) {
        Fail("an assertion or a flag");
      }
    }
    const ExprId inner = Alternatives(depth + 1);
    if (!Take(')')) Fail("a ( without its )");
    return inner;
  }

  char32_t Character() {
    const auto byte = [this](size_t i) { return static_cast<unsigned char>(peek(i)); };
    const unsigned char first = byte(0);
    const size_t n = first < 0x80 ? 1 : first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : first >= 0xC2 ? 2 : 0;
    if (n == 0 || at_ + n > text_.size()) {
      Fail("text that is not UTF-8");
      return 0;
    }
    char32_t c = n == 1 ? first : first & (0x7F >> n);
    for (size_t i = 1; i < n; ++i) {
      if ((byte(i) & 0xC0) != 0x80) Fail("text that is not UTF-8");
      c = (c << 6) | (byte(i) & 0x3F);
    }
    at_ += n;
    return c;
  }

  char32_t Hex(size_t n) {
    char32_t value = 0;
    for (size_t i = 0; i < n; ++i) {
      const char c = peek();
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0 || !more()) {
        Fail("an escape without its digits");
        return 0;
      }
      value = 16 * value + static_cast<char32_t>(digit);
      ++at_;
    }
    return value;
  }

  char32_t Unicode() {
    if (Take('{')) {
      size_t n = 0;
      while (n < 7 && peek(n) != '}' && at_ + n < text_.size()) ++n;
      const char32_t c = Hex(n);
      if (!Take('}') || c > kMaxChar) Fail("an escape of no character");
      return std::min(c, kMaxChar);
    }
    const char32_t high = Hex(4);
    if (high < 0xD800 || high > 0xDBFF || peek() != '\\' || peek(1) != 'u') return high;
    at_ += 2;
    const char32_t low = Hex(4);
    if (low < 0xDC00 || low > 0xDFFF) Fail("half of a surrogate pair");
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
  }

  CharRanges Escape(bool in_class) {
    ++at_;
    if (!more()) {
      Fail("a \\ with nothing behind it");
      return {};
    }
    const char c = text_[at_];
    const auto one = [](char32_t what) { return CharRanges{{what, what}}; };
    if (static_cast<unsigned char>(c) >= 0x80) return one(Character());
    ++at_;
    switch (c) {
      case 'd':
        return Digits();
      case 'D':
        return Complement(Digits());
      case 'w':
        return WordChars();
      case 'W':
        return Complement(WordChars());
      case 's':
        return Spaces();
      case 'S':
        return Complement(Spaces());
      case 'n':
        return one('\n');
      case 't':
        return one('\t');
      case 'r':
        return one('\r');
      case 'f':
        return one('\f');
      case 'v':
        return one('\v');
      case '0':
        return one(0);
      case 'x':
        return one(Hex(2));
      case 'u':
        return one(Unicode());
      case 'c': {
        const char letter = peek();
        if (!((letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z'))) Fail("\\c without a letter");
        ++at_;
        return one(static_cast<char32_t>(letter % 32));
      }
      case 'b':
        if (in_class) return one('\b');
        [[fallthrough]];
      default:
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '1' && c <= '9')) {
          Fail(absl::StrFormat("\\%c, which is not known here,", c));
        }
        return one(static_cast<char32_t>(c));
    }
  }

  CharRanges Class() {
    ++at_;
    const bool negated = Take('^');
    CharRanges ranges;
    while (more() && peek() != ']') {
      const bool escaped = peek() == '\\';
      CharRanges low = escaped ? Escape(/*in_class=*/true) : One(Character());
      if (peek() != '-' || peek(1) == ']' || peek(1) == '\0') {
        ranges.insert(ranges.end(), low.begin(), low.end());
        continue;
      }
      ++at_;
      const CharRanges high = peek() == '\\' ? Escape(/*in_class=*/true) : One(Character());
      const bool single =
          low.size() == 1 && high.size() == 1 && low[0].first == low[0].second && high[0].first == high[0].second;
      if (!single || high[0].first < low[0].first) {
        Fail("a range of characters whose ends are none, or the wrong way round,");
        return {};
      }
      ranges.emplace_back(low[0].first, high[0].first);
    }
    if (!Take(']')) Fail("a [ without its ]");
    return negated ? Complement(ranges) : Sorted(ranges);
  }
  static CharRanges One(char32_t c) { return {{c, c}}; }

  const std::string_view text_;
  const Anchoring anchoring_;
  Expressions& e_;
  const MakeChars& make_chars_;
  size_t at_ = 0;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<ExprId> ParseRegex(std::string_view pattern, Anchoring anchoring, Expressions& expressions,
                                  const MakeChars& make_chars) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(absl::StrFormat("expected a regular expression of at most %d bytes, found %d",
                                                      kMaxPatternBytes, pattern.size()));
  }
  return Parser(pattern, anchoring, expressions, make_chars).Parse();
}

}  // namespace updraft::grammar
