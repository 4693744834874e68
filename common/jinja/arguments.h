// Arguments by position and by name, as Python binds them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "common/jinja/interpreter.h"

namespace updraft::jinja {

// The arguments of one call, one slot per parameter. Fails where there are too many, too few (the first n_required are
// needed) or one with a name that no parameter has.
class Bound {
 public:
  Bound(Interpreter& in, std::string_view what, Arguments arguments, std::initializer_list<const char*> parameters,
        size_t n_required);

  bool has(size_t i) const { return given_[i]; }
  const Value& operator[](size_t i) const { return values_[i]; }  // undefined: not given
  bool has_value(size_t i) const { return given_[i] && !values_[i].is_none(); }

  // With a default for what is not given (or none, for integers); fail for other kinds.
  bool Flag(size_t i, bool otherwise) const { return given_[i] ? Truthy(values_[i]) : otherwise; }
  int64_t Integer(size_t i, int64_t otherwise) const;
  SourcedText Text(size_t i, std::string_view otherwise = "") const;

 private:
  Interpreter& in_;
  const std::string what_;
  const std::vector<const char*> parameters_;
  std::vector<Value> values_;
  std::vector<bool> given_;
};

}  // namespace updraft::jinja
