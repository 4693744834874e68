// The texts of JSON as expressions: strings with their escapes, numbers within bounds, values of any kind.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/grammar/automaton.h"
#include "common/grammar/expression.h"
#include "common/grammar/grammar.h"

namespace updraft::grammar {

// One character of these within a string, as its shortest form: itself, or the escape that it needs. The texts of a
// string are then one each.
ExprId JsonChars(Expressions& e, const CharRanges& ranges);
// One character within a string, in any form, a surrogate pair included.
ExprId AnyJsonChar(Expressions& e);
// A string with its quotes, in its shortest form.
std::string JsonString(std::string_view text);

ExprId AnyJsonNumber(Expressions& e);
ExprId AnyJsonInteger(Expressions& e);
// Whole numbers of a range, without a fraction; none: no bound on that side.
ExprId JsonIntegers(Expressions& e, std::optional<int64_t> low, std::optional<int64_t> high);

// A decimal number that bounds others: digits before and behind the point, no leading or trailing zeros.
struct Decimal {
  bool negative = false;
  std::string whole;     // "0" where there is nothing
  std::string fraction;  // may be empty
};
// Of JSON's text of a number; nothing for more than 40 digits, once its exponent is worked in.
std::optional<Decimal> ParseDecimal(std::string_view json);
struct DecimalBound {
  Decimal value;
  bool exclusive = false;
};
// Numbers of a range, without an exponent.
absl::StatusOr<Automaton> JsonNumbers(const std::optional<DecimalBound>& low, const std::optional<DecimalBound>& high);

}  // namespace updraft::grammar
