// What counts as right where more than one answer does: accept-lists, as people write them who label requests by hand.
// Any of several alternatives, values as ranges or choices, settings that may come along.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace updraft {

// An answer is right when it equals one alternative. Each is an object of
//   "set"       path -> matcher: all of these, and no others but
//   "optional"  path -> matcher: these may be set as well
//   "call"      key -> matcher: all of these; others only "avoid" and "artist"
//   "result"    key -> matcher: all of these, others may be there
//   "refuse"    true: nothing is done
// A matcher is a literal (numbers to 1e-6; texts without regard to case and outer white space), {"range": [low, high]},
// {"any": [matcher, ...]} or {"contains": text}. Thread-safe.
class AcceptList {
 public:
  // alternatives: a list that is not empty. InvalidArgument says which alternative and what is wrong with it.
  static absl::StatusOr<AcceptList> FromJson(const nlohmann::json& alternatives);

  // Any bytes; what is no JSON object fits nothing.
  bool Fits(std::string_view answer) const;

  std::string ToJson() const { return alternatives_.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace); }

 private:
  explicit AcceptList(nlohmann::json alternatives) : alternatives_(std::move(alternatives)) {}

  nlohmann::json alternatives_;  // checked
};

// What an answer does, whether it is right or not. Neither is true of what is no JSON object.
struct Effect {
  bool asks_back = false;  // "clarify": neither right nor wrong
  bool acts = false;       // it sets or calls something
};
Effect EffectOf(std::string_view answer);
// What an answer that asks back offers, as answers; none of any other.
std::vector<std::string> AlternativesOf(std::string_view answer);

}  // namespace updraft
