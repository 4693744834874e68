#include "common/jinja/lexer.h"

#include <unicode/uchar.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/jinja/budget.h"
#include "common/jinja/unicode.h"

namespace updraft::jinja {
namespace {

// Line ends become \n; one at the very end goes.
std::string Normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out.push_back(source[i]);
      continue;
    }
    out.push_back('\n');
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

void AppendUtf8(uint32_t c, std::string* out) {
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
    return;
  }
  int shift = c < 0x800 ? 6 : c < 0x10000 ? 12 : 18;
  out->push_back(static_cast<char>((shift == 6 ? 0xC0 : shift == 12 ? 0xE0 : 0xF0) | c >> shift));
  while (shift > 0) {
    shift -= 6;
    out->push_back(static_cast<char>(0x80 | ((c >> shift) & 0x3F)));
  }
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(Normalized(source)), rest_(source_) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (status_.ok() && pos_ < source_.size()) Root();
    if (!status_.ok()) return status_;
    Add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  // ---- Between tags ----
  void Root();
  void Comment();
  bool Raw(size_t tag);
  void Data(std::string_view text, char sign, bool strips_line);

  // ---- Within a tag ----
  void Tag(TokenKind begin, TokenKind end, std::string_view closing);
  bool Close(TokenKind end, std::string_view closing);
  void One();
  bool Number();
  void String();
  void Escape(std::string_view text, size_t* i, std::string* out);
  void Operator();

  bool At(std::string_view text) const { return rest_.substr(pos_).starts_with(text); }
  // Moves on by n bytes, counting lines.
  void Skip(size_t n) {
    line_ += static_cast<int>(std::count(source_.begin() + pos_, source_.begin() + pos_ + n, '\n'));
    if (n > 0) at_line_start_ = source_[pos_ + n - 1] == '\n';
    pos_ += n;
  }
  size_t SpaceFrom(size_t pos) const {
    size_t end = pos;
    while (end < source_.size()) {
      size_t next = end;
      if (!IsSpace(NextChar(source_, &next))) break;
      end = next;
    }
    return end - pos;
  }
  void Add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  void Fail(std::string_view what) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(absl::StrFormat("line %d: %s", line_, std::string(what)));
  }

  const std::string source_;
  const std::string_view rest_;  // all of source_
  size_t pos_ = 0;
  int line_ = 1;
  bool at_line_start_ = true;  // what was matched last ended a line
  std::string open_;           // brackets that wait for their end
  std::vector<Token> tokens_;
  absl::Status status_;
};

// ---- Between tags ---------------------------------------------------------------------------------------------------

void Lexer::Root() {
  size_t tag = rest_.find('{', pos_);
  while (tag != rest_.npos && (tag + 1 == rest_.size() || std::string_view("%{#").find(rest_[tag + 1]) == rest_.npos)) {
    tag = rest_.find('{', tag + 1);
  }
  if (tag == rest_.npos) {
    Data(rest_.substr(pos_), '+', false);
    Skip(source_.size() - pos_);
    return;
  }
  const char kind = rest_[tag + 1];
  const char sign = tag + 2 < rest_.size() && (rest_[tag + 2] == '-' || rest_[tag + 2] == '+') ? rest_[tag + 2] : 0;
  Data(rest_.substr(pos_, tag - pos_), sign, kind != '{');
  Skip(tag - pos_);
  if (kind == '%' && Raw(tag)) return;
  Skip(2 + (sign != 0 ? 1 : 0));
  if (kind == '#') return Comment();
  if (kind == '%') return Tag(TokenKind::kBlockBegin, TokenKind::kBlockEnd, "%}");
  Tag(TokenKind::kVariableBegin, TokenKind::kVariableEnd, "}}");
}

// Text before a tag that opens with `sign`; strips_line: white space goes that is all there is before the tag in its
// line.
void Lexer::Data(std::string_view text, char sign, bool strips_line) {
  if (sign == '-') {
    text = text.substr(0, StripRange(text, nullptr, false, true).end);
  } else if (sign != '+' && strips_line) {
    const size_t line = text.rfind('\n') + 1;  // npos + 1 is 0
    if ((line > 0 || at_line_start_) &&
        StripRange(text.substr(line), nullptr, true, false).begin == text.size() - line) {
      text = text.substr(0, line);
    }
  }
  if (!text.empty()) Add(TokenKind::kData, std::string(text));
}

void Lexer::Comment() {
  const size_t end = rest_.find("#}", pos_);
  if (end == rest_.npos) return Fail("expected the end of a comment (#}), found the end of the template");
  const char sign = end > pos_ ? rest_[end - 1] : 0;
  Skip(end + 2 - pos_);
  if (sign == '-') {
    Skip(SpaceFrom(pos_));
  } else if (sign != '+' && At("\n")) {
    Skip(1);
  }
}

// {% raw %} ... {% endraw %}; false: the tag is another.
bool Lexer::Raw(size_t tag) {
  const auto skip_sign = [&](size_t at) {
    return at < rest_.size() && (rest_[at] == '-' || rest_[at] == '+') ? at + 1 : at;
  };
  size_t at = skip_sign(tag + 2);
  at += SpaceFrom(at);
  if (!rest_.substr(at).starts_with("raw")) return false;
  at += 3;
  at += SpaceFrom(at);
  const bool strips = rest_.substr(at).starts_with("-%}");
  if (!strips && !rest_.substr(at).starts_with("%}")) return false;
  at += strips ? 3 : 2;
  if (strips) at += SpaceFrom(at);
  Skip(at - pos_);
  for (size_t end = rest_.find("{%", pos_); end != rest_.npos; end = rest_.find("{%", end + 2)) {
    const size_t signed_end = skip_sign(end + 2);
    const char sign = signed_end > end + 2 ? rest_[end + 2] : 0;
    size_t close = signed_end + SpaceFrom(signed_end);
    if (!rest_.substr(close).starts_with("endraw")) continue;
    close += 6;
    close += SpaceFrom(close);
    const char close_sign = skip_sign(close) > close ? rest_[close] : 0;
    close = skip_sign(close);
    if (!rest_.substr(close).starts_with("%}")) continue;
    close += 2;
    Data(rest_.substr(pos_, end - pos_), sign, true);
    if (close_sign == '-') {
      close += SpaceFrom(close);
    } else if (close_sign != '+' && rest_.substr(close).starts_with("\n")) {
      ++close;
    }
    Skip(close - pos_);
    return true;
  }
  Fail("expected {% endraw %}, found the end of the template");
  return true;
}

// ---- Within a tag ---------------------------------------------------------------------------------------------------

void Lexer::Tag(TokenKind begin, TokenKind end, std::string_view closing) {
  Add(begin, "");
  open_.clear();
  const int line = line_;
  while (status_.ok()) {
    if (open_.empty() && Close(end, closing)) return;
    if (pos_ >= source_.size()) {
      line_ = line;
      return Fail(
          absl::StrCat("expected the end of a tag (", std::string(closing), "), found the end of the template"));
    }
    One();
  }
}

bool Lexer::Close(TokenKind end, std::string_view closing) {
  const bool is_block = end == TokenKind::kBlockEnd;
  const char sign = At("-") || (is_block && At("+")) ? rest_[pos_] : 0;
  if (!rest_.substr(pos_ + (sign != 0 ? 1 : 0)).starts_with(closing)) return false;
  Add(end, std::string(closing));
  Skip(closing.size() + (sign != 0 ? 1 : 0));
  if (sign == '-') {
    Skip(SpaceFrom(pos_));
  } else if (sign == 0 && is_block && At("\n")) {
    Skip(1);
  }
  return true;
}

void Lexer::One() {
  if (const size_t space = SpaceFrom(pos_); space > 0) return Skip(space);
  const char c = source_[pos_];
  if (absl::ascii_isdigit(static_cast<unsigned char>(c)) && Number()) return;
  if (c == '\'' || c == '"') return String();
  size_t end = pos_;
  while (end < source_.size()) {
    size_t next = end;
    const int32_t letter = NextChar(source_, &next);
    if (letter != '_' && !(letter >= 0 && u_isalnum(letter))) break;
    end = next;
  }
  if (end == pos_) return Operator();
  Add(TokenKind::kName, source_.substr(pos_, end - pos_));
  Skip(end - pos_);
}

bool Lexer::Number() {
  const auto digits = [&](size_t at) {  // digits with single underscores between them
    const auto is_digit = [&](size_t i) {
      return i < source_.size() && absl::ascii_isdigit(static_cast<unsigned char>(source_[i]));
    };
    while (is_digit(at) || (at < source_.size() && source_[at] == '_' && is_digit(at + 1))) ++at;
    return at;
  };
  const auto exponent = [&](size_t at) {
    if (at >= source_.size() || (source_[at] != 'e' && source_[at] != 'E')) return at;
    size_t begin = at + 1;
    if (begin < source_.size() && (source_[begin] == '+' || source_[begin] == '-')) ++begin;
    const size_t end = begin < source_.size() && source_[begin] != '_' ? digits(begin) : begin;
    return end > begin ? end : at;
  };
  const size_t whole = digits(pos_);
  size_t end = whole;
  const bool is_index = pos_ > 0 && source_[pos_ - 1] == '.';  // x.0.1: two of them, no float
  if (!is_index && whole + 1 < source_.size() && source_[whole] == '.' && source_[whole + 1] != '_') {
    const size_t fraction = digits(whole + 1);
    if (fraction > whole + 1) end = fraction;
  }
  if (!is_index) end = exponent(end);
  std::string text = source_.substr(pos_, end - pos_);
  std::erase(text, '_');
  if (end == whole && text.size() > 1 && text[0] == '0' && text.find_first_not_of('0') != text.npos) {
    Fail("expected a number without leading zeros, found one with");
    return true;
  }
  Add(end > whole ? TokenKind::kFloat : TokenKind::kInteger, std::move(text));
  Skip(end - pos_);
  return true;
}

void Lexer::String() {
  const char quote = source_[pos_];
  std::string text;
  size_t i = pos_ + 1;
  for (; i < source_.size() && source_[i] != quote; ++i) {
    if (source_[i] != '\\') {
      text.push_back(source_[i]);
      continue;
    }
    if (++i == source_.size()) break;
    Escape(source_, &i, &text);
    if (!status_.ok()) return;
  }
  if (i == source_.size()) return Fail("expected the end of a string, found the end of the template");
  Add(TokenKind::kString, std::move(text));
  Skip(i + 1 - pos_);
}

// Python's escapes; text[*i] is what follows the backslash, and *i moves to the last byte of it.
void Lexer::Escape(std::string_view text, size_t* i, std::string* out) {
  const char c = text[*i];
  constexpr std::string_view kFrom = "abfnrtv\\'\"", kTo = "\a\b\f\n\r\t\v\\'\"";
  if (const size_t at = kFrom.find(c); at != kFrom.npos) return out->push_back(kTo[at]);
  if (c == '\n') return;
  const auto number = [&](size_t begin, size_t max_digits, int base) {
    size_t end = begin;
    while (end < text.size() && end < begin + max_digits &&
           (base == 8 ? text[end] >= '0' && text[end] <= '7'
                      : absl::ascii_isxdigit(static_cast<unsigned char>(text[end])))) {
      ++end;
    }
    uint32_t value = 0;
    std::from_chars(text.data() + begin, text.data() + end, value, base);
    if (base == 16 && end != begin + max_digits) {
      return Fail(absl::StrFormat("expected %u hexadecimal digits after \\%c, found fewer", max_digits, c));
    }
    *i = end - 1;
    if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) {
      return Fail(absl::StrFormat("expected an escape of a character, found U+%X", value));
    }
    AppendUtf8(value, out);
  };
  if (c == 'x') return number(*i + 1, 2, 16);
  if (c == 'u') return number(*i + 1, 4, 16);
  if (c == 'U') return number(*i + 1, 8, 16);
  if (c >= '0' && c <= '7') return number(*i, 3, 8);
  out->push_back('\\');
  out->push_back(c);
}

void Lexer::Operator() {
  static constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                                    "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                    ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
  for (const std::string_view op : kOperators) {
    if (!At(op)) continue;
    if (op == "(" || op == "[" || op == "{") {
      open_ += op == "(" ? ')' : op == "[" ? ']' : '}';
      if (open_.size() > static_cast<size_t>(kMaxDepth)) {
        return Fail(absl::StrFormat("expected at most %d brackets in brackets, found more", kMaxDepth));
      }
    } else if (op == ")" || op == "]" || op == "}") {
      if (open_.empty()) return Fail(absl::StrCat("unexpected '", std::string(op), "'"));
      if (open_.back() != op[0]) {
        return Fail(absl::StrFormat("expected '%c', found '%c'", open_.back(), op[0]));
      }
      open_.pop_back();
    }
    Add(TokenKind::kOperator, std::string(op));
    return Skip(op.size());
  }
  size_t end = pos_;
  NextChar(source_, &end);
  Fail(absl::StrCat("unexpected character '", absl::CHexEscape(source_.substr(pos_, end - pos_)), "'"));
}

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source) {
  if (source.size() > kMaxSourceBytes) {
    return absl::InvalidArgumentError(
        absl::StrFormat("expected a template of at most %u bytes, found %u", kMaxSourceBytes, source.size()));
  }
  return Lexer(source).Run();
}

}  // namespace updraft::jinja
