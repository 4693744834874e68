// What the demo measures of each query, and what it makes of it. No I/O here.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/routing/names.h"
#include "deploy/demo/people.h"
#include "deploy/task/task.h"

namespace updraft {

// The same queries three times: the edge by itself, the cloud by itself, and as the routing policy decides.
enum class Pass { kEdge, kCloud, kTogether };
inline constexpr int kPasses = 3;
const char* PassName(Pass pass);  // "edge", "cloud", "together"

// One answer as the client received it.
struct AnswerRecord {
  absl::Status status;  // not OK: no answer, which counts as wrong
  std::string text;
  bool correct = false;
  std::string tiers;  // who wrote it, in order: "edge", "cloud", "edge + cloud"
  Decision decision = Decision::kKeep;
  std::string reason;
  double confidence = 0.0;
  std::optional<double> p_right;  // none: nobody said it
  double latency_ms = 0.0;        // at the client, sending to last byte
  double first_token_ms = 0.0;
  uint64_t bytes_up = 0, bytes_down = 0;  // between edge and cloud
  double mean_exit_layer = 0.0;           // 0: nothing was generated on the edge
  bool degraded = false;
  int completion_tokens = 0;
  std::vector<int> exit_layers;  // per token written by the edge; only where evidence was asked for

  // Upstream wrote the answer or its end.
  bool escalated() const;
};

struct QueryRecord {
  TaskItem item;
  std::array<AnswerRecord, kPasses> passes;

  const AnswerRecord& at(Pass pass) const { return passes[static_cast<int>(pass)]; }
  AnswerRecord& at(Pass pass) { return passes[static_cast<int>(pass)]; }
};

// What a daemon said of its model.
struct TierFacts {
  std::string tier, model;
  int64_t n_parameters = 0, file_bytes = 0;
  int n_layer = 0;
  std::vector<int> exit_layers;
  uint64_t resident_bytes = 0;
  double ready_after_ms = 0.0;
};

struct PassSummary {
  int n = 0, correct = 0, errors = 0;
  Interval interval;  // Wilson, 95 %
  double p50_ms = 0.0, p95_ms = 0.0;
  double mean_bytes_up = 0.0, mean_bytes_down = 0.0;
  double mean_exit_layer = 0.0;  // over answers with tokens from the edge
  double accuracy() const { return n > 0 ? static_cast<double>(correct) / n : 0.0; }
};

struct FamilySummary {
  std::string name;  // "all" for the last row
  int n = 0;
  std::array<PassSummary, kPasses> passes;
  int escalated = 0;
  double escalated_share() const { return n > 0 ? static_cast<double>(escalated) / n : 0.0; }
  const PassSummary& at(Pass pass) const { return passes[static_cast<int>(pass)]; }
};

// Accuracy when every answer below `threshold` is handed over.
struct CurvePoint {
  double threshold = 0.0;
  double escalated_share = 0.0;
  double accuracy = 0.0;
};

struct ReliabilityBin {
  double confidence = 0.0;  // mean
  double accuracy = 0.0;
  Interval interval;  // Wilson, 95 %
  int n = 0;
};

struct ExitShare {
  int layer = 0;
  int64_t tokens = 0;
  double share = 0.0;
};

struct Summary {
  std::vector<FamilySummary> families;  // in order of first appearance, then "all"
  std::vector<CurvePoint> curve;        // by confidence, share ascending from 0 to 1
  std::vector<CurvePoint> oracle;       // by knowledge of who is right; thresholds unused
  std::vector<ReliabilityBin> reliability;
  std::vector<ExitShare> exits;
  double ece = 0.0, auroc = 0.0;
  double random_gain_share = 0.0;  // area between curve and random routing over that between oracle and random
  const FamilySummary& all() const { return families.back(); }
};

// n_layer: of the edge model, so that "no early exit" has its bar even when no token used it. REQUIRES: records not
// empty.
Summary Summarize(const std::vector<QueryRecord>& records, int n_layer);

// The same queries as routing decides, with a road between edge and cloud.
struct LinkReport {
  std::string road;  // of what it is made
  std::string like;  // figures of the stretch that was driven
  std::vector<AnswerRecord> answers;
  PassSummary pass;
  int escalated = 0;
  int degraded = 0;  // answers that the edge had to end without the upstream it wanted
  double seconds = 0.0;
  int64_t bytes_lost = 0;  // on the road
};
// Fills in what follows from the answers.
void SummarizeLink(LinkReport* link);
int CountDegraded(const std::vector<QueryRecord>& records, Pass pass);

struct DemoReport {
  std::vector<QueryRecord> records;
  Summary summary;
  TierFacts edge, cloud;
  double threshold = 0.0;
  int concurrency = 0;
  uint64_t seed = 0;
  double seconds = 0.0;
  std::string when;     // local date and time
  std::string machine;  // processor and cores
  std::optional<LinkReport> link;
  std::optional<PeopleResults> people;  // measured before with these models; none: they were not
};

// Queries worth reading, at most `n`: kept and right, handed over and put right, kept and wrong, ...; indexes into
// records.
struct Example {
  std::string title;
  int record = 0;
};
std::vector<Example> ChooseExamples(const std::vector<QueryRecord>& records, int n);

}  // namespace updraft
