#include "deploy/demo/report_plots.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "deploy/page/plot.h"

namespace updraft {
namespace {

constexpr int kWidth = 480, kHeight = 310;
constexpr size_t kMaxPoints = 200;  // of a line: more cannot be seen and make the page heavy

// At most kMaxPoints of them, the first and last included.
std::vector<Plot::XY> Thinned(const std::vector<Plot::XY>& points) {
  if (points.size() <= kMaxPoints) return points;
  std::vector<Plot::XY> thinned;
  for (size_t i = 0; i < kMaxPoints; ++i) thinned.push_back(points[i * (points.size() - 1) / (kMaxPoints - 1)]);
  return thinned;
}

std::vector<Plot::XY> PointsOf(const std::vector<CurvePoint>& curve) {
  std::vector<Plot::XY> points;
  for (const CurvePoint& point : curve) points.push_back({point.escalated_share, point.accuracy});
  return Thinned(points);
}

Axis ShareAxis(std::string label, double low = 0.0, double high = 1.0) {
  return {std::move(label), low, high, false, RoundTicks(low, high, 5, /*percent=*/true)};
}

// Share of answers that took at most x.
std::vector<Plot::XY> CumulativeShare(std::vector<double> latencies) {
  std::sort(latencies.begin(), latencies.end());
  std::vector<Plot::XY> points;
  for (size_t i = 0; i < latencies.size(); ++i) {
    points.push_back({latencies[i], static_cast<double>(i + 1) / static_cast<double>(latencies.size())});
  }
  return Thinned(points);
}

std::vector<double> Latencies(const DemoReport& report, Pass pass, bool only_escalated) {
  std::vector<double> latencies;
  for (const QueryRecord& record : report.records) {
    const AnswerRecord& answer = record.at(pass);
    if (answer.status.ok() && (!only_escalated || answer.escalated()))
      latencies.push_back(std::max(answer.latency_ms, 0.1));
  }
  return latencies;
}

}  // namespace

std::string AccuracyPlot(const DemoReport& report) {
  const Summary& summary = report.summary;
  const FamilySummary& all = summary.all();
  double low = 1.0, high = 0.0;
  for (const auto* curve : {&summary.curve, &summary.oracle}) {
    for (const CurvePoint& point : *curve) {
      low = std::min(low, point.accuracy);
      high = std::max(high, point.accuracy);
    }
  }
  low = std::max(0.0, std::floor((low - 0.02) * 50) / 50);
  high = std::min(1.0, std::ceil((high + 0.005) * 50) / 50);
  if (high - low < 0.04) low = high - 0.04;
  Plot plot("Accuracy against share escalated", kWidth, kHeight, ShareAxis("share answered by the cloud"),
            ShareAxis("right answers", low, high));
  plot.Area(PointsOf(summary.curve), low, "area both");
  plot.Line(PointsOf(summary.oracle), "line dots", "oracle: hands over exactly where that helps");
  plot.Line({{0.0, summary.curve.front().accuracy}, {1.0, summary.curve.back().accuracy}}, "line thin",
            "random routing");
  plot.Line(PointsOf(summary.curve), "line both");
  // Hover targets along the curve, one per 4 % escalated.
  double next = 0.0;
  for (const CurvePoint& point : summary.curve) {
    if (point.escalated_share < next) continue;
    next = point.escalated_share + 0.04;
    plot.Dot({point.escalated_share, point.accuracy}, 5, "hit",
             absl::StrFormat("threshold %.2f: %.1f %% handed over, %.1f %% right", point.threshold,
                             100 * point.escalated_share, 100 * point.accuracy));
  }
  plot.Dot({0.0, summary.curve.front().accuracy}, 5, "dot edge",
           absl::StrFormat("edge alone: %.1f %% right", 100 * summary.curve.front().accuracy));
  plot.Dot({1.0, summary.curve.back().accuracy}, 5, "dot cloud",
           absl::StrFormat("cloud alone: %.1f %% right", 100 * summary.curve.back().accuracy));
  const PassSummary& together = all.at(Pass::kTogether);
  plot.ErrorBar(all.escalated_share(), together.interval.low, together.interval.high, "whisker both");
  plot.Dot({all.escalated_share(), together.accuracy()}, 6.5, "dot both",
           absl::StrFormat("as run: %.1f %% handed over, %.1f %% right (%.1f to %.1f)", 100 * all.escalated_share(),
                           100 * together.accuracy(), 100 * together.interval.low, 100 * together.interval.high));
  plot.Label({all.escalated_share(), together.accuracy()}, 10, 22, "as run", "both strong");
  plot.Label({0.0, summary.curve.front().accuracy}, 10, 12, "edge alone", "edge strong");
  plot.Label({1.0, summary.curve.back().accuracy}, -2, 22, "cloud alone", "cloud strong", "end");
  const double middle = 0.5 * (summary.curve.front().accuracy + summary.curve.back().accuracy);
  plot.Label({0.5, middle}, 8, 16, "random routing", "faint");
  return plot.Render();
}

std::string LatencyPlot(const DemoReport& report) {
  const auto edge = Latencies(report, Pass::kEdge, false), cloud = Latencies(report, Pass::kCloud, false),
             together = Latencies(report, Pass::kTogether, false), escalated = Latencies(report, Pass::kTogether, true);
  double low = 1e9, high = 0.0;
  for (const auto* values : {&edge, &cloud, &together}) {
    if (values->empty()) continue;
    low = std::min(low, Quantile(*values, 0.0));
    high = std::max(high, Quantile(*values, 0.995));
  }
  if (!(low < high))
    return Plot("Latency", kWidth, kHeight, {"time to the full answer", 1, 1000, true, LogTicks(1, 1000)},
                ShareAxis("answers within it"))
        .Render();
  low *= 0.9;
  high *= 1.1;
  Plot plot("Latency by tier", kWidth, kHeight, {"time to the full answer", low, high, true, LogTicks(low, high)},
            ShareAxis("answers within it"));
  plot.Line(CumulativeShare(escalated), "line thin",
            absl::StrFormat("handed over (%d): median %.0f ms", escalated.size(), Quantile(escalated, 0.5)));
  plot.Line(CumulativeShare(cloud), "line cloud", absl::StrFormat("cloud alone: median %.0f ms", Quantile(cloud, 0.5)));
  plot.Line(CumulativeShare(edge), "line edge", absl::StrFormat("edge alone: median %.0f ms", Quantile(edge, 0.5)));
  plot.Line(CumulativeShare(together), "line both",
            absl::StrFormat("together: median %.0f ms", Quantile(together, 0.5)));
  const struct {
    const std::vector<double>& values;
    const char *css, *name;
  } medians[] = {
      {cloud, "dot cloud", "cloud alone"}, {edge, "dot edge", "edge alone"}, {together, "dot both", "together"}};
  for (const auto& m : medians) {
    if (m.values.empty()) continue;
    plot.Dot({Quantile(m.values, 0.5), 0.5}, 5, m.css,
             absl::StrFormat("%s: median %.0f ms, 95 %% within %.0f ms", m.name, Quantile(m.values, 0.5),
                             Quantile(m.values, 0.95)));
  }
  return plot.Render();
}

std::string ReliabilityPlot(const DemoReport& report) {
  Plot plot("Reliability of the confidence", kWidth, kHeight, ShareAxis("stated confidence"),
            ShareAxis("right answers of the edge"));
  plot.Line({{0.0, 0.0}, {1.0, 1.0}}, "line thin", "perfectly calibrated");
  if (report.threshold > 0.0 && report.threshold < 1.0) {
    plot.VerticalLine(report.threshold, "mark", absl::StrFormat("handed over below %.2f", report.threshold));
    // To the left of the line unless that would leave the plot.
    const bool left = report.threshold > 0.3;
    plot.Label({report.threshold, 0.02}, left ? -6 : 6, 0, absl::StrFormat("threshold %.2f", report.threshold), "faint",
               left ? "end" : "start");
  }
  std::vector<Plot::XY> points;
  for (const ReliabilityBin& bin : report.summary.reliability) {
    plot.ErrorBar(bin.confidence, bin.interval.low, bin.interval.high, "whisker");
    points.push_back({bin.confidence, bin.accuracy});
  }
  plot.Line(points, "line edge");
  for (const ReliabilityBin& bin : report.summary.reliability) {
    plot.Dot({bin.confidence, bin.accuracy}, 5, "dot edge",
             absl::StrFormat("%d answers said %.1f %%, %.1f %% were right (%.1f to %.1f)", bin.n, 100 * bin.confidence,
                             100 * bin.accuracy, 100 * bin.interval.low, 100 * bin.interval.high));
  }
  return plot.Render();
}

std::string ExitPlot(const DemoReport& report) {
  const auto& exits = report.summary.exits;
  const int n_layer = std::max(report.edge.n_layer, exits.empty() ? 1 : exits.back().layer);
  double high = 0.0;
  for (const ExitShare& exit : exits) high = std::max(high, exit.share);
  high = std::max(0.1, std::min(1.0, std::ceil(high * 1.12 * 10) / 10));
  Axis x{"layers run when the token was decided", 0.4, n_layer + 0.6, false, {}};
  for (int layer = 1; layer <= n_layer; ++layer) x.ticks.emplace_back(layer, absl::StrFormat("%d", layer));
  Plot plot("Tokens by exit depth", kWidth, kHeight, x, ShareAxis("tokens", 0.0, high));
  for (const ExitShare& exit : exits) {
    const bool full = exit.layer >= n_layer;
    plot.Bar(exit.layer - 0.32, exit.layer + 0.32, 0.0, exit.share, full ? "bar deep" : "bar edge",
             absl::StrFormat("%d tokens (%.1f %%) %s %d layers", exit.tokens, 100 * exit.share,
                             full ? "needed all" : "left after", exit.layer));
    plot.Label({static_cast<double>(exit.layer), exit.share}, 0, -6, absl::StrFormat("%.0f %%", 100 * exit.share),
               "strong", "middle");
  }
  return plot.Render();
}

std::string FamilyPlot(const DemoReport& report) {
  const auto& families = report.summary.families;
  const int n = static_cast<int>(families.size());
  double low = 1.0;
  for (const FamilySummary& family : families) {
    for (const PassSummary& pass : family.passes) low = std::min(low, pass.interval.low);
  }
  low = std::max(0.0, std::floor((low - 0.02) * 10) / 10);
  Axis x{"family of requests", 0.5, n + 0.5, false, {}};
  for (int i = 0; i < n; ++i) x.ticks.emplace_back(i + 1, families[static_cast<size_t>(i)].name);
  Plot plot("Accuracy by family", 2 * kWidth + 40, kHeight, x, ShareAxis("right answers", low, 1.0));
  const struct {
    Pass pass;
    double offset;
    const char *whisker, *dot, *name;
  } columns[] = {{Pass::kEdge, -0.16, "whisker", "dot edge", "edge alone"},
                 {Pass::kTogether, 0.0, "whisker both", "dot both", "together"},
                 {Pass::kCloud, 0.16, "whisker cloud", "dot cloud", "cloud alone"}};
  for (int i = 0; i < n; ++i) {
    const FamilySummary& family = families[static_cast<size_t>(i)];
    for (const auto& column : columns) {
      const PassSummary& pass = family.at(column.pass);
      const double at = i + 1 + column.offset;
      plot.ErrorBar(at, pass.interval.low, pass.interval.high, column.whisker);
      plot.Dot({at, pass.accuracy()}, 5.5, column.dot,
               absl::StrFormat("%s, %s: %.1f %% right (%.1f to %.1f, n = %d)", family.name, column.name,
                               100 * pass.accuracy(), 100 * pass.interval.low, 100 * pass.interval.high, pass.n));
    }
  }
  return plot.Render();
}

}  // namespace updraft
