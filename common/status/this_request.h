// An error that says nothing of other requests, whatever its code: a tier that answers may fail one with UNAVAILABLE
// because only the tier above could have answered it.
#pragma once

#include "absl/status/status.h"

namespace updraft {

// Marks an error. An OK status is returned unchanged.
absl::Status OfThisRequestAlone(absl::Status status);

bool IsOfThisRequestAlone(const absl::Status& status);

}  // namespace updraft
