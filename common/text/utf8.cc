#include "common/text/utf8.h"

namespace updraft::text {

namespace {

constexpr std::string_view kReplacement = "\uFFFD";

}  // namespace

Utf8Char DecodeUtf8(std::string_view text, size_t pos) {
  const auto lead = static_cast<uint8_t>(text[pos]);
  if (lead < 0x80) return {Utf8Status::kCharacter, 1};
  size_t length;
  uint8_t low = 0x80;  // the range of the second byte; later ones are 80..BF
  uint8_t high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    if (lead == 0xE0) low = 0xA0;   // no overlong forms
    if (lead == 0xED) high = 0x9F;  // no surrogates
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;  // not beyond U+10FFFF
  } else {
    return {Utf8Status::kIllFormed, 1};
  }
  for (size_t i = 1; i < length; ++i) {
    if (pos + i == text.size()) return {Utf8Status::kCutOff, i};
    const auto byte = static_cast<uint8_t>(text[pos + i]);
    if (byte < low || byte > high) return {Utf8Status::kIllFormed, i};
    low = 0x80;
    high = 0xBF;
  }
  return {Utf8Status::kCharacter, length};
}

size_t FirstIllFormed(std::string_view bytes) {
  for (size_t pos = 0; pos < bytes.size();) {
    const Utf8Char c = DecodeUtf8(bytes, pos);
    if (c.status != Utf8Status::kCharacter) return pos;
    pos += c.bytes;
  }
  return std::string_view::npos;
}

std::string LossyUtf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (size_t pos = 0; pos < bytes.size();) {
    const Utf8Char c = DecodeUtf8(bytes, pos);
    text += c.status == Utf8Status::kCharacter ? bytes.substr(pos, c.bytes) : kReplacement;
    pos += c.bytes;
  }
  return text;
}

std::string BoundedUtf8(std::string_view bytes, size_t max_bytes) {
  std::string text;
  for (size_t pos = 0; pos < bytes.size();) {
    const Utf8Char c = DecodeUtf8(bytes, pos);
    const std::string_view piece = c.status == Utf8Status::kCharacter ? bytes.substr(pos, c.bytes) : kReplacement;
    if (c.status == Utf8Status::kCutOff || text.size() + piece.size() > max_bytes) break;
    text += piece;
    pos += c.bytes;
  }
  return text;
}

}  // namespace updraft::text
