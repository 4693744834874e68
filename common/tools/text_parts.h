// Beginnings and ends of texts. Private to this folder.
#pragma once

#include <algorithm>
#include <string_view>

namespace updraft::tools {

// JSON's white space.
inline bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

inline std::string_view WithoutLeadingSpace(std::string_view text) {
  return text.substr(static_cast<size_t>(std::find_if_not(text.begin(), text.end(), IsSpace) - text.begin()));
}

inline bool ConsumePrefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

}  // namespace updraft::tools
