#include "common/jinja/unicode.h"

#include <unicode/bytestream.h>
#include <unicode/casemap.h>
#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <limits>

namespace updraft::jinja {
namespace {

// The character that ends at `end`, and where it begins.
int32_t CharBefore(std::string_view text, size_t end, size_t* begin) {
  const size_t tail = std::min<size_t>(end, 4);
  const char* data = text.data() + (end - tail);
  auto at = static_cast<int32_t>(tail);
  UChar32 c;
  U8_PREV(data, 0, at, c);
  *begin = end - (tail - static_cast<size_t>(at));
  return c;
}

enum class Case { kUpper, kLower, kTitle };

std::string Mapped(std::string_view text, Case wanted) {
  std::string mapped;
  icu::StringByteSink<std::string> sink(&mapped);
  UErrorCode error = U_ZERO_ERROR;
  const icu::StringPiece piece(text.data(), static_cast<int32_t>(text.size()));
  switch (wanted) {
    case Case::kUpper:
      icu::CaseMap::utf8ToUpper("", 0, piece, sink, nullptr, error);
      break;
    case Case::kLower:
      icu::CaseMap::utf8ToLower("", 0, piece, sink, nullptr, error);
      break;
    case Case::kTitle:
      icu::CaseMap::utf8ToTitle("", U_TITLECASE_NO_BREAK_ADJUSTMENT, nullptr, piece, sink, nullptr, error);
      break;
  }
  return U_SUCCESS(error) ? mapped : std::string(text);
}

}  // namespace

int32_t NextChar(std::string_view text, size_t* pos) {
  const auto length = static_cast<int32_t>(std::min<size_t>(text.size() - *pos, 4));
  const char* data = text.data() + *pos;
  int32_t used = 0;
  UChar32 c;
  U8_NEXT(data, used, length, c);
  *pos += c < 0 ? 1 : static_cast<size_t>(used);
  return c;
}

size_t CountChars(std::string_view text) {
  size_t n = 0;
  for (size_t pos = 0; pos < text.size(); ++n) NextChar(text, &pos);
  return n;
}

size_t OffsetOfChar(std::string_view text, size_t index) {
  size_t pos = 0;
  for (; index > 0 && pos < text.size(); --index) NextChar(text, &pos);
  return pos;
}

bool IsSpace(int32_t c) { return c >= 0 && (u_isUWhiteSpace(c) || (c >= 0x1C && c <= 0x1F)); }

bool IsLineBreak(int32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

bool IsAlpha(int32_t c) { return c >= 0 && u_isalpha(c); }
bool IsDecimal(int32_t c) { return c >= 0 && u_charType(c) == U_DECIMAL_DIGIT_NUMBER; }
bool IsDigit(int32_t c) {
  return c >= 0 && (IsDecimal(c) || u_getIntPropertyValue(c, UCHAR_NUMERIC_TYPE) == U_NT_DIGIT);
}
bool IsNumeric(int32_t c) { return c >= 0 && u_getIntPropertyValue(c, UCHAR_NUMERIC_TYPE) != U_NT_NONE; }
bool IsAlnum(int32_t c) { return IsAlpha(c) || IsNumeric(c); }

bool IsPrintable(int32_t c) {
  if (c == ' ') return true;
  if (c < 0) return false;
  constexpr uint32_t kNot = U_GC_C_MASK | U_GC_Z_MASK;
  return (U_GET_GC_MASK(c) & kNot) == 0;
}

std::string ToUpper(std::string_view text) { return Mapped(text, Case::kUpper); }
std::string ToLower(std::string_view text) { return Mapped(text, Case::kLower); }
std::string ToTitle(std::string_view character) { return Mapped(character, Case::kTitle); }

ByteRange StripRange(std::string_view text, const std::string_view* chars, bool left, bool right) {
  const auto stripped = [&](int32_t c, std::string_view written) {
    return chars == nullptr ? IsSpace(c) : chars->find(written) != chars->npos;
  };
  ByteRange range{0, text.size()};
  while (left && range.begin < range.end) {
    size_t next = range.begin;
    const int32_t c = NextChar(text, &next);
    if (!stripped(c, text.substr(range.begin, next - range.begin))) break;
    range.begin = next;
  }
  while (right && range.begin < range.end) {
    size_t begin = range.end;
    const int32_t c = CharBefore(text.substr(range.begin), range.end - range.begin, &begin);
    begin += range.begin;
    if (!stripped(c, text.substr(begin, range.end - begin))) break;
    range.end = begin;
  }
  return range;
}

}  // namespace updraft::jinja
