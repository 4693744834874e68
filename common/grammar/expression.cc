#include "common/grammar/expression.h"

#include <algorithm>
#include <array>
#include <utility>

namespace updraft::grammar {
namespace {

constexpr char32_t kFirstSurrogate = 0xD800, kLastSurrogate = 0xDFFF;

std::vector<uint8_t> Utf8(char32_t c) {
  const auto tail = [c](int shift) { return static_cast<uint8_t>(0x80 | ((c >> shift) & 0x3F)); };
  if (c < 0x80) return {static_cast<uint8_t>(c)};
  if (c < 0x800) return {static_cast<uint8_t>(0xC0 | (c >> 6)), tail(0)};
  if (c < 0x10000) return {static_cast<uint8_t>(0xE0 | (c >> 12)), tail(6), tail(0)};
  return {static_cast<uint8_t>(0xF0 | (c >> 18)), tail(12), tail(6), tail(0)};
}

}  // namespace

CharRanges Sorted(CharRanges ranges) {
  std::sort(ranges.begin(), ranges.end());
  CharRanges merged;
  for (const auto& [low, high] : ranges) {
    if (!merged.empty() && low <= merged.back().second + 1) {
      merged.back().second = std::max(merged.back().second, high);
    } else {
      merged.emplace_back(low, high);
    }
  }
  return merged;
}

CharRanges Complement(const CharRanges& ranges) {
  CharRanges with = ranges;
  with.emplace_back(kFirstSurrogate, kLastSurrogate);
  CharRanges rest;
  char32_t next = 0;
  for (const auto& [low, high] : Sorted(std::move(with))) {
    if (low > next) rest.emplace_back(next, low - 1);
    next = high + 1;
  }
  if (next <= kMaxChar) rest.emplace_back(next, kMaxChar);
  return rest;
}

ExprId Expressions::Add(Node node) {
  nodes_.push_back(std::move(node));
  return static_cast<ExprId>(nodes_.size() - 1);
}

ExprId Expressions::Empty() { return Add({.kind = Node::Kind::kEmpty}); }
ExprId Expressions::Nothing() { return Add({.kind = Node::Kind::kNothing}); }

ExprId Expressions::ByteRange(uint8_t low, uint8_t high) {
  return Add({.kind = Node::Kind::kBytes, .low = low, .high = high});
}

ExprId Expressions::Literal(std::string_view bytes) {
  std::vector<ExprId> parts;
  for (const char c : bytes) parts.push_back(ByteRange(static_cast<uint8_t>(c), static_cast<uint8_t>(c)));
  return Sequence(std::move(parts));
}

// The sequences of a range between two code points of as many bytes: the first byte that differs splits it.
namespace {
void AddSequences(Expressions& e, const std::vector<uint8_t>& low, const std::vector<uint8_t>& high, size_t at,
                  std::vector<ExprId>& prefix, std::vector<ExprId>& choices) {
  if (at == low.size()) {
    choices.push_back(e.Sequence(prefix));
    return;
  }
  const auto rest = [&](uint8_t from, uint8_t to, std::vector<uint8_t> sub_low, std::vector<uint8_t> sub_high) {
    prefix.push_back(e.ByteRange(from, to));
    AddSequences(e, sub_low, sub_high, at + 1, prefix, choices);
    prefix.pop_back();
  };
  if (low[at] == high[at]) return rest(low[at], low[at], low, high);
  std::vector<uint8_t> least = low, most = high;  // of the bytes behind this one
  std::fill(least.begin() + static_cast<std::ptrdiff_t>(at) + 1, least.end(), 0x80);
  std::fill(most.begin() + static_cast<std::ptrdiff_t>(at) + 1, most.end(), 0xBF);
  const bool whole_low = std::equal(low.begin() + static_cast<std::ptrdiff_t>(at) + 1, low.end(),
                                    least.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  const bool whole_high = std::equal(high.begin() + static_cast<std::ptrdiff_t>(at) + 1, high.end(),
                                     most.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  int from = low[at], to = high[at];
  if (!whole_low) rest(static_cast<uint8_t>(from++), low[at], low, most);
  if (!whole_high) --to;
  if (from <= to) rest(static_cast<uint8_t>(from), static_cast<uint8_t>(to), least, most);
  if (!whole_high) rest(high[at], high[at], least, high);
}
}  // namespace

ExprId Expressions::Chars(const CharRanges& ranges) {
  constexpr std::array<char32_t, 5> kFirstOfLength = {0, 0x80, 0x800, 0x10000, kMaxChar + 1};
  std::vector<ExprId> choices, prefix;
  const auto add = [&](char32_t low, char32_t high) {
    for (size_t n = 0; n + 1 < kFirstOfLength.size(); ++n) {
      const char32_t from = std::max(low, kFirstOfLength[n]), to = std::min<char32_t>(high, kFirstOfLength[n + 1] - 1);
      if (from <= to) AddSequences(*this, Utf8(from), Utf8(to), 0, prefix, choices);
    }
  };
  for (const auto& [low, high] : Sorted(ranges)) {
    if (low < kFirstSurrogate) add(low, std::min<char32_t>(high, kFirstSurrogate - 1));
    if (high > kLastSurrogate) add(std::max<char32_t>(low, kLastSurrogate + 1), std::min(high, kMaxChar));
  }
  return Choice(std::move(choices));
}

ExprId Expressions::Sequence(std::vector<ExprId> parts) {
  if (parts.size() == 1) return parts.front();
  return parts.empty() ? Empty() : Add({.kind = Node::Kind::kSequence, .parts = std::move(parts)});
}

ExprId Expressions::Choice(std::vector<ExprId> parts) {
  if (parts.size() == 1) return parts.front();
  return parts.empty() ? Nothing() : Add({.kind = Node::Kind::kChoice, .parts = std::move(parts)});
}

ExprId Expressions::Repeat(ExprId part, int minimum, int maximum) {
  if (minimum == 1 && maximum == 1) return part;
  return Add({.kind = Node::Kind::kRepeat, .parts = {part}, .minimum = minimum, .maximum = maximum});
}

ExprId Expressions::Import(const Expressions& other, RuleId first_rule) {
  const auto first = static_cast<ExprId>(nodes_.size());
  for (Node node : other.nodes_) {
    for (ExprId& part : node.parts) part += first;
    if (node.kind == Node::Kind::kRule) node.rule += first_rule;
    nodes_.push_back(std::move(node));
  }
  return first;
}

ExprId Expressions::Rule(RuleId rule) { return Add({.kind = Node::Kind::kRule, .rule = rule}); }

}  // namespace updraft::grammar
