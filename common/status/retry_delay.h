// How an overloaded component says when to come back: a delay that rides on an absl::Status.
#pragma once

#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace updraft {

// Attaches `delay` (rounded up to whole milliseconds, at least 1) to an error. An OK status is returned unchanged.
absl::Status WithRetryDelay(absl::Status status, absl::Duration delay);

// The delay attached to `status`, or nullopt.
std::optional<absl::Duration> RetryDelayOf(const absl::Status& status);

}  // namespace updraft
