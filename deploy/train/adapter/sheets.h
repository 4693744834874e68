#ifndef UPDRAFT_DEPLOY_TRAIN_ADAPTER_SHEETS_H_
#define UPDRAFT_DEPLOY_TRAIN_ADAPTER_SHEETS_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "deploy/train/cockpit/example.h"

namespace updraft::train {

// Requests written by one hand (cockpit/written/README.md), in the form of the generated ones: answers as
// common/cockpit/answer.h has them, with an empty "say".
struct Sheet {
  std::string name;
  std::vector<cockpit::Example> examples;
  std::vector<std::string> kinds;  // of each
  int skipped = 0;                 // lines whose answer that form cannot express: questions asked back (`clarify`)
};

// The language is the first in the name: en7, off_zh. Errors name file and line.
absl::StatusOr<Sheet> ReadSheet(const std::string& folder, const std::string& name);

// One line; skipped when `example` stays without an answer.
absl::Status ReadSheetLine(std::string_view line, cockpit::Example* example, std::string* kind);

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_ADAPTER_SHEETS_H_
