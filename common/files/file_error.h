// Errors about what a file holds.
#pragma once

#include "absl/status/status.h"

namespace updraft {

// InvalidArgument says that the caller asked for what cannot be, and programs exit with 2 for it. A file that holds
// what cannot be is not that: found by its name, it is damaged, which is DataLoss. Other codes stay.
inline absl::Status AsFileError(const absl::Status& status) {
  return absl::IsInvalidArgument(status) ? absl::DataLossError(status.message()) : status;
}

}  // namespace updraft
