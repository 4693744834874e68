// Tokens to a tree, by the grammar of Jinja 3.1 (jinja2/parser.py) with the extensions that chat templates may use:
// break and continue, and {% generation %} of Hugging Face, whose body is rendered like any other.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "common/jinja/ast.h"
#include "common/jinja/lexer.h"

namespace updraft::jinja {

// InvalidArgument: "line N: expected ..., found ...". Tags that need other files (include, import, extends) are refused
// by name.
absl::StatusOr<Body> Parse(const std::vector<Token>& tokens);

}  // namespace updraft::jinja
