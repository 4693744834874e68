// What an answer with calls of tools may look like, as a grammar: names that there are, arguments that fit, and the
// markers of the model's format around them.
#pragma once

#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "common/grammar/grammar.h"
#include "common/tools/call_format.h"

namespace updraft::tools {

struct CallableTool {
  std::string name;
  std::string parameters;  // JSON schema, an object; empty: it takes none
  bool strict = false;     // a schema that cannot be followed is an error; otherwise the arguments are any JSON object
};

struct CallWish {
  bool required = false;  // the answer is a call; otherwise it is text, calls or both
  std::string name = {};  // of the tool to call; empty: any
  bool one_call = false;
};

// Text before calls is any that has not the format's marker in it; behind calls there is none. tools: at least one,
// names apart. INVALID_ARGUMENT names the tool ("tools[2].parameters: ...") whose schema is strict and cannot be
// followed; RESOURCE_EXHAUSTED: too large together, even with arguments that are any object.
absl::StatusOr<grammar::Grammar> GrammarOfCalls(const CallFormat& format, std::span<const CallableTool> tools,
                                                const CallWish& wish);

}  // namespace updraft::tools
