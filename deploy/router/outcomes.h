// Tables of what a weak and a strong model made of the same prompts.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace updraft {

// How right each was: in [0, 1], mostly 0 or 1.
struct RouterOutcome {
  std::string prompt;
  double weak = 0.0, strong = 0.0;

  double fixes() const { return strong > weak ? strong - weak : 0.0; }
  double breaks() const { return weak > strong ? weak - strong : 0.0; }
};

// No fit and no interval on fewer rows.
constexpr size_t kMinRouterRows = 50;

// A file in JSONL, one object a line, or, where its name ends in .csv, in CSV with a line of names first (RFC 4180). A
// row has "prompt" as text (in JSONL also "messages", of which the last user's counts) and "weak" and "strong" (or
// weak_correct and strong_correct, or weak_score and strong_score): true, false, or a number in [0, 1]. Other fields
// are ignored; `without` (may be empty) names one: rows where it is set and neither 0 nor false are left out, and it
// must be there in some row.
//
// NotFound the file; DataLoss names the line; InvalidArgument as CheckOutcomes.
absl::StatusOr<std::vector<RouterOutcome>> ReadOutcomes(const std::string& path, const std::string& without = "");

// InvalidArgument: fewer than kMinRouterRows rows, none where the strong one is more right than the weak one, or a
// strong one that is no more right on the whole. what: the table's name in messages.
absl::Status CheckOutcomes(const std::vector<RouterOutcome>& rows, std::string_view what);

// Of prompts and outcomes, in their order.
absl::StatusOr<std::string> FingerprintOf(const std::vector<RouterOutcome>& rows);

}  // namespace updraft
