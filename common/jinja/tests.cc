// What `is` asks: the tests of Jinja 3.1 (jinja2/tests.py).
#include <cmath>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_format.h"
#include "common/jinja/arguments.h"
#include "common/jinja/interpreter.h"
#include "common/jinja/operators.h"

namespace updraft::jinja {
namespace {

bool IsInteger(const Value& value) { return value.is_int(); }
bool IsFloat(const Value& value) { return value.is_float(); }
bool IsNumber(const Value& value) { return value.is_number(); }
bool IsText(const Value& value) { return value.is_text(); }
bool IsMapping(const Value& value) { return value.is_dict(); }
bool IsNone(const Value& value) { return value.is_none(); }
bool IsDefined(const Value& value) { return !value.is_undefined(); }
bool IsUndefined(const Value& value) { return value.is_undefined(); }
bool IsBoolean(const Value& value) { return value.is_bool(); }
bool IsTrue(const Value& value) { return value.is_bool() && value.boolean(); }
bool IsFalse(const Value& value) { return value.is_bool() && !value.boolean(); }
bool IsCallable(const Value& value) { return value.is_callable() || value.is_undefined(); }
bool IsIterable(const Value& value) {
  return value.is_sequence() || value.is_dict() || value.is_text() || value.is_undefined() || value.is_loop();
}
bool IsSequence(const Value& value) {
  if (value.is_sequence()) return !value.is_iterator() && value.sequence().kind != Sequence::Kind::kView;
  return value.is_dict() || value.is_text() || value.is_undefined();
}

template <bool (*is)(const Value&)>
bool Kind(Interpreter& in, Arguments arguments) {
  const Bound args(in, "a test", std::move(arguments), {"value"}, 1);
  return in.ok() && is(args[0]);
}

template <bool upper>
bool IsCase(Interpreter& in, Arguments arguments) {
  const Bound args(in, upper ? "upper" : "lower", std::move(arguments), {"value"}, 1);
  if (!in.ok()) return false;
  const Value text(ToText(args[0], in.budget()));
  return Truthy(in.Call(in.Attribute(text, upper ? "isupper" : "islower"), {}));
}

// value % divisor == rest
bool HasRest(Interpreter& in, const Value& value, const Value& divisor, int64_t rest) {
  const Value found = Calculate(value, "%", divisor, in.budget());
  return in.ok() && Equal(found, Value(rest), in.budget());
}

template <int rest>
bool IsRestOfTwo(Interpreter& in, Arguments arguments) {
  const Bound args(in, rest == 0 ? "even" : "odd", std::move(arguments), {"value"}, 1);
  return in.ok() && HasRest(in, args[0], Value(int64_t{2}), rest);
}

bool IsDivisibleBy(Interpreter& in, Arguments arguments) {
  const Bound args(in, "divisibleby", std::move(arguments), {"value", "num"}, 2);
  return in.ok() && HasRest(in, args[0], args[1], 0);
}

bool IsSameAs(Interpreter& in, Arguments arguments) {
  const Bound args(in, "sameas", std::move(arguments), {"value", "other"}, 2);
  return in.ok() && args[0].SameAs(args[1]);
}

bool IsIn(Interpreter& in, Arguments arguments) {
  const Bound args(in, "in", std::move(arguments), {"value", "seq"}, 2);
  return in.ok() && Contains(args[1], args[0], in.budget());
}

template <bool equal>
bool IsEqual(Interpreter& in, Arguments arguments) {
  const Bound args(in, "a comparison", std::move(arguments), {"a", "b"}, 2);
  return in.ok() && Equal(args[0], args[1], in.budget()) == equal;
}

enum class Order { kLess, kLessOrEqual, kGreater, kGreaterOrEqual };

template <Order order>
bool IsOrdered(Interpreter& in, Arguments arguments) {
  const Bound args(in, "a comparison", std::move(arguments), {"a", "b"}, 2);
  constexpr const char* kOperators[] = {"<", "<=", ">", ">="};
  return in.ok() && Ordered(args[0], kOperators[static_cast<int>(order)], args[1], in.budget());
}

template <bool filter>
bool IsKnown(Interpreter& in, Arguments arguments) {
  const Bound args(in, filter ? "filter" : "test", std::move(arguments), {"value"}, 1);
  if (!in.ok() || !args[0].is_text()) return false;
  const std::string& name = args[0].text().bytes();
  return filter ? FindFilter(name) != nullptr : FindTest(name) != nullptr;
}

}  // namespace

TestFunction FindTest(std::string_view name) {
  static const auto* const tests = new absl::flat_hash_map<std::string_view, TestFunction>{
      {"defined", Kind<IsDefined>},
      {"undefined", Kind<IsUndefined>},
      {"none", Kind<IsNone>},
      {"boolean", Kind<IsBoolean>},
      {"true", Kind<IsTrue>},
      {"false", Kind<IsFalse>},
      {"integer", Kind<IsInteger>},
      {"float", Kind<IsFloat>},
      {"number", Kind<IsNumber>},
      {"string", Kind<IsText>},
      {"mapping", Kind<IsMapping>},
      {"iterable", Kind<IsIterable>},
      {"sequence", Kind<IsSequence>},
      {"callable", Kind<IsCallable>},
      {"lower", IsCase<false>},
      {"upper", IsCase<true>},
      {"even", IsRestOfTwo<0>},
      {"odd", IsRestOfTwo<1>},
      {"divisibleby", IsDivisibleBy},
      {"sameas", IsSameAs},
      {"in", IsIn},
      {"filter", IsKnown<true>},
      {"test", IsKnown<false>},
      {"eq", IsEqual<true>},
      {"equalto", IsEqual<true>},
      {"==", IsEqual<true>},
      {"ne", IsEqual<false>},
      {"!=", IsEqual<false>},
      {"lt", IsOrdered<Order::kLess>},
      {"lessthan", IsOrdered<Order::kLess>},
      {"<", IsOrdered<Order::kLess>},
      {"le", IsOrdered<Order::kLessOrEqual>},
      {"<=", IsOrdered<Order::kLessOrEqual>},
      {"gt", IsOrdered<Order::kGreater>},
      {"greaterthan", IsOrdered<Order::kGreater>},
      {">", IsOrdered<Order::kGreater>},
      {"ge", IsOrdered<Order::kGreaterOrEqual>},
      {">=", IsOrdered<Order::kGreaterOrEqual>},
  };
  const auto it = tests->find(name);
  return it == tests->end() ? nullptr : it->second;
}

}  // namespace updraft::jinja
