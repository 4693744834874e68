// Fields of a request's JSON, read and checked: what the parts of the parser share.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "common/http/openai.h"

namespace updraft::http::openai {

inline absl::Status WrongType(const std::string& field, const char* expected, const Json& found) {
  return FieldError(field, absl::StrFormat("expected %s, found %s", expected, JsonTypeName(found)));
}

// Reads fields of one JSON object into variables, and remembers the first error. A field that is absent or null leaves
// the variable.
class FieldReader {
 public:
  explicit FieldReader(const Json& object, std::string prefix = "") : object_(object), prefix_(std::move(prefix)) {}

  const absl::Status& status() const { return status_; }
  void Fail(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }
  std::string Name(const char* field) const { return prefix_ + field; }

  // The field's value; null when it is absent, null, or something failed before.
  const Json* Find(const char* field) const {
    if (!status_.ok()) return nullptr;
    auto it = object_.find(field);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  void Bool(const char* field, bool& out) {
    const Json* value = Find(field);
    if (value == nullptr) return;
    if (!value->is_boolean()) return Fail(WrongType(Name(field), "a boolean", *value));
    out = value->get<bool>();
  }

  void String(const char* field, size_t max_bytes, std::string& out) {
    const Json* value = Find(field);
    if (value == nullptr) return;
    if (!value->is_string()) return Fail(WrongType(Name(field), "a string", *value));
    out = value->get<std::string>();
    if (out.size() > max_bytes) {
      Fail(FieldError(Name(field), absl::StrFormat("expected at most %d bytes, found %d", max_bytes, out.size())));
    }
  }

  // Whole numbers only, however they are spelled (5.0 of a client whose numbers are all floating-point ones); whatever
  // does not fit int64 is out of range.
  void Integer(const char* field, int64_t low, int64_t high, std::optional<int64_t>& out) {
    const Json* value = Find(field);
    if (value == nullptr) return;
    // JSON's parser reads whole numbers beyond 64 bits as floating-point ones.
    const bool huge = value->is_number_float() && std::abs(value->get<double>()) >= 0x1p63;
    const bool whole = value->is_number_float() && std::trunc(value->get<double>()) == value->get<double>();
    if (!value->is_number_integer() && !whole) {
      if (value->is_number())
        return Fail(FieldError(Name(field), "expected a whole number, found " + DumpJson(*value)));
      return Fail(WrongType(Name(field), "a whole number", *value));
    }
    const bool beyond = huge || (value->is_number_unsigned() &&
                                 value->get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()));
    const int64_t number = beyond ? std::numeric_limits<int64_t>::max() : value->get<int64_t>();
    if (beyond || number < low || number > high) {
      return Fail(FieldError(Name(field), absl::StrFormat("out of range: expected a whole number in [%d, %d], found %s",
                                                          low, high, DumpJson(*value))));
    }
    out = number;
  }

  void Number(const char* field, double low, double high, double& out) {
    const Json* value = Find(field);
    if (value == nullptr) return;
    if (!value->is_number()) return Fail(WrongType(Name(field), "a number", *value));
    const double number = value->get<double>();
    if (!(number >= low && number <= high)) {
      return Fail(FieldError(Name(field),
                             absl::StrFormat("expected a number in [%g, %g], found %s", low, high, DumpJson(*value))));
    }
    out = number;
  }

  // A field that OpenAI knows and Updraft does not act on: only values that ask for nothing pass.
  void Unsupported(const char* field, const char* what) {
    const Json* value = Find(field);
    if (value == nullptr) return;
    const bool asks_for_nothing = (value->is_structured() && value->empty()) ||
                                  (value->is_boolean() && !value->get<bool>()) ||
                                  (value->is_number() && value->get<double>() == 0.0) ||
                                  (value->is_string() && value->get_ref<const std::string&>().empty());
    if (!asks_for_nothing)
      Fail(FieldError(Name(field), absl::StrFormat("%s not supported; leave the field out", what)));
  }

 private:
  const Json& object_;
  const std::string prefix_;
  absl::Status status_;
};

// The shape that a request asks for, under any of the names that it has; `body` is the text that the reader's object
// was parsed from (openai_shape.cc).
void ReadShape(FieldReader& reader, std::string_view body, std::optional<Shape>& shape);

}  // namespace updraft::http::openai
