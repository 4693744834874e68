// What the pair makes of words that people wrote, from a results file of `updraft evaluate pair`: the demo's own
// requests come from a generator, and say little of that.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "deploy/task/statistics.h"

namespace updraft {

// One set of requests. Shares in [0, 1].
struct PeopleSet {
  std::string name;
  int n = 0;
  double edge = 0.0, cloud = 0.0, together = 0.0;  // right
  Interval together_interval;
  double kept = 0.0;
  double wrong_among_kept = 0.0;
  Interval wrong_interval;
  double stated = 0.0;  // mean probability of being right that came with what was kept
  double acted_wrong = 0.0, asked_back = 0.0;
};

// A file as a results file names it: without its folder.
struct MeasuredFile {
  std::string name;
  uint64_t bytes = 0;
  bool operator==(const MeasuredFile&) const = default;
};

struct PeopleResults {
  MeasuredFile edge, cloud;
  std::optional<MeasuredFile> cloud_adapter;
  std::vector<PeopleSet> sets;
};

// One or more results, a JSON object or a list of them. NotFound where there is no such file; DataLoss names what is
// missing or has the wrong type.
absl::StatusOr<std::vector<PeopleResults>> ReadPeopleResults(const std::string& path);

// Those that were measured with these very files; none: nobody has measured that pair.
std::optional<PeopleResults> ResultsOfPair(std::span<const PeopleResults> all, const MeasuredFile& edge,
                                           const MeasuredFile& cloud, const std::optional<MeasuredFile>& adapter);

std::string PeopleHtml(const PeopleResults& results);  // a section of the page
std::string PeopleText(const PeopleResults& results);  // a table for a terminal
std::string PeopleJson(const PeopleResults& results);

}  // namespace updraft
