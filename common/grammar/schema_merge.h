// Schemas that hold together, as one: allOf, a $ref with neighbours, alternatives with what stands beside them.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace updraft::grammar {

using SchemaJson = nlohmann::ordered_json;

// What fits both. INVALID_ARGUMENT names a keyword that both have and that cannot be joined.
absl::StatusOr<SchemaJson> Merged(const SchemaJson& a, const SchemaJson& b);

// Whether a keyword says nothing of what fits, and whether it does; of a keyword of no draft neither.
bool IsAnnotation(const std::string& keyword);
bool IsAssertion(const std::string& keyword);

}  // namespace updraft::grammar
