// Answers of the cockpit task: their form, what in them counts, and whether a car may carry them out.
//
// An answer is one JSON object with these fields in this order, of which `set` and `say` are always there:
//   "work"    text: steps worked out before the rest
//   "set"     object: full signal path -> value
//   "call"    object: "name" of a function (navigate, media, phone) and its arguments
//   "result"  object: what was asked for rather than to be done, name -> value
//   "refuse"  true: nothing is done
//   "say"     text: what the driver hears
// Every function here takes any bytes, from a model or a file; any thread.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace updraft::cockpit {

struct Answer {
  std::string work;
  nlohmann::ordered_json set = nlohmann::ordered_json::object();
  nlohmann::ordered_json call = nlohmann::ordered_json::object();
  nlohmann::ordered_json result = nlohmann::ordered_json::object();
  bool refuse = false;
  std::string say;
};

// The answer's JSON text: fields in the agreed order, empty ones left out. What is not UTF-8 becomes U+FFFD.
std::string AnswerText(const Answer& answer);

// What counts in an answer, as one canonical text: set, call, result and refuse, keys sorted, 22.0 written as 22.
// work and say do not count: they may be worded otherwise. InvalidArgument when `answer` is not an object of the agreed
// form.
absl::StatusOr<std::string> CanonicalSettings(std::string_view answer);

// What an answer is made of as far as it goes: any bytes, a beginning too.
struct Parts {
  size_t acting_bytes = std::string_view::npos;  // from the start, up to what the driver hears; npos: it is not there
  int n_settings = 0;
  bool calls = false, refuses = false;
};
Parts PartsOf(std::string_view answer);

// The judge. True when both parse and mean the same settings. A malformed answer never matches.
bool ExactMatch(std::string_view expected, std::string_view got);

// Whether `answer` sets only catalogue signals to legal values and calls only known functions. InvalidArgument says
// which it does not.
absl::Status CheckLegal(std::string_view answer);

}  // namespace updraft::cockpit
