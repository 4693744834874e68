#include "common/grammar/gbnf.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "common/grammar/regex.h"

namespace updraft::grammar {
namespace {

constexpr int kMaxDepth = 64;  // of groups

bool IsNameChar(char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_'; }

class GbnfParser {
 public:
  explicit GbnfParser(std::string_view text) : text_(text) {}

  absl::StatusOr<Grammar> Parse() {
    RuleOf("root");
    SkipSpace(/*lines=*/true);
    while (more()) ParseRule();
    if (!status_.ok()) return status_;
    for (const auto& [name, rule] : rules_) {
      if (g_.rules()[static_cast<size_t>(rule)].expression >= 0) continue;
      return absl::InvalidArgumentError(absl::StrFormat("expected a rule '%s' (%s ::= ...), found none", name, name));
    }
    return std::move(g_);
  }

 private:
  Expressions& e() { return g_.e(); }
  bool more() const { return status_.ok() && at_ < text_.size(); }
  char peek(size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }

  void Fail(const std::string& expected) {
    if (!status_.ok()) return;
    const auto line = 1 + std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(at_), '\n');
    status_ = absl::InvalidArgumentError(absl::StrFormat(
        "line %d: expected %s, found '%s'", line, expected,
        at_ < text_.size() ? std::string(text_.substr(at_, std::min<size_t>(16, text_.find('\n', at_) - at_)))
                           : std::string("the end")));
  }

  void SkipSpace(bool lines) {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '#') {
        while (at_ < text_.size() && text_[at_] != '\n') ++at_;
      } else if (c == ' ' || c == '\t' || (lines && (c == '\n' || c == '\r'))) {
        ++at_;
      } else {
        return;
      }
    }
  }

  RuleId RuleOf(const std::string& name) {
    const auto [it, is_new] = rules_.try_emplace(name, 0);
    if (is_new) it->second = g_.Declare(name);
    return it->second;
  }

  std::string Name() {
    const size_t begin = at_;
    while (at_ < text_.size() && IsNameChar(text_[at_])) ++at_;
    if (at_ == begin) Fail("the name of a rule");
    return std::string(text_.substr(begin, at_ - begin));
  }

  void ParseRule() {
    const std::string name = Name();
    SkipSpace(false);
    if (text_.substr(at_, 3) != "::=") return Fail("::= after the name of a rule");
    at_ += 3;
    SkipSpace(true);
    const RuleId rule = RuleOf(name);
    if (g_.rules()[static_cast<size_t>(rule)].expression >= 0)
      return Fail("each rule once; '" + name + "' is there twice,");
    const ExprId expression = Alternatives(0);
    if (!status_.ok()) return;
    g_.Define(rule, expression);
    if (more() && peek() != '\n' && peek() != '\r') return Fail("the end of the line");
    SkipSpace(true);
  }

  ExprId Alternatives(int depth) {
    if (depth > kMaxDepth) Fail("groups nested less deeply");
    std::vector<ExprId> choices = {Sequence(depth)};
    while (more() && peek() == '|') {
      ++at_;
      SkipSpace(true);
      choices.push_back(Sequence(depth));
    }
    return e().Choice(std::move(choices));
  }

  ExprId Sequence(int depth) {
    std::vector<ExprId> parts;
    while (more()) {
      const char c = peek();
      if (c == '|' || c == ')' || c == '\n' || c == '\r') break;
      const ExprId item = Item(depth);
      if (!status_.ok()) break;
      parts.push_back(Repeated(item));
      SkipSpace(/*lines=*/depth > 0);
    }
    return e().Sequence(std::move(parts));
  }

  ExprId Item(int depth) {
    const char c = peek();
    if (c == '"') return Literal();
    if (c == '[') return e().Chars(Class());
    if (c == '.') {
      ++at_;
      return e().Chars(Complement({}));
    }
    if (c == '(') {
      ++at_;
      SkipSpace(true);
      const ExprId inner = Alternatives(depth + 1);
      if (peek() != ')') Fail("a ) to the (");
      ++at_;
      return inner;
    }
    if (IsNameChar(c)) return e().Rule(RuleOf(Name()));
    Fail("a literal, a class, a rule or a group");
    return 0;
  }

  ExprId Repeated(ExprId item) {
    for (int n = 0;; ++n) {
      if (n > kMaxDepth) Fail("fewer quantifiers one after the other");
      if (!status_.ok()) return item;
      SkipSpace(false);
      const char c = peek();
      int minimum = 0, maximum = kNoMaximum;
      if (c == '+') {
        minimum = 1;
      } else if (c == '?') {
        maximum = 1;
      } else if (c == '{') {
        if (!Bounds(minimum, maximum)) return item;
        item = e().Repeat(item, minimum, maximum);
        continue;
      } else if (c != '*') {
        return item;
      }
      ++at_;
      item = e().Repeat(item, minimum, maximum);
    }
  }

  bool Bounds(int& minimum, int& maximum) {
    ++at_;
    const auto number = [this](int none) {
      SkipSpace(false);
      int value = 0;
      const size_t begin = at_;
      while (at_ - begin < 6 && peek() >= '0' && peek() <= '9') value = 10 * value + (text_[at_++] - '0');
      SkipSpace(false);
      return at_ == begin ? none : value;
    };
    minimum = number(-2);
    maximum = minimum;
    if (peek() == ',') {
      ++at_;
      maximum = number(kNoMaximum);
      if (minimum == -2) minimum = 0;
    }
    const bool fits = peek() == '}' && minimum >= 0 && minimum <= kMaxPatternRepeat && maximum <= kMaxPatternRepeat &&
                      (maximum == kNoMaximum || maximum >= minimum);
    if (!fits) {
      Fail(absl::StrFormat("{m}, {m,} or {m,n} of at most %d", kMaxPatternRepeat));
      return false;
    }
    ++at_;
    return true;
  }

  // A character within quotation marks or brackets, escapes resolved. A \xHH is a character of that number.
  char32_t Character() {
    const auto hex = [this](int n) {
      char32_t value = 0;
      for (int i = 0; i < n; ++i) {
        const char c = peek();
        const int digit = absl::ascii_isdigit(static_cast<unsigned char>(c)) ? c - '0'
                          : c >= 'a' && c <= 'f'                             ? c - 'a' + 10
                          : c >= 'A' && c <= 'F'                             ? c - 'A' + 10
                                                                             : -1;
        if (digit < 0) {
          Fail(absl::StrFormat("%d hexadecimal digits", n));
          return char32_t{0};
        }
        value = 16 * value + static_cast<char32_t>(digit);
        ++at_;
      }
      if (value > kMaxChar) Fail("a character");
      return std::min(value, kMaxChar);
    };
    const auto first = static_cast<unsigned char>(peek());
    if (first == '\\') {
      ++at_;
      const char c = peek();
      ++at_;
      switch (c) {
        case 'n':
          return '\n';
        case 'r':
          return '\r';
        case 't':
          return '\t';
        case 'x':
          return hex(2);
        case 'u':
          return hex(4);
        case 'U':
          return hex(8);
        case '\\':
        case '"':
        case '[':
        case ']':
        case '-':
        case '^':
          return static_cast<char32_t>(c);
        default:
          at_ -= std::min<size_t>(at_, 2);
          Fail("an escape that is known (\\n \\r \\t \\xHH \\uHHHH \\UHHHHHHHH \\\\ \\\" \\[ \\])");
          return 0;
      }
    }
    const size_t n = first < 0x80 ? 1 : first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : first >= 0xC2 ? 2 : 0;
    char32_t c = n == 1 ? first : first & (0x7F >> n);
    bool fits = n > 0 && at_ + n <= text_.size();
    for (size_t i = 1; fits && i < n; ++i) {
      fits = (static_cast<unsigned char>(peek(i)) & 0xC0) == 0x80;
      c = (c << 6) | (static_cast<unsigned char>(peek(i)) & 0x3F);
    }
    if (!fits) {
      Fail("text in UTF-8");
      return 0;
    }
    at_ += n;
    return c;
  }

  ExprId Literal() {
    ++at_;
    std::vector<ExprId> parts;
    while (more() && peek() != '"') {
      const char32_t c = Character();
      parts.push_back(e().Chars({{c, c}}));
    }
    if (peek() != '"') Fail("a quotation mark at the end of a literal");
    ++at_;
    return e().Sequence(std::move(parts));
  }

  CharRanges Class() {
    ++at_;
    const bool negated = peek() == '^';
    if (negated) ++at_;
    CharRanges ranges;
    while (more() && peek() != ']') {
      const char32_t low = Character();
      char32_t high = low;
      if (peek() == '-' && peek(1) != ']') {
        ++at_;
        high = Character();
      }
      if (high < low) Fail("a range of characters from the lower to the higher one");
      ranges.emplace_back(low, std::max(low, high));
    }
    if (peek() != ']') Fail("a ] at the end of a class");
    ++at_;
    return negated ? Complement(ranges) : Sorted(ranges);
  }

  const std::string_view text_;
  Grammar g_;
  std::map<std::string, RuleId> rules_;
  size_t at_ = 0;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<Grammar> GrammarOfGbnf(std::string_view text) {
  if (text.size() > kMaxGrammarBytes) {
    return absl::InvalidArgumentError(
        absl::StrFormat("expected a grammar of at most %d bytes, found %d", kMaxGrammarBytes, text.size()));
  }
  return GbnfParser(text).Parse();
}

absl::StatusOr<Grammar> GrammarOfRegex(std::string_view pattern) {
  Grammar grammar;
  const RuleId root = grammar.Declare("pattern");
  const auto chars = [](Expressions& e, const CharRanges& ranges) { return e.Chars(ranges); };
  const absl::StatusOr<ExprId> parsed = ParseRegex(pattern, Anchoring::kWhole, grammar.e(), chars);
  if (!parsed.ok()) return parsed.status();
  grammar.Define(root, *parsed);
  return grammar;
}

absl::StatusOr<Grammar> GrammarOfTexts(std::span<const std::string> texts) {
  if (texts.empty() || texts.size() > kMaxTexts) {
    return absl::InvalidArgumentError(absl::StrFormat("expected 1 to %d texts, found %d", kMaxTexts, texts.size()));
  }
  Grammar grammar;
  const RuleId root = grammar.Declare("choice");
  std::vector<ExprId> choices;
  for (const std::string& text : texts) {
    if (text.empty()) return absl::InvalidArgumentError("expected texts that are not empty, found an empty one");
    choices.push_back(grammar.e().Literal(text));
  }
  grammar.Define(root, grammar.e().Choice(std::move(choices)));
  return grammar;
}

}  // namespace updraft::grammar
