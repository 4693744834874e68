// Characters as Python's str sees them, over UTF-8. Bytes that are no UTF-8 count as one character each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace updraft::jinja {

// The character at *pos, which moves behind it; -1: a byte that is no UTF-8. *pos < text.size().
int32_t NextChar(std::string_view text, size_t* pos);

size_t CountChars(std::string_view text);
// Where character `index` begins; text.size() when there are not so many.
size_t OffsetOfChar(std::string_view text, size_t index);

bool IsSpace(int32_t c);      // what str.strip() removes and str.split() splits at
bool IsLineBreak(int32_t c);  // what str.splitlines() splits at
bool IsAlpha(int32_t c);      // str.isalpha and its like, of one character
bool IsDecimal(int32_t c);
bool IsDigit(int32_t c);
bool IsNumeric(int32_t c);
bool IsAlnum(int32_t c);
bool IsPrintable(int32_t c);  // what repr() shows as it is

// str.upper, str.lower, and str.title of the first character alone.
std::string ToUpper(std::string_view text);
std::string ToLower(std::string_view text);
std::string ToTitle(std::string_view character);

// What is left of text without characters of `chars` (null: white space) at its ends: bytes [begin, end).
struct ByteRange {
  size_t begin, end;
};
ByteRange StripRange(std::string_view text, const std::string_view* chars, bool left, bool right);

}  // namespace updraft::jinja
