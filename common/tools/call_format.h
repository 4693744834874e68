// How a model writes calls of tools into its answer. Models are taught different forms, and nothing in a file names
// them: a chat template shows the form where it writes calls of earlier turns.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/text/chat_template.h"
#include "common/text/tokenizer.h"

namespace updraft::tools {

struct CallFormat {
  enum class Form : uint8_t {
    kObjects,  // OPEN {"name": N, "arguments": {...}} CLOSE, for each call
    kList,     // OPEN [{"name": N, "arguments": {...}}, ...] CLOSE
    kNamed,    // OPEN N [ARGS] {...}, for each call
  };
  std::string name;  // "hermes", "llama3", "mistral", ...: one way of reading each
  Form form = Form::kObjects;
  std::string open;                         // marker before a call, or before the list
  std::string close = {};                   // behind; empty: none
  bool bare = false;                        // an answer that begins with the object of a call is one, without OPEN
  bool several = true;                      // more than one call in an answer
  bool writes_id = false;                   // a call may say an id: in its object, or (kNamed) as [CALL_ID] ID
  std::string before_arguments = {};        // kNamed: "[ARGS]"; empty: nothing is between name and arguments
  std::string arguments_key = "arguments";  // of the object; Llama 3 has "parameters"
  bool may_think = false;                   // thoughts, which </think> ends, may come before
};

// What this template writes; nullopt: no calls, or in a form that is not known here.
std::optional<CallFormat> CallFormatOf(const text::ChatTemplate& chat);

// To read calls by, of another tier's answer; nullopt: no such name.
std::optional<CallFormat> CallFormatNamed(std::string_view name);

// Markers of the format that are control tokens of the vocabulary: an answer that may hold calls has their text.
std::vector<int32_t> MarkerTokens(const CallFormat& format, const text::Tokenizer& tokenizer);

// An id for a call, as templates expect it: 9 letters and digits for Mistral's, whose templates refuse others. The same
// seed gives the same id.
std::string CallId(const CallFormat& format, uint64_t seed);

}  // namespace updraft::tools
