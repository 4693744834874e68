// A grammar as expressions over bytes: what JSON schemas, regular expressions and GBNF are turned into, and what
// automata (automaton.h) are made of.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace updraft::grammar {

using ExprId = int32_t;
using RuleId = int32_t;

inline constexpr int kNoMaximum = -1;

// Code points, both ends included, ascending and apart.
using CharRanges = std::vector<std::pair<char32_t, char32_t>>;
inline constexpr char32_t kMaxChar = 0x10FFFF;

// Those of all code points, without surrogates, that are not in `ranges`. Any order; may overlap.
CharRanges Complement(const CharRanges& ranges);
CharRanges Sorted(CharRanges ranges);

// Expressions share their parts and are never changed; ids are indices. One thread.
class Expressions {
 public:
  struct Node {
    enum class Kind : uint8_t { kEmpty, kNothing, kBytes, kSequence, kChoice, kRepeat, kRule } kind = Kind::kEmpty;
    uint8_t low = 0, high = 0;       // kBytes: one byte of this range
    std::vector<ExprId> parts = {};  // kRepeat: one
    int minimum = 0, maximum = 0;    // kRepeat; kNoMaximum
    RuleId rule = -1;                // kRule
  };

  ExprId Empty();    // the empty text
  ExprId Nothing();  // no text at all
  ExprId ByteRange(uint8_t low, uint8_t high);
  ExprId Literal(std::string_view bytes);
  ExprId Chars(const CharRanges& ranges);  // one character, in UTF-8; surrogates are left out
  ExprId Sequence(std::vector<ExprId> parts);
  ExprId Choice(std::vector<ExprId> parts);
  ExprId Repeat(ExprId part, int minimum, int maximum);  // REQUIRES: 0 <= minimum <= maximum or kNoMaximum
  ExprId Optional(ExprId part) { return Repeat(part, 0, 1); }
  ExprId Rule(RuleId rule);

  // Takes in all expressions of others, of which rule 0 is rule `first_rule` here; how much their ids grow by.
  ExprId Import(const Expressions& other, RuleId first_rule);

  const Node& at(ExprId id) const { return nodes_[static_cast<size_t>(id)]; }
  size_t size() const { return nodes_.size(); }

 private:
  ExprId Add(Node node);

  std::vector<Node> nodes_;
};

}  // namespace updraft::grammar
