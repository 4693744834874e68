// What a written label leaves open (deploy/train/cockpit/written/README.md): a number that nobody named. "Warmer" is
// labelled 25 degrees by convention; 24 is as right.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "absl/status/statusor.h"
#include "deploy/task/accept_list.h"

namespace updraft {

// kind and answer of a written line (not one that asks back). Exact but for
//  * settings that `adjust` marks "up" or "down": any value clearly on that side of the resting state, not in a
//  followup,
//    whose state is what the conversation shows;
//  * numbers of the kinds levelless and implicit: what the word would bear (a crack of the window: 3 to 30 percent);
//  * texts, which are compared without regard to case (AcceptList).
// InvalidArgument: set, call or adjust is no object.
absl::StatusOr<AcceptList> AcceptListOfWritten(std::string_view kind, const nlohmann::json& answer);

}  // namespace updraft
