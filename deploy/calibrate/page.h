// A calibration as a page for a person: how far the confidence can be believed, what keeping costs, where it fails.
#pragma once

#include <span>
#include <string>

#include "absl/status/status.h"
#include "deploy/calibrate/calibrate.h"

namespace updraft {

struct PageNames {
  std::string model, upstream;  // upstream: empty where none was asked
};

// One file without external assets. items: those that the report is of, in its order.
std::string CalibrationPage(const CalibrationReport& report, std::span<const TaskItem> items, const PageNames& names);

// Errors of AtomicFile; the file is replaced as a whole.
absl::Status WriteCalibrationPage(const std::string& path, const CalibrationReport& report,
                                  std::span<const TaskItem> items, const PageNames& names);

}  // namespace updraft
