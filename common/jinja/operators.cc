#include "common/jinja/operators.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/jinja/text_functions.h"
#include "common/jinja/unicode.h"

namespace updraft::jinja {
namespace {

Value Unfit(std::string_view op, const Value& left, const Value& right, Budget& budget) {
  budget.Fail(absl::StrFormat("expected operands that '%s' knows, found %s and %s", std::string(op), KindName(left),
                              KindName(right)));
  return Value();
}

Value TooLarge(Budget& budget) {
  budget.Fail("expected an integer of at most 64 bits, found a larger one");
  return Value();
}

Value Repeated(const Value& value, int64_t times, Budget& budget) {
  if (times < 0) times = 0;
  const auto n = static_cast<uint64_t>(times);
  if (value.is_text()) {
    const SourcedText& text = value.text();
    if (n > 0 && text.size() > kMaxTextBytes / n) {
      budget.ChargeBytes(kMaxTextBytes + 1);
      return Value();
    }
    if (!budget.ChargeBytes(text.size() * n)) return Value();
    SourcedText repeated;
    repeated.set_markup(text.is_markup());
    for (uint64_t i = 0; i < n; ++i) repeated.Append(text);
    return Value(std::move(repeated));
  }
  const std::vector<Value>& items = value.items();
  if (n > 0 && items.size() > kMaxSteps / n) {
    budget.Charge(kMaxSteps + 1);
    return Value();
  }
  if (!budget.Charge(items.size() * n)) return Value();
  std::vector<Value> repeated;
  for (uint64_t i = 0; i < n; ++i) repeated.insert(repeated.end(), items.begin(), items.end());
  return Value(Sequence{value.sequence().kind, std::move(repeated)});
}

bool IsTextOrList(const Value& value) { return value.is_text() || value.is_list() || value.is_tuple(); }

Value Sum(const Value& left, const Value& right, Budget& budget) {
  if (left.is_text() && right.is_text()) {
    if (!budget.ChargeBytes(left.text().size() + right.text().size())) return Value();
    const bool markup = left.text().is_markup() || right.text().is_markup();
    SourcedText joined = markup ? Escaped(left.text()) : left.text();
    joined.Append(markup ? Escaped(right.text()) : right.text());
    return Value(std::move(joined));
  }
  if ((left.is_list() && right.is_list()) || (left.is_tuple() && right.is_tuple())) {
    if (!budget.Charge(left.items().size() + right.items().size())) return Value();
    std::vector<Value> items = left.items();
    items.insert(items.end(), right.items().begin(), right.items().end());
    return Value(Sequence{left.sequence().kind, std::move(items)});
  }
  return Unfit("+", left, right, budget);
}

// ---- Numbers --------------------------------------------------------------------------------------------------------

int64_t FloorMod(int64_t a, int64_t b) {
  if (b == -1) return 0;
  const int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

double FloorMod(double a, double b) {
  double rest = std::fmod(a, b);
  if (rest != 0.0) {
    if ((rest < 0.0) != (b < 0.0)) rest += b;
  } else {
    rest = std::copysign(0.0, b);
  }
  return rest;
}

double FloorDivided(double a, double b) {
  const double rest = std::fmod(a, b);
  double quotient = (a - rest) / b;
  if (rest != 0.0 && (rest < 0.0) != (b < 0.0)) quotient -= 1.0;
  if (quotient == 0.0) return std::copysign(0.0, a / b);
  const double floor = std::floor(quotient);
  return quotient - floor > 0.5 ? floor + 1.0 : floor;
}

Value Power(const Value& left, const Value& right, Budget& budget) {
  if (!left.is_float() && !right.is_float() && right.integer() >= 0) {
    int64_t result = 1;
    int64_t base = left.integer();
    for (int64_t n = right.integer(); n > 0; n >>= 1) {
      if ((n & 1) != 0 && __builtin_mul_overflow(result, base, &result)) return TooLarge(budget);
      if (n > 1 && __builtin_mul_overflow(base, base, &base)) return TooLarge(budget);
    }
    return Value(result);
  }
  const double base = left.number(), exponent = right.number();
  if ((base == 0.0 && exponent < 0.0) || (base < 0.0 && exponent != std::floor(exponent))) {
    budget.Fail("expected a power that is a real number, found one that is not");
    return Value();
  }
  const double result = std::pow(base, exponent);
  if (std::isinf(result) && !std::isinf(base) && !std::isinf(exponent)) {
    budget.Fail("expected a power within the range of floats, found a larger one");
  }
  return Value(result);
}

Value IntegerMath(int64_t a, std::string_view op, int64_t b, Budget& budget) {
  int64_t result = 0;
  bool over = false;
  if (op == "+") {
    over = __builtin_add_overflow(a, b, &result);
  } else if (op == "-") {
    over = __builtin_sub_overflow(a, b, &result);
  } else if (op == "*") {
    over = __builtin_mul_overflow(a, b, &result);
  } else if (op == "%") {
    result = FloorMod(a, b);
  } else {  // //
    over = a == std::numeric_limits<int64_t>::min() && b == -1;
    if (!over) result = a / b - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0);
  }
  return over ? TooLarge(budget) : Value(result);
}

Value Arithmetic(const Value& left, std::string_view op, const Value& right, Budget& budget) {
  const bool divides = op == "/" || op == "//" || op == "%";
  if (divides && right.number() == 0.0) {
    budget.Fail("expected a divisor other than zero, found zero");
    return Value();
  }
  if (op == "**") return Power(left, right, budget);
  if (op == "/") return Value(left.number() / right.number());
  if (!left.is_float() && !right.is_float()) return IntegerMath(left.integer(), op, right.integer(), budget);
  const double a = left.number(), b = right.number();
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  return Value(op == "%" ? FloorMod(a, b) : FloorDivided(a, b));
}

// ---- Comparing ------------------------------------------------------------------------------------------------------

bool EqualDicts(const Dict& left, const Dict& right, Budget& budget) {
  if (left.size() != right.size()) return false;
  for (const auto& [key, value] : left.entries()) {
    const Value* other = right.Find(key);
    if (other == nullptr || !Equal(value, *other, budget)) return false;
  }
  return true;
}

// -1, 0, 1; of numbers, or of two strings.
int Compared(const Value& left, const Value& right, Budget& budget) {
  if (left.is_text()) {
    budget.ChargeBytes(std::min(left.text().size(), right.text().size()));
    // The order of UTF-8 is that of code points.
    const int order = left.text().bytes().compare(right.text().bytes());
    return order < 0 ? -1 : order > 0 ? 1 : 0;
  }
  if (!left.is_float() && !right.is_float()) {
    return left.integer() < right.integer() ? -1 : left.integer() > right.integer() ? 1 : 0;
  }
  return left.number() < right.number() ? -1 : left.number() > right.number() ? 1 : 0;
}

bool Holds(int order, std::string_view op) {
  if (op == "<") return order < 0;
  if (op == "<=") return order <= 0;
  if (op == ">") return order > 0;
  return order >= 0;
}

}  // namespace

Value Calculate(const Value& left, std::string_view op, const Value& right, Budget& budget) {
  if (!budget.Charge()) return Value();
  if (left.is_number() && right.is_number()) return Arithmetic(left, op, right, budget);
  if (op == "+") return Sum(left, right, budget);
  if (op == "*" && IsTextOrList(left) && right.is_number() && !right.is_float()) {
    return Repeated(left, right.integer(), budget);
  }
  if (op == "*" && IsTextOrList(right) && left.is_number() && !left.is_float()) {
    return Repeated(right, left.integer(), budget);
  }
  if (op == "%" && left.is_text()) return FormatPercent(left.text(), right, budget);
  return Unfit(op, left, right, budget);
}

Value Negative(const Value& value, Budget& budget) {
  if (value.is_float()) return Value(-value.number());
  if (value.is_number()) return IntegerMath(0, "-", value.integer(), budget);
  budget.Fail(absl::StrFormat("expected a number after '-', found %s", KindName(value)));
  return Value();
}

bool Equal(const Value& left, const Value& right, Budget& budget) {
  if (!budget.Charge()) return false;
  if (left.is_undefined() || right.is_undefined()) return left.is_undefined() && right.is_undefined();
  if (left.is_number() && right.is_number()) {
    if (!left.is_float() && !right.is_float()) return left.integer() == right.integer();
    return left.number() == right.number();
  }
  if (left.is_text() && right.is_text()) {
    budget.ChargeBytes(left.text().size());
    return left.text().bytes() == right.text().bytes();
  }
  if (left.is_dict() && right.is_dict()) return EqualDicts(left.dict(), right.dict(), budget);
  if (left.is_sequence() && right.is_sequence() && left.sequence().kind == right.sequence().kind &&
      !left.is_iterator()) {
    const std::vector<Value>&a = left.items(), &b = right.items();
    if (a.size() != b.size()) return false;
    for (size_t i = 0; i < a.size(); ++i) {
      if (!Equal(a[i], b[i], budget)) return false;
    }
    return true;
  }
  return left.SameAs(right);
}

bool Ordered(const Value& left, std::string_view op, const Value& right, Budget& budget) {
  if (!budget.Charge()) return false;
  if (left.is_float() || right.is_float()) {
    if (left.is_number() && right.is_number() && (std::isnan(left.number()) || std::isnan(right.number())))
      return false;
  }
  if ((left.is_number() && right.is_number()) || (left.is_text() && right.is_text())) {
    return Holds(Compared(left, right, budget), op);
  }
  if ((left.is_list() && right.is_list()) || (left.is_tuple() && right.is_tuple())) {
    const std::vector<Value>&a = left.items(), &b = right.items();
    for (size_t i = 0; i < std::min(a.size(), b.size()) && budget.ok(); ++i) {
      if (!Equal(a[i], b[i], budget)) return Ordered(a[i], op, b[i], budget);
    }
    return Holds(a.size() < b.size() ? -1 : a.size() > b.size() ? 1 : 0, op);
  }
  Unfit(op, left, right, budget);
  return false;
}

bool Contains(const Value& container, const Value& value, Budget& budget) {
  if (!budget.Charge()) return false;
  if (container.is_text()) {
    if (!value.is_text()) {
      budget.Fail(absl::StrFormat("expected a string to look for in a string, found %s", KindName(value)));
      return false;
    }
    budget.ChargeBytes(container.text().size());
    return container.text().bytes().find(value.text().bytes()) != std::string::npos;
  }
  if (container.is_dict()) {
    if (value.is_text()) budget.ChargeBytes(value.text().size());
    if (value.is_list() || value.is_dict()) {
      budget.Fail(absl::StrFormat("expected something that can be a key of a dict, found %s", KindName(value)));
    }
    return container.dict().Find(value) != nullptr;
  }
  if (!container.is_sequence() && !container.is_undefined() && !container.is_loop()) {
    budget.Fail(absl::StrFormat("expected a string, a list or a dict after 'in', found %s", KindName(container)));
    return false;
  }
  for (const Value& item : Elements(container, budget)) {
    if (item.SameAs(value) || Equal(item, value, budget)) return true;
  }
  return false;
}

std::vector<Value> Elements(const Value& value, Budget& budget) {
  std::vector<Value> elements;
  if (value.is_undefined()) return elements;
  if (value.is_sequence()) {
    const Sequence& sequence = value.sequence();
    if (sequence.kind == Sequence::Kind::kIterator && std::exchange(sequence.spent, true)) return elements;
    if (budget.Charge(sequence.items.size())) elements = sequence.items;
    return elements;
  }
  if (value.is_dict()) {
    if (!budget.Charge(value.dict().size())) return elements;
    for (const auto& entry : value.dict().entries()) elements.push_back(entry.first);
    return elements;
  }
  if (value.is_text()) {
    const SourcedText& text = value.text();
    if (!budget.Charge(text.size())) return elements;
    for (size_t pos = 0; pos < text.size();) {
      SourcedText element;
      const size_t begin = pos;
      NextChar(text.bytes(), &pos);
      element.AppendPart(text, begin, pos);
      elements.emplace_back(std::move(element));
    }
    return elements;
  }
  budget.Fail(absl::StrFormat("expected something to walk over (a list, a dict, a string), found %s", KindName(value)));
  return elements;
}

}  // namespace updraft::jinja
