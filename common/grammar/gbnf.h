// Grammars that people write: GBNF, as llama.cpp has it (grammars/README.md there), regular expressions, lists of
// texts.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/grammar/grammar.h"

namespace updraft::grammar {

inline constexpr size_t kMaxGrammarBytes = 64 << 10;
inline constexpr size_t kMaxTexts = 1024;

// Rules NAME ::= ..., of which `root` is the whole text: "literals", [classes], [^others], ., rules, groups, |, * + ?
// {m} {m,} {m,n}, # comments. INVALID_ARGUMENT says in which line and what was expected.
absl::StatusOr<Grammar> GrammarOfGbnf(std::string_view text);

// The whole text fits (regex.h).
absl::StatusOr<Grammar> GrammarOfRegex(std::string_view pattern);

// One of these, none empty; INVALID_ARGUMENT otherwise.
absl::StatusOr<Grammar> GrammarOfTexts(std::span<const std::string> texts);

}  // namespace updraft::grammar
