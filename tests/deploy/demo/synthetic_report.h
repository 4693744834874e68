// A report as a run might have made it, without daemons: outcomes drawn from confidences, so that the figures have a
// known truth.
#pragma once

#include <cmath>
#include <random>
#include <string>

#include "deploy/demo/demo.h"

namespace updraft::testing {

inline DemoReport SyntheticReport(int n, uint64_t seed) {
  static constexpr const char* kFamilies[] = {"slot", "implicit", "multi", "followup", "arithmetic", "scope"};
  static constexpr double kEase[] = {2.0, 1.4, 0.2, 0.6, -1.2, 1.8};
  std::mt19937_64 rng(seed);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  std::normal_distribution<double> normal(0.0, 1.0);
  DemoReport report;
  report.edge = {"edge", "updraft-cockpit-edge", 6'400'000, 3'900'000, 6, {2, 4}, 41'000'000, 210.0};
  report.cloud = {"cloud", "updraft-cockpit-full", 13'700'000, 27'500'000, 10, {}, 120'000'000, 380.0};
  report.threshold = 0.83;
  report.concurrency = 2;
  report.seed = seed;
  report.seconds = 141.0;
  report.when = "2031-02-03 04:05 UTC";
  report.machine = "An <imaginary> processor, 2 cores";
  for (int i = 0; i < n; ++i) {
    const int family = i % 6;
    const double logit = 2.0 * (kEase[family] + normal(rng)) + 1.0;
    const double p = 1.0 / (1.0 + std::exp(-logit));
    QueryRecord record;
    record.item.id = std::to_string(i);
    record.item.family = kFamilies[family];
    record.item.language = i % 2 == 0 ? "en" : "zh";
    record.item.messages = {
        {"user", i % 2 == 0 ? "it's <b>freezing</b> in the back & dark" : "\u540e\u6392\u6709\u70b9\u51b7"}};
    record.item.expected = R"({"set":{"Cabin.HVAC.Station.Row2.Driver.Temperature":24},"say":"Warmer in the back."})";
    const bool edge_right = uniform(rng) < p, cloud_right = uniform(rng) < (edge_right ? 0.99 : 0.93);
    const double edge_ms = 30.0 + 60.0 * uniform(rng) + (family == 4 ? 120.0 : 0.0);
    const double cloud_ms = 90.0 + 120.0 * uniform(rng) + (family == 4 ? 300.0 : 0.0);
    for (const Pass pass : {Pass::kEdge, Pass::kCloud, Pass::kTogether}) {
      AnswerRecord& answer = record.at(pass);
      const bool escalated = pass == Pass::kCloud || (pass == Pass::kTogether && p < report.threshold);
      answer.correct = escalated ? cloud_right : edge_right;
      answer.text = answer.correct ? record.item.expected : R"({"set":{},"say":"?"})";
      answer.tiers = escalated ? "cloud" : "edge";
      answer.confidence = pass == Pass::kCloud ? 0.0 : p;
      answer.decision = !escalated             ? Decision::kKeep
                        : pass == Pass::kCloud ? Decision::kStreamUpstream
                                               : Decision::kHandOver;
      answer.reason =
          escalated ? "confidence 0.41 below 0.83; upstream in about 0.20 s" : "confidence 0.97 reaches 0.83";
      answer.latency_ms = pass == Pass::kCloud ? cloud_ms : edge_ms + (escalated ? cloud_ms : 0.0);
      answer.first_token_ms = 0.4 * answer.latency_ms;
      answer.bytes_up = escalated ? 260 : 0;
      answer.bytes_down = escalated ? 900 : 0;
      answer.mean_exit_layer = pass == Pass::kCloud ? 0.0 : 4.1;
      answer.completion_tokens = 40;
      if (pass == Pass::kEdge) {
        for (int t = 0; t < 40; ++t) answer.exit_layers.push_back(uniform(rng) < 0.35 ? 2 : uniform(rng) < 0.4 ? 4 : 6);
      }
    }
    report.records.push_back(std::move(record));
  }
  report.summary = Summarize(report.records, report.edge.n_layer);
  return report;
}

}  // namespace updraft::testing
