// What single keywords of a JSON schema say, read and checked: the vocabulary of json_schema.cc.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/grammar/automaton.h"
#include "common/grammar/json_text.h"
#include "common/grammar/schema_merge.h"

namespace updraft::grammar {

std::string Shown(const SchemaJson& value);            // for a message
std::string Unescaped(std::string_view pointer_part);  // of a JSON pointer in a URI's fragment

// "null", "boolean", "integer", "number", "string", "array", "object": those that may be, each once; a number without
// its whole ones apart.
absl::StatusOr<std::vector<std::string>> TypesOf(const SchemaJson& schema);

using ResolveReference = std::function<const SchemaJson*(const std::string&)>;
// Whether it is plain that no value fits both.
bool AreApart(const SchemaJson& a, const SchemaJson& b, const ResolveReference& resolve);

// Whether a value that the schema names (const, enum) fits what stands beside that. INVALID_ARGUMENT: a keyword beside
// it that is not looked at here.
absl::StatusOr<bool> FitsBeside(const SchemaJson& value, const SchemaJson& schema,
                                const std::vector<Automaton>& patterns);
// Of PatternsOf, for strings in their shortest form without quotes.
absl::StatusOr<std::vector<Automaton>> PatternAutomataOf(const SchemaJson& schema);

struct NumberBounds {
  std::optional<DecimalBound> low = {}, high = {};
  bool whole = false;  // multipleOf 1
};
absl::StatusOr<NumberBounds> BoundsOf(const SchemaJson& schema, bool whole);
// Of whole numbers within the bounds; nothing: no bound.
absl::StatusOr<std::optional<int64_t>> LeastInteger(const NumberBounds& bounds);
absl::StatusOr<std::optional<int64_t>> GreatestInteger(const NumberBounds& bounds);

// Regular expressions that a string fits: "pattern", and that of a "format" that is known.
absl::StatusOr<std::vector<std::string>> PatternsOf(const SchemaJson& schema);

struct ItemsOf {
  std::vector<SchemaJson> first;  // one for each of the first items
  std::string first_keyword;      // where they stand
  SchemaJson others = true;

  static absl::StatusOr<ItemsOf> Read(const SchemaJson& schema);
};

struct PropertyOf {
  std::string name;
  SchemaJson schema;
  bool required = false;
};
// In the schema's order, those that are required and not named last: as additionalProperties has them.
absl::StatusOr<std::vector<PropertyOf>> PropertiesOf(const SchemaJson& schema);

// Texts of the automaton between quotation marks, and back.
Automaton Quoted(const Automaton& automaton);
Automaton Unquoted(const Automaton& automaton);

// Strings of `minimum` to `maximum` (or kNoMaximum) characters between quotation marks. chars: of one character, none
// of them the beginning of another. Copies states instead of finding them. RESOURCE_EXHAUSTED: more than kMaxStates.
absl::StatusOr<Automaton> Counted(const absl::StatusOr<Automaton>& chars, int minimum, int maximum);

}  // namespace updraft::grammar
