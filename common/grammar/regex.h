// Regular expressions as people write them, into expressions of a grammar: what is regular of ECMA-262 and RE2.
#pragma once

#include <functional>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/grammar/expression.h"

namespace updraft::grammar {

enum class Anchoring {
  kWhole,  // the whole text fits
  kFind,   // some part of it does, unless ^ or $ says otherwise (a JSON schema's "pattern")
};

inline constexpr size_t kMaxPatternBytes = 4096;
inline constexpr int kMaxPatternRepeat = 2000;

// One character of the text as the grammar writes it; Expressions::Chars, or what JSON makes of it within a string.
using MakeChars = std::function<ExprId(Expressions&, const CharRanges&)>;

// Known: characters, ., classes, \d \w \s and their opposites, \n \t \r \f \v \0 \xHH \uHHHH \u{H..} \cX, escaped
// signs, groups ((?:...), (?<name>...), captures, which are groups), |, * + ? {m} {m,} {m,n} and their lazy forms, ^
// and $ at the ends of alternatives. INVALID_ARGUMENT names anything else and where it stands: back references,
// assertions, word boundaries, \p{...}, possessive quantifiers, flags.
absl::StatusOr<ExprId> ParseRegex(std::string_view pattern, Anchoring anchoring, Expressions& expressions,
                                  const MakeChars& make_chars);

}  // namespace updraft::grammar
