#include "common/text/special_matcher.h"

namespace updraft::text {

void SpecialMatcher::Add(std::string_view text, int32_t id) {
  if (text.empty()) return;
  first_[static_cast<uint8_t>(text[0])] = true;
  uint32_t at = 0;
  Node* node = nullptr;
  for (const char byte : text) {
    const auto [it, fresh] = children_.try_emplace(Key(at, static_cast<uint8_t>(byte)), Node{n_nodes_, -1});
    if (fresh) ++n_nodes_;
    node = &it->second;
    at = node->index;
  }
  if (node->id < 0) node->id = id;
}

std::optional<SpecialMatcher::Match> SpecialMatcher::Find(std::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!first_[static_cast<uint8_t>(text[begin])]) continue;
    std::optional<Match> longest;
    uint32_t at = 0;
    for (size_t pos = begin; pos < text.size(); ++pos) {
      const auto it = children_.find(Key(at, static_cast<uint8_t>(text[pos])));
      if (it == children_.end()) break;
      at = it->second.index;
      if (it->second.id >= 0) longest = Match{begin, pos + 1, it->second.id};
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

std::optional<int32_t> SpecialMatcher::Exact(std::string_view text) const {
  uint32_t at = 0;
  int32_t id = -1;
  for (const char byte : text) {
    const auto it = children_.find(Key(at, static_cast<uint8_t>(byte)));
    if (it == children_.end()) return std::nullopt;
    at = it->second.index;
    id = it->second.id;
  }
  return id >= 0 ? std::optional<int32_t>(id) : std::nullopt;
}

}  // namespace updraft::text
