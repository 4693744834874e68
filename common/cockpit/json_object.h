// JSON from a model or a file, read with bounds: it is hostile.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "absl/status/statusor.h"

namespace updraft::cockpit {

// An answer of the task nests three deep and is a few hundred bytes long.
inline constexpr size_t kMaxObjectBytes = 64 * 1024;
inline constexpr int kMaxObjectDepth = 16;

// One JSON object, neither longer nor deeper than that: what walks over it may recurse. InvalidArgument begins with
// `what`. Any bytes are accepted.
absl::StatusOr<nlohmann::json> ParseObject(std::string_view text, std::string_view what);

}  // namespace updraft::cockpit
