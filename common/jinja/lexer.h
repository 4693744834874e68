// A template's source as tokens, by the rules of Jinja 3.1's lexer (jinja2/lexer.py) with trim_blocks and lstrip_blocks
// on and keep_trailing_newline off: what Hugging Face sets for chat templates.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace updraft::jinja {

enum class TokenKind {
  kData,        // text between tags
  kBlockBegin,  // {%
  kBlockEnd,
  kVariableBegin,  // {{
  kVariableEnd,
  kName,
  kString,   // `text` without quotes, escapes resolved
  kInteger,  // `text` in decimal
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind;
  std::string text;
  int line;
};

// The last token is kEnd. InvalidArgument: "line N: ...".
absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source);

}  // namespace updraft::jinja
