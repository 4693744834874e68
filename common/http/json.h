// JSON from the outside, parsed without exceptions and within limits; JSON to the outside, always valid UTF-8.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace updraft::http {

using Json = nlohmann::json;

inline constexpr int kMaxJsonDepth = 64;  // nested arrays and objects

// InvalidArgument for what is not one JSON value in valid UTF-8, or is nested deeper than kMaxJsonDepth; says where.
absl::StatusOr<Json> ParseJson(std::string_view text);

// One line. Invalid UTF-8 inside strings becomes U+FFFD.
std::string DumpJson(const Json& value);

// "a string", "an array", ...: for messages.
const char* JsonTypeName(const Json& value);

}  // namespace updraft::http
