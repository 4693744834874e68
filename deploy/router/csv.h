// Comma-separated values (RFC 4180): fields in double quotes may hold commas, line ends and doubled quotes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace updraft {

struct CsvRecord {
  int line = 0;  // where it begins, from 1
  std::vector<std::string> fields;
};

// All records of a text, lines without a character left out. InvalidArgument names the line: a quote that is not
// closed, or text beside one.
absl::StatusOr<std::vector<CsvRecord>> ParseCsv(std::string_view text);

}  // namespace updraft
