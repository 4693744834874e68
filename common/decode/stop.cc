#include "common/decode/stop.h"

#include <algorithm>
#include <utility>

namespace updraft {

StopMatcher::StopMatcher(std::vector<std::string> stops) {
  for (std::string& text : stops) {
    if (text.empty()) continue;
    Stop stop{.text = std::move(text), .fallback = {}, .progress = 0};
    stop.fallback.assign(stop.text.size(), 0);
    for (size_t i = 1, border = 0; i < stop.text.size(); ++i) {
      while (border > 0 && stop.text[i] != stop.text[border]) border = stop.fallback[border - 1];
      if (stop.text[i] == stop.text[border]) ++border;
      stop.fallback[i] = border;
    }
    stops_.push_back(std::move(stop));
  }
}

void StopMatcher::Advance(Stop& stop, char byte) {
  while (stop.progress > 0 && stop.text[stop.progress] != byte) stop.progress = stop.fallback[stop.progress - 1];
  if (stop.text[stop.progress] == byte) ++stop.progress;
}

std::string StopMatcher::Push(std::string_view text) {
  if (stopped()) return "";
  for (const char byte : text) {
    held_ += byte;
    for (size_t i = 0; i < stops_.size(); ++i) {
      Advance(stops_[i], byte);
      const bool complete = stops_[i].progress == stops_[i].text.size();
      if (complete && (!stopped() || stops_[i].text.size() > matched().size())) matched_ = static_cast<int>(i);
    }
    if (stopped()) {
      held_.resize(held_.size() - matched().size());
      return std::exchange(held_, {});
    }
  }
  size_t possible = 0;  // bytes at the end of held_ that may be the start of a stop string
  for (const Stop& stop : stops_) possible = std::max(possible, stop.progress);
  std::string safe = held_.substr(0, held_.size() - possible);
  held_.erase(0, safe.size());
  return safe;
}

std::string StopMatcher::Flush() { return std::exchange(held_, {}); }

}  // namespace updraft
