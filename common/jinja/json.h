// JSON to values and back.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/jinja/budget.h"
#include "common/jinja/value.h"

namespace updraft::jinja {

// Objects keep the order of their keys. All strings, keys too, have the given source. InvalidArgument for what is not
// one JSON value in UTF-8, or is nested deeper than kMaxDepth.
absl::StatusOr<Value> ParseJson(std::string_view json, Source source);

// json.dumps of Python.
struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool multiline = false;  // indent is not None
  std::string indent = {};
  std::string item_separator = ", ", key_separator = ": ";
};
SourcedText WriteJson(const Value& value, const JsonStyle& style, Budget& budget);

}  // namespace updraft::jinja
