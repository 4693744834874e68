#include "common/grammar/json_text.h"

#include <algorithm>
#include <cstdlib>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace updraft::grammar {
namespace {

constexpr char32_t kFirstPlain = 0x20;  // below it characters are escaped

// The escape that a character needs in a string; empty: none.
std::string EscapeOf(char32_t c) {
  switch (c) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      return c < kFirstPlain ? absl::StrFormat("\\u%04x", static_cast<unsigned>(c)) : std::string();
  }
}

bool NeedsEscape(char32_t c) { return c < kFirstPlain || c == '"' || c == '\\'; }

// ---- Whole numbers --------------------------------------------------------------------------------------------------

ExprId Digit(Expressions& e, char low = '0', char high = '9') {
  return e.ByteRange(static_cast<uint8_t>(low), static_cast<uint8_t>(high));
}
ExprId Digits(Expressions& e, int minimum, int maximum = kNoMaximum) { return e.Repeat(Digit(e), minimum, maximum); }

// Texts of as many digits, from `low` to `high`.
ExprId OfOneLength(Expressions& e, std::string_view low, std::string_view high) {
  const bool all =
      low.find_first_not_of('0') == std::string_view::npos && high.find_first_not_of('9') == std::string_view::npos;
  if (all) return Digits(e, static_cast<int>(low.size()), static_cast<int>(low.size()));
  const int rest = static_cast<int>(low.size()) - 1;
  const std::string least(static_cast<size_t>(rest), '0'), most(static_cast<size_t>(rest), '9');
  const auto from = [&](char digit, std::string_view sub_low, std::string_view sub_high) {
    return e.Sequence({Digit(e, digit, digit), OfOneLength(e, sub_low, sub_high)});
  };
  if (low[0] == high[0]) return from(low[0], low.substr(1), high.substr(1));
  std::vector<ExprId> choices = {from(low[0], low.substr(1), most), from(high[0], least, high.substr(1))};
  if (low[0] + 1 <= high[0] - 1) {
    choices.push_back(
        e.Sequence({Digit(e, static_cast<char>(low[0] + 1), static_cast<char>(high[0] - 1)), Digits(e, rest, rest)}));
  }
  return e.Choice(std::move(choices));
}

// Numbers without a sign from `low` to `high`, both in decimal; empty `high`: no bound. REQUIRES: low <= high.
ExprId Unsigned(Expressions& e, const std::string& low, const std::string& high) {
  std::vector<ExprId> choices;
  const size_t last = high.empty() ? low.size() : high.size();
  for (size_t n = low.size(); n <= last; ++n) {
    const std::string from = n == low.size() ? low : "1" + std::string(n - 1, '0');
    const std::string to = !high.empty() && n == high.size() ? high : std::string(n, '9');
    choices.push_back(OfOneLength(e, from, to));
  }
  if (high.empty()) {
    choices.push_back(e.Sequence({Digit(e, '1', '9'), Digits(e, static_cast<int>(low.size()))}));
  }
  return e.Choice(std::move(choices));
}

// ---- Decimal numbers ------------------------------------------------------------------------------------------------

// What stands behind the point of numbers of at least, or at most, 0.DIGITS: texts of digits. empty_fits: none at all
// is one of them, where it is so much.
ExprId AtLeast(Expressions& e, std::string_view digits, bool exclusive, bool empty_fits) {
  if (digits.empty()) {
    if (exclusive) return e.Sequence({e.Repeat(Digit(e, '0', '0'), 0, kNoMaximum), Digit(e, '1', '9'), Digits(e, 0)});
    return Digits(e, empty_fits ? 0 : 1);
  }
  std::vector<ExprId> choices;
  const char d = digits[0];
  if (d < '9') choices.push_back(e.Sequence({Digit(e, static_cast<char>(d + 1), '9'), Digits(e, 0)}));
  choices.push_back(e.Sequence({Digit(e, d, d), AtLeast(e, digits.substr(1), exclusive, true)}));
  return e.Choice(std::move(choices));  // nothing more would be less: digits end with another than 0
}

ExprId AtMost(Expressions& e, std::string_view digits, bool exclusive, bool empty_fits) {
  if (digits.empty()) {
    if (exclusive) return e.Nothing();
    return e.Repeat(Digit(e, '0', '0'), empty_fits ? 0 : 1, kNoMaximum);
  }
  std::vector<ExprId> choices;
  const char d = digits[0];
  if (empty_fits) choices.push_back(e.Empty());
  if (d > '0') choices.push_back(e.Sequence({Digit(e, '0', static_cast<char>(d - 1)), Digits(e, 0)}));
  choices.push_back(e.Sequence({Digit(e, d, d), AtMost(e, digits.substr(1), exclusive, true)}));
  return e.Choice(std::move(choices));
}

ExprId AnyFraction(Expressions& e) { return e.Optional(e.Sequence({e.Literal("."), Digits(e, 1, 18)})); }

// Point and digits, or nothing, for 0.x of at least or at most a bound.
ExprId FractionAtLeast(Expressions& e, const DecimalBound& bound) {
  const std::string& digits = bound.value.fraction;
  const ExprId with = e.Sequence({e.Literal("."), AtLeast(e, digits, bound.exclusive, false)});
  return digits.empty() && !bound.exclusive ? e.Optional(with) : with;
}
ExprId FractionAtMost(Expressions& e, const DecimalBound& bound) {
  const std::string& digits = bound.value.fraction;
  const ExprId with = e.Sequence({e.Literal("."), AtMost(e, digits, bound.exclusive, false)});
  return digits.empty() && bound.exclusive ? with : e.Optional(with);
}

std::string PlusOne(std::string number) {
  size_t i = number.size();
  while (i > 0 && number[i - 1] == '9') number[--i] = '0';
  if (i == 0) return "1" + number;
  ++number[i - 1];
  return number;
}

std::string MinusOne(std::string number) {  // REQUIRES: above 0
  size_t i = number.size();
  while (number[i - 1] == '0') number[--i] = '9';
  --number[i - 1];
  if (number.size() > 1 && number[0] == '0') number.erase(0, 1);
  return number;
}

int Compare(const std::string& a, const std::string& b) {
  if (a.size() != b.size()) return a.size() < b.size() ? -1 : 1;
  return a.compare(b);
}

absl::StatusOr<Automaton> Of(Expressions& e, ExprId expression) { return MakeAutomaton(e, expression); }

// Numbers without a sign, from `low` (0 where there is none) to `high`.
absl::StatusOr<Automaton> UnsignedNumbers(const DecimalBound& low, const std::optional<DecimalBound>& high) {
  Expressions e;
  // Whole part equal to the lower bound's, or above it.
  const ExprId from = e.Choice({e.Sequence({e.Literal(low.value.whole), FractionAtLeast(e, low)}),
                                e.Sequence({Unsigned(e, PlusOne(low.value.whole), ""), AnyFraction(e)})});
  absl::StatusOr<Automaton> above = Of(e, from);
  if (!above.ok() || !high) return above;
  std::vector<ExprId> to = {e.Sequence({e.Literal(high->value.whole), FractionAtMost(e, *high)})};
  if (high->value.whole != "0") {
    to.push_back(e.Sequence({Unsigned(e, "0", MinusOne(high->value.whole)), AnyFraction(e)}));
  }
  absl::StatusOr<Automaton> below = Of(e, e.Choice(std::move(to)));
  if (!below.ok()) return below;
  return Intersection(*above, *below);
}

bool IsZero(const Decimal& value) { return value.whole == "0" && value.fraction.empty(); }

Decimal Zero() { return {.negative = false, .whole = "0", .fraction = ""}; }

}  // namespace

ExprId JsonChars(Expressions& e, const CharRanges& ranges) {
  CharRanges plain;
  std::vector<ExprId> choices;
  for (const auto& [low, high] : Sorted(ranges)) {
    char32_t from = low;
    for (char32_t c = low; c <= std::min<char32_t>(high, '\\'); ++c) {
      if (!NeedsEscape(c)) continue;
      choices.push_back(e.Literal(EscapeOf(c)));
      if (c > from) plain.emplace_back(from, c - 1);
      from = c + 1;
    }
    if (from <= high) plain.emplace_back(from, high);
  }
  if (!plain.empty()) choices.push_back(e.Chars(plain));
  return e.Choice(std::move(choices));
}

ExprId AnyJsonChar(Expressions& e) {
  const auto hex = [&](const char* from, const char* to) {  // bytes of one digit, both cases
    std::vector<ExprId> choices;
    for (const char c : std::string_view("0123456789abcdefABCDEF")) {
      const char lower = c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c;
      if (lower >= from[0] && lower <= to[0]) choices.push_back(Digit(e, c, c));
    }
    return e.Choice(std::move(choices));
  };
  const ExprId any = hex("0", "f");
  const ExprId u = e.Literal("\\u");
  const ExprId high_surrogate = e.Sequence({u, hex("d", "d"), hex("8", "b"), any, any});
  const ExprId low_surrogate = e.Sequence({u, hex("d", "d"), hex("c", "f"), any, any});
  std::vector<ExprId> simple;
  for (const char c : std::string_view("\"\\/bfnrt")) simple.push_back(e.Literal({std::string("\\") + c}));
  return e.Choice(
      {e.Chars({{kFirstPlain, '"' - 1}, {'"' + 1, '\\' - 1}, {'\\' + 1, kMaxChar}}), e.Choice(std::move(simple)),
       e.Sequence({u, e.Choice({hex("0", "c"), hex("e", "f")}), any, any, any}),
       e.Sequence({u, hex("d", "d"), hex("0", "7"), any, any}), e.Sequence({high_surrogate, low_surrogate})});
}

std::string JsonString(std::string_view text) {
  std::string json = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80 && NeedsEscape(byte)) {
      json += EscapeOf(byte);
    } else {
      json += c;
    }
  }
  return json + "\"";
}

ExprId AnyJsonInteger(Expressions& e) {
  // As many digits as 64 bits hold whatever they are: a model that does not stop would write digits for ever.
  return e.Sequence(
      {e.Optional(e.Literal("-")), e.Choice({e.Literal("0"), e.Sequence({Digit(e, '1', '9'), Digits(e, 0, 17)})})});
}

ExprId AnyJsonNumber(Expressions& e) {
  // Two digits: what is larger than a double can be, most readers refuse.
  const ExprId exponent = e.Sequence({e.Choice({e.Literal("e"), e.Literal("E")}),
                                      e.Optional(e.Choice({e.Literal("+"), e.Literal("-")})), Digits(e, 1, 2)});
  return e.Sequence({AnyJsonInteger(e), AnyFraction(e), e.Optional(exponent)});
}

ExprId JsonIntegers(Expressions& e, std::optional<int64_t> low, std::optional<int64_t> high) {
  if (!low && !high) return AnyJsonInteger(e);
  if (low && high && *low > *high) return e.Nothing();
  const auto magnitude = [](int64_t value) {
    return absl::StrCat(value < 0 ? uint64_t{0} - static_cast<uint64_t>(value) : static_cast<uint64_t>(value));
  };
  std::vector<ExprId> choices;
  if (!low || *low < 0) {  // -n, n from 1 on
    const std::string from = high && *high < 0 ? magnitude(*high) : "1";
    const std::string to = low ? magnitude(*low) : "";
    choices.push_back(e.Sequence({e.Literal("-"), Unsigned(e, from, to)}));
  }
  if (!high || *high >= 0) {
    const std::string from = low && *low > 0 ? magnitude(*low) : "0";
    choices.push_back(Unsigned(e, from, high ? magnitude(*high) : ""));
  }
  return e.Choice(std::move(choices));
}

std::optional<Decimal> ParseDecimal(std::string_view json) {
  constexpr int kMaxDigits = 40;
  Decimal value;
  if (!json.empty() && json[0] == '-') {
    value.negative = true;
    json.remove_prefix(1);
  }
  const size_t exponent_at = json.find_first_of("eE");
  int exponent = 0;
  if (exponent_at != std::string_view::npos) {
    if (!absl::SimpleAtoi(std::string(json.substr(exponent_at + 1)), &exponent)) return std::nullopt;
    json = json.substr(0, exponent_at);
  }
  const size_t point = json.find('.');
  std::string whole(json.substr(0, point));
  std::string fraction(point == std::string_view::npos ? "" : json.substr(point + 1));
  if (std::abs(exponent) > kMaxDigits || whole.size() + fraction.size() > kMaxDigits) return std::nullopt;
  for (; exponent > 0; --exponent) {
    whole += fraction.empty() ? '0' : fraction[0];
    if (!fraction.empty()) fraction.erase(0, 1);
  }
  for (; exponent < 0; ++exponent) {
    fraction.insert(0, 1, whole.empty() ? '0' : whole.back());
    if (!whole.empty()) whole.pop_back();
  }
  whole.erase(0, std::min(whole.find_first_not_of('0'), whole.size()));
  fraction.erase(fraction.find_last_not_of('0') + 1);
  value.whole = whole.empty() ? "0" : whole;
  value.fraction = fraction;
  if (value.whole.size() + value.fraction.size() > kMaxDigits) return std::nullopt;
  if (IsZero(value)) value.negative = false;
  return value;
}

absl::StatusOr<Automaton> JsonNumbers(const std::optional<DecimalBound>& low, const std::optional<DecimalBound>& high) {
  Expressions e;
  if (!low && !high) return Of(e, AnyJsonNumber(e));
  Automaton none;
  // Below zero the bounds change sides.
  absl::StatusOr<Automaton> negative = none, positive = none;
  if (!low || low->value.negative) {
    DecimalBound from{.value = Zero(), .exclusive = true};  // 0 has no sign
    if (high && high->value.negative) from = *high;
    negative = UnsignedNumbers(from, low);
  }
  if (!high || !high->value.negative) {
    DecimalBound from{.value = Zero()};
    if (low && !low->value.negative) from = *low;
    const bool empty = high && Compare(from.value.whole, high->value.whole) > 0;
    if (!empty) positive = UnsignedNumbers(from, high);
  }
  if (!negative.ok()) return negative;
  if (!positive.ok()) return positive;
  // A start of its own: with a sign the one, without it the other.
  Automaton joined;
  joined.states.emplace_back();
  const auto append = [&joined](const Automaton& part) {
    const auto first = static_cast<int32_t>(joined.states.size());
    for (const Automaton::State& state : part.states) {
      joined.states.push_back(state);
      for (Automaton::Edge& edge : joined.states.back().edges) edge.target += first;
    }
    return first;
  };
  if (!negative->states.empty()) {
    const int32_t first = append(*negative);
    joined.states[0].edges.push_back({.low = '-', .high = '-', .target = first});
  }
  if (!positive->states.empty()) {
    const int32_t first = append(*positive);
    for (const Automaton::Edge& edge : joined.states[static_cast<size_t>(first)].edges) {
      joined.states[0].edges.push_back(edge);
    }
  }
  return joined;
}

}  // namespace updraft::grammar
