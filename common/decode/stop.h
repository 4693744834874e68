// Stop strings across token boundaries: text that may yet turn out to be the start of a stop string is held back.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace updraft {

// Feed it detokenized text piece by piece; how the text is cut into pieces does not change the outcome. The stop string
// that is complete first wins; of two that end at the same byte, the longer. The stop string itself is never passed on.
class StopMatcher {
 public:
  // Empty strings are ignored; without any, all text passes at once.
  explicit StopMatcher(std::vector<std::string> stops);

  // Returns the text that is safe to pass on now. After a match: the rest of the text before the stop string, then
  // nothing.
  std::string Push(std::string_view text);
  // At the end of generation: the text still held back, empty after a match.
  std::string Flush();

  bool stopped() const { return matched_ >= 0; }
  // The stop string that was found. REQUIRES: stopped().
  const std::string& matched() const { return stops_[matched_].text; }

 private:
  struct Stop {
    std::string text;
    std::vector<size_t> fallback;  // Knuth-Morris-Pratt: longest proper border of each prefix
    size_t progress = 0;           // bytes of `text` that the end of the input matches
  };
  static void Advance(Stop& stop, char byte);

  std::vector<Stop> stops_;
  std::string held_;
  int matched_ = -1;  // index into stops_
};

}  // namespace updraft
