// `updraft demo` after its daemons are up: held-out queries through the edge, and what came of it as a table, JSON and
// a page.
#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "deploy/demo/record.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

struct DemoOptions {
  std::string edge_address;                    // HOST:PORT of the agent's gRPC service, which must have an upstream
  int n_queries = 600;                         // 600: accuracies within about 2 points; 2000: within about 1
  uint64_t seed = 1;                           // of the generated queries
  int concurrency = 2;                         // queries in flight; latencies include the waiting that this makes
  absl::Duration timeout = absl::Seconds(60);  // of one query
  absl::Duration link_patience = absl::Seconds(15);  // for the edge to answer, and to have seen its upstream
  std::stop_token stop;                              // ends the waiting early
  bool progress = true;  // a bar on stderr where that is a terminal, a line per pass where it is not

  absl::Status Validate() const;
};

// Queries of the cockpit task's test split. The first error that makes the figures meaningless ends it: the edge or its
// upstream out of reach at the start, or none of the first queries of a pass answered.
absl::StatusOr<DemoReport> RunDemo(const DemoOptions& options);
// The same with any items.
absl::StatusOr<DemoReport> RunDemo(const DemoOptions& options, const std::vector<TaskItem>& items);

// The queries of a report once more, as routing decides, through an agent whose upstream lies behind a road
// (options.edge_address). That its upstream is out of reach is what a road may do, and no error. The road's own words
// are the caller's to fill in.
absl::StatusOr<LinkReport> RunLinkPass(const DemoOptions& options, const DemoReport& plain);

// Writes report.json and report.html into the folder, which is made if absent.
absl::Status WriteReport(const DemoReport& report, const std::string& folder);

std::string ToText(const DemoReport& report);  // tables and examples for a terminal
std::string ToJson(const DemoReport& report);  // summary and every record
std::string ToHtml(const DemoReport& report);  // one page without external assets

// One task on a live agent: `updraft evaluate task --edge`.
struct EdgeTaskReport {
  TaskReport task;
  double escalated_share = 0.0;
  // Answers that are the edge's to their end and do not ask back: how many of all, and how many of those are wrong.
  GroupScore kept{"kept", 0, 0, {}}, wrong_among_kept{"wrong among kept", 0, 0, {}};
  double kept_stated = 0.0;  // mean p_right that was stated of them, or confidence where none was
  double p50_ms = 0.0, p95_ms = 0.0;
  int errors = 0;
};
absl::StatusOr<EdgeTaskReport> EvaluateTaskOnEdge(const DemoOptions& options, const std::vector<TaskItem>& items,
                                                  v1::TierChoice tier, std::vector<std::string>* texts = nullptr);
std::string ToJson(const EdgeTaskReport& report);
std::string ToText(const EdgeTaskReport& report);

}  // namespace updraft
