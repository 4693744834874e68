// The forms of calls that are tried.
#pragma once

#include <string>
#include <vector>

#include "common/tools/call_format.h"

namespace updraft::tools::testing {

inline CallFormat Hermes() { return {.name = "hermes", .open = "<tool_call>", .close = "</tool_call>"}; }
inline CallFormat HermesThatThinks() {
  return {.name = "hermes", .open = "<tool_call>", .close = "</tool_call>", .may_think = true};
}
inline CallFormat Llama3() {
  return {.name = "llama3", .open = "<|python_tag|>", .bare = true, .several = false, .arguments_key = "parameters"};
}
inline CallFormat Mistral() {
  return {.name = "mistral", .form = CallFormat::Form::kList, .open = "[TOOL_CALLS]", .writes_id = true};
}
inline CallFormat MistralNamed() {
  return {.name = "mistral",
          .form = CallFormat::Form::kNamed,
          .open = "[TOOL_CALLS]",
          .writes_id = true,
          .before_arguments = "[ARGS]"};
}
inline CallFormat Phi4() {
  return {.name = "granite", .form = CallFormat::Form::kList, .open = "<|tool_call|>", .close = "<|/tool_call|>"};
}
inline std::vector<CallFormat> AllFormats() {
  return {Hermes(), HermesThatThinks(), Llama3(), Mistral(), MistralNamed(), Phi4()};
}

}  // namespace updraft::tools::testing
