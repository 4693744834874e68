#ifndef UPDRAFT_COMMON_TEXT_UTF8_H_
#define UPDRAFT_COMMON_TEXT_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace updraft::text {

enum class Utf8Status {
  kCharacter,
  kIllFormed,  // never a character, whatever follows; `bytes` is the maximal subpart that one U+FFFD replaces
  kCutOff,     // the text ends within what may become a character
};

struct Utf8Char {
  Utf8Status status;
  size_t bytes;  // 1..4
};

// What begins at text[pos], pos < text.size(). By Table 3-7 of the Unicode Standard, "Well-Formed UTF-8 Byte
// Sequences", and its practice for U+FFFD substitution of maximal subparts (section 3.9).
Utf8Char DecodeUtf8(std::string_view text, size_t pos);

// Where the first byte stands that is no part of a character; npos: all of it is UTF-8.
size_t FirstIllFormed(std::string_view bytes);

// `bytes` with each ill-formed or cut-off sequence replaced by U+FFFD: always UTF-8.
std::string LossyUtf8(std::string_view bytes);

// For text from outside that is shown or sent on: LossyUtf8 of at most `max_bytes` bytes, ending with a whole
// character. A character that is cut off, here or already in `bytes`, is left out.
std::string BoundedUtf8(std::string_view bytes, size_t max_bytes);

}  // namespace updraft::text

#endif  // UPDRAFT_COMMON_TEXT_UTF8_H_
