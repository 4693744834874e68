// How deep a JSON text nests, told before it is parsed: what walks over the document may then recurse. Looks at
// brackets outside of strings only; whether they match is the parser's business. Any bytes are accepted.
#pragma once

#include <cstddef>
#include <string_view>

namespace updraft {

// Position of the first bracket nested deeper than `max_depth`, or npos.
inline size_t FirstTooDeep(std::string_view text, int max_depth) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > max_depth) return i;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return std::string_view::npos;
}

}  // namespace updraft
