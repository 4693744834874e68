// What Python's operators do with a template's values, and the two ways to write a value down. Errors go to the budget;
// what is returned then means nothing.
#pragma once

#include <string>
#include <string_view>

#include "common/jinja/budget.h"
#include "common/jinja/value.h"

namespace updraft::jinja {

// + - * / // % **
Value Calculate(const Value& left, std::string_view op, const Value& right, Budget& budget);
Value Negative(const Value& value, Budget& budget);

bool Equal(const Value& left, const Value& right, Budget& budget);
// < <= > >=
bool Ordered(const Value& left, std::string_view op, const Value& right, Budget& budget);
bool Contains(const Value& container, const Value& value, Budget& budget);

// str(value), as {{ value }} writes it, and repr(value).
SourcedText ToText(const Value& value, Budget& budget);
SourcedText Repr(const Value& value, Budget& budget);
std::string FloatText(double value);

// What str % arguments gives.
Value FormatPercent(const SourcedText& format, const Value& arguments, Budget& budget);

// The elements that a for loop walks over; of a dict its keys, of a string its characters. Fails for what cannot be
// walked. An iterator is spent by it.
std::vector<Value> Elements(const Value& value, Budget& budget);

}  // namespace updraft::jinja
