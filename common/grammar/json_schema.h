// A JSON schema into a grammar of the JSON texts that fit it (drafts 6 to 2020-12, as far as a text can be followed
// from its beginning to its end). Every text of the grammar fits the schema; texts that fit and are not of the grammar
// there are: properties come in the schema's order, numbers within bounds have no exponent, white space is one space,
// or a line break and up to 20 spaces. docs/SHAPES.md has the keywords.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "common/grammar/grammar.h"

namespace updraft::grammar {

struct JsonSchemaOptions {
  // Whether a schema that names properties and does not speak of others (additionalProperties) allows them. The
  // standard says that it does; who writes a schema for a model means those that it names.
  bool open_objects = false;
  bool white_space = true;  // false: none
};

inline constexpr size_t kMaxSchemaBytes = 64 << 10;

// INVALID_ARGUMENT names the keyword by its path (#/properties/a/pattern): of a wrong type, not known here, or such
// that nothing fits. Keywords that only describe (title, description, default, examples, ...) and those of no draft are
// passed over. RESOURCE_EXHAUSTED: too large.
absl::StatusOr<Grammar> GrammarOfJsonSchema(std::string_view schema, const JsonSchemaOptions& options = {});

}  // namespace updraft::grammar
