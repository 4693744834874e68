#include <algorithm>
#include <map>
#include <numeric>

#include "common/routing/confidence.h"
#include "deploy/demo/record.h"

namespace updraft {
namespace {

PassSummary SummarizeAnswers(const std::vector<const AnswerRecord*>& answers) {
  PassSummary summary;
  std::vector<double> latency, up, down, exits;
  for (const AnswerRecord* answer : answers) {
    ++summary.n;
    summary.correct += answer->correct ? 1 : 0;
    if (!answer->status.ok()) {
      ++summary.errors;
      continue;
    }
    latency.push_back(answer->latency_ms);
    up.push_back(static_cast<double>(answer->bytes_up));
    down.push_back(static_cast<double>(answer->bytes_down));
    if (answer->mean_exit_layer > 0.0) exits.push_back(answer->mean_exit_layer);
  }
  summary.interval = WilsonInterval(summary.correct, summary.n);
  summary.p50_ms = Quantile(latency, 0.5);
  summary.p95_ms = Quantile(latency, 0.95);
  summary.mean_bytes_up = Mean(up);
  summary.mean_bytes_down = Mean(down);
  summary.mean_exit_layer = Mean(exits);
  return summary;
}

PassSummary SummarizePass(const std::vector<const QueryRecord*>& records, Pass pass) {
  std::vector<const AnswerRecord*> answers;
  for (const QueryRecord* record : records) answers.push_back(&record->at(pass));
  return SummarizeAnswers(answers);
}

FamilySummary SummarizeGroup(const std::string& name, const std::vector<const QueryRecord*>& records) {
  FamilySummary summary;
  summary.name = name;
  summary.n = static_cast<int>(records.size());
  for (const Pass pass : {Pass::kEdge, Pass::kCloud, Pass::kTogether}) {
    summary.passes[static_cast<int>(pass)] = SummarizePass(records, pass);
  }
  for (const QueryRecord* record : records) summary.escalated += record->at(Pass::kTogether).escalated() ? 1 : 0;
  return summary;
}

// Accuracy as ever more queries, in this order, are answered by the cloud instead of the edge. Points only where
// `splits` allows: queries of equal confidence go together.
std::vector<CurvePoint> Curve(const std::vector<QueryRecord>& records, const std::vector<size_t>& order,
                              const std::vector<double>* keys) {
  const double n = static_cast<double>(records.size());
  double correct = 0.0;
  for (const QueryRecord& record : records) correct += record.at(Pass::kEdge).correct ? 1.0 : 0.0;
  std::vector<CurvePoint> curve = {{0.0, 0.0, correct / n}};
  for (size_t i = 0; i < order.size(); ++i) {
    const QueryRecord& record = records[order[i]];
    correct += (record.at(Pass::kCloud).correct ? 1.0 : 0.0) - (record.at(Pass::kEdge).correct ? 1.0 : 0.0);
    const bool last = i + 1 == order.size();
    if (keys != nullptr && !last && (*keys)[order[i]] == (*keys)[order[i + 1]]) continue;
    const double threshold = keys == nullptr ? 0.0 : last ? 1.0 : (*keys)[order[i + 1]];
    curve.push_back({threshold, static_cast<double>(i + 1) / n, correct / n});
  }
  return curve;
}

double AreaUnder(const std::vector<CurvePoint>& curve) {
  double area = 0.0;
  for (size_t i = 1; i < curve.size(); ++i) {
    area +=
        0.5 * (curve[i].accuracy + curve[i - 1].accuracy) * (curve[i].escalated_share - curve[i - 1].escalated_share);
  }
  return area;
}

std::vector<ReliabilityBin> Reliability(std::vector<Judged> answers) {
  constexpr int kBins = 10;
  std::stable_sort(answers.begin(), answers.end(),
                   [](const Judged& a, const Judged& b) { return a.confidence < b.confidence; });
  std::vector<ReliabilityBin> bins;
  for (size_t bin = 0; bin < kBins; ++bin) {
    const size_t begin = bin * answers.size() / kBins, end = (bin + 1) * answers.size() / kBins;
    ReliabilityBin b;
    double correct = 0.0;
    for (size_t i = begin; i < end; ++i) {
      b.confidence += answers[i].confidence;
      correct += answers[i].correct ? 1.0 : 0.0;
    }
    b.n = static_cast<int>(end - begin);
    if (b.n == 0) continue;
    b.confidence /= b.n;
    b.accuracy = correct / b.n;
    b.interval = WilsonInterval(static_cast<int64_t>(correct), b.n);
    bins.push_back(b);
  }
  return bins;
}

std::vector<ExitShare> Exits(const std::vector<QueryRecord>& records, int n_layer) {
  std::map<int, int64_t> tokens;
  int64_t total = 0;
  if (n_layer > 0) tokens[n_layer] = 0;
  for (const QueryRecord& record : records) {
    for (const int layer : record.at(Pass::kEdge).exit_layers) {
      ++tokens[layer];
      ++total;
    }
  }
  std::vector<ExitShare> exits;
  for (const auto& [layer, count] : tokens) {
    exits.push_back({layer, count, total > 0 ? static_cast<double>(count) / static_cast<double>(total) : 0.0});
  }
  return exits;
}

int OrderOfFamily(const std::string& name) {
  const auto family = cockpit::FamilyFromName(name);
  return family.ok() ? static_cast<int>(*family) : cockpit::kFamilies;
}

}  // namespace

const char* PassName(Pass pass) {
  switch (pass) {
    case Pass::kEdge:
      return "edge";
    case Pass::kCloud:
      return "cloud";
    case Pass::kTogether:
      return "together";
  }
  return "unknown";
}

bool AnswerRecord::escalated() const {
  return !degraded &&
         (decision == Decision::kHandOver || decision == Decision::kStreamUpstream || decision == Decision::kVerify);
}

Summary Summarize(const std::vector<QueryRecord>& records, int n_layer) {
  Summary summary;
  std::vector<std::string> names;
  std::map<std::string, std::vector<const QueryRecord*>> groups;
  std::vector<const QueryRecord*> all;
  for (const QueryRecord& record : records) {
    all.push_back(&record);
    if (record.item.family.empty()) continue;
    if (groups.find(record.item.family) == groups.end()) names.push_back(record.item.family);
    groups[record.item.family].push_back(&record);
  }
  // The cockpit task's families in their own order, of growing difficulty; any others as they came.
  std::stable_sort(names.begin(), names.end(),
                   [](const std::string& a, const std::string& b) { return OrderOfFamily(a) < OrderOfFamily(b); });
  for (const std::string& name : names) summary.families.push_back(SummarizeGroup(name, groups[name]));
  summary.families.push_back(SummarizeGroup("all", all));

  // Confidence of the complete local answer, which every query has in the edge's own pass.
  std::vector<Judged> judged;
  std::vector<double> confidence, gain;
  for (const QueryRecord& record : records) {
    const AnswerRecord& edge = record.at(Pass::kEdge);
    confidence.push_back(edge.confidence);
    gain.push_back((edge.correct ? 1.0 : 0.0) - (record.at(Pass::kCloud).correct ? 1.0 : 0.0));
    if (edge.status.ok()) judged.push_back({edge.confidence, edge.correct});
  }
  const auto order_by = [&](const std::vector<double>& keys) {
    std::vector<size_t> order(records.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return keys[a] < keys[b]; });
    return order;
  };
  summary.curve = Curve(records, order_by(confidence), &confidence);
  summary.oracle = Curve(records, order_by(gain), nullptr);
  const double random_area = 0.5 * (summary.curve.front().accuracy + summary.curve.back().accuracy);
  const double possible = AreaUnder(summary.oracle) - random_area;
  summary.random_gain_share = possible > 1e-9 ? (AreaUnder(summary.curve) - random_area) / possible : 0.0;
  summary.reliability = Reliability(judged);
  summary.exits = Exits(records, n_layer);
  summary.ece = ExpectedCalibrationError(judged);
  summary.auroc = AreaUnderRoc(judged);
  return summary;
}

std::vector<Example> ChooseExamples(const std::vector<QueryRecord>& records, int n) {
  struct Wanted {
    const char* title;
    bool escalated, edge_right, together_right;
  };
  // In the order of what a reader should see first; the unflattering ones are part of it.
  static constexpr Wanted kWanted[] = {{"Kept on the edge, and right", false, true, true},
                                       {"Handed over, and put right by the cloud", true, false, true},
                                       {"Handed over although the edge was right", true, true, true},
                                       {"Kept on the edge, and wrong", false, false, false},
                                       {"Handed over, and still wrong", true, false, false}};
  std::vector<Example> examples;
  std::map<std::string, int> shown;  // per family, so that examples differ
  const auto add_first = [&](const char* title, const auto& fits) {
    int best = -1;
    for (size_t i = 0; i < records.size(); ++i) {
      const bool taken = std::any_of(examples.begin(), examples.end(),
                                     [&](const Example& example) { return example.record == static_cast<int>(i); });
      if (taken || !records[i].at(Pass::kTogether).status.ok() || !fits(records[i])) continue;
      if (best < 0 || shown[records[i].item.family] < shown[records[static_cast<size_t>(best)].item.family]) {
        best = static_cast<int>(i);
      }
    }
    if (best < 0 || static_cast<int>(examples.size()) >= n) return;
    examples.push_back({title, best});
    ++shown[records[static_cast<size_t>(best)].item.family];
  };
  add_first("The cloud was wanted but out of reach",
            [](const QueryRecord& r) { return r.at(Pass::kTogether).degraded; });
  for (int round = 0; round < 3; ++round) {
    for (const Wanted& wanted : kWanted) {
      if (round > 0 && !wanted.together_right) continue;  // one of each failure is enough
      add_first(wanted.title, [&](const QueryRecord& r) {
        const AnswerRecord& together = r.at(Pass::kTogether);
        return !together.degraded && together.escalated() == wanted.escalated &&
               r.at(Pass::kEdge).correct == wanted.edge_right && together.correct == wanted.together_right;
      });
    }
  }
  return examples;
}

int CountDegraded(const std::vector<QueryRecord>& records, Pass pass) {
  return static_cast<int>(std::count_if(records.begin(), records.end(),
                                        [pass](const QueryRecord& record) { return record.at(pass).degraded; }));
}

void SummarizeLink(LinkReport* link) {
  std::vector<const AnswerRecord*> answers;
  link->escalated = link->degraded = 0;
  for (const AnswerRecord& answer : link->answers) {
    answers.push_back(&answer);
    link->escalated += answer.escalated() ? 1 : 0;
    link->degraded += answer.degraded ? 1 : 0;
  }
  link->pass = SummarizeAnswers(answers);
}

}  // namespace updraft
