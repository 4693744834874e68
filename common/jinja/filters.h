// The tables of filters, one per kind of operand.
#pragma once

#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "common/jinja/interpreter.h"

namespace updraft::jinja {

using Filters = absl::flat_hash_map<std::string_view, FilterFunction>;
const Filters& TextFilters();      // text_filters.cc: of strings and of single values
const Filters& SequenceFilters();  // sequence_filters.cc: of what can be walked

// What attribute="a.b.0" of a filter finds; the parts are looked for as [] does.
Value ByPath(Interpreter& in, const Value& value, const Value& path);

}  // namespace updraft::jinja
