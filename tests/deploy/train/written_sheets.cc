#include "tests/deploy/train/written_sheets.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <fstream>

#include "common/text/utf8.h"

namespace updraft::written {

namespace fs = std::filesystem;
using Json = nlohmann::json;

namespace {

bool IsPunctuation(char32_t c) {
  if (c < 0x80) return std::isalnum(static_cast<int>(c)) == 0;
  return c < 0xC0 || (c >= 0x2000 && c < 0x2070) || (c >= 0x3000 && c < 0x3040) || (c >= 0xFF00 && c < 0xFF10) ||
         (c >= 0xFF1A && c < 0xFF21) || (c >= 0xFF3B && c < 0xFF41) || c >= 0xFF5B;
}

// The character at `*at`, which moves past it.
char32_t CodePoint(const std::string& utf8, size_t* at) {
  const size_t bytes = text::DecodeUtf8(utf8, *at).bytes;
  char32_t c = static_cast<unsigned char>(utf8[*at]) & (bytes == 1 ? 0x7F : 0x3F >> (bytes - 1));
  for (size_t k = 1; k < bytes; ++k) c = c << 6 | (static_cast<unsigned char>(utf8[*at + k]) & 0x3F);
  *at += bytes;
  return c;
}

}  // namespace

fs::path SourceRoot() {
  const char* root = std::getenv("UPDRAFT_SOURCE_DIR");
  return root == nullptr ? fs::path() : fs::path(root);
}

fs::path SheetFolder() { return SourceRoot() / "deploy/train/cockpit/written"; }

void ForEachJsonLine(const fs::path& folder, const std::function<void(const Json&, const std::string&)>& visit) {
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".jsonl") continue;
    std::ifstream in(entry.path());
    size_t number = 0;
    for (std::string line; std::getline(in, line);) {
      ++number;
      if (line.empty()) continue;
      visit(Json::parse(line), entry.path().filename().string() + ":" + std::to_string(number));
    }
  }
}

std::vector<std::string> UserTexts(const Json& line) {
  std::vector<std::string> texts;
  for (const Json& message : line.at("messages")) {
    if (message.value("role", "") == "user") texts.push_back(message.value("content", ""));
  }
  return texts;
}

std::string JoinedUserText(const Json& line) {
  std::string all;
  for (const std::string& text : UserTexts(line)) all += (all.empty() ? "" : " / ") + text;
  return all;
}

std::u32string Normalized(const std::string& text) {
  std::u32string out;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = CodePoint(text, &at);
    if (c == U'\'' || c == U'‘' || c == U'’') continue;
    if (!IsPunctuation(c)) {
      out += c < 0x80 ? static_cast<char32_t>(std::tolower(static_cast<int>(c))) : c;
    } else if (!out.empty() && out.back() != ' ') {
      out += ' ';
    }
  }
  while (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

bool IsChinese(const std::u32string& text) {
  return std::any_of(text.begin(), text.end(), [](char32_t c) { return c >= 0x3400 && c < 0xA000; });
}

std::string Plain(const std::u32string& text) {
  std::string out;
  for (const char32_t c : text) {
    if (c < 0x80) {
      out += static_cast<char>(c);
    } else if (c < 0x800) {
      out += {static_cast<char>(0xC0 | (c >> 6)), static_cast<char>(0x80 | (c & 63))};
    } else {
      out += {static_cast<char>(0xE0 | (c >> 12)), static_cast<char>(0x80 | ((c >> 6) & 63)),
              static_cast<char>(0x80 | (c & 63))};
    }
  }
  return out;
}

}  // namespace updraft::written
